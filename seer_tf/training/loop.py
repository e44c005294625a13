"""The life of a learner: pixels, the switch, latents; whoever acts for it.

pixels     actors write pixels, it learns from sampled pixels; layers may freeze one after another
draining   the lower encoder is frozen; every pixel row in replay becomes a latent row, once
latents    actors encode and write latents, it learns from sampled latents

`Run` begins in whatever phase its checkpoint says, finds out what the replay server holds, and goes
on from there: after a start, after a kill, and after the server was away.
"""

import functools
import math
import time
from typing import Callable, Dict, Mapping, Optional, Sequence

from absl import logging
import numpy as np
import reverb
import tensorflow as tf

from seer_tf.costs import flops
from seer_tf.freezing import freeze
from seer_tf.replay import capacity as capacity_lib
from seer_tf.replay import messages
from seer_tf.training import (
  account,
  checkpoints,
  checks,
  conversion,
  crew,
  encoding,
  faults,
  leaving,
  link,
  publication,
  records,
  subscription,
)
from seer_tf.training import experiment as experiment_lib
from seer_tf.training import learner as learner_lib

# Agent steps between two looks at the server, the progress bar's figures and TensorBoard's.
_REPORT_PERIOD = 20
# Updates between two looks at what else there is to do.
_MOST_UPDATES = 20
# Of publication, for which a learner that begins watches out for another one.
_PERIODS_OF_ANOTHER = 2.5


class _Every:
  """True once in `period` counts, of a clock that may jump."""

  def __init__(self, period: int, start: int):
    self._period = period
    self._last = start // period

  @property
  def next(self) -> int:
    """The count from which on it is true again."""
    return (self._last + 1) * self._period

  def __call__(self, count: int) -> bool:
    last, self._last = self._last, count // self._period
    return self._last > last


class Run:
  """One learner against one replay server.

  Building it checks everything that can be checked before the first agent step. `run` lives it.
  """

  def __init__(
    self,
    experiment: experiment_lib.Experiment,
    root_dir: str,
    seed: Optional[int] = None,
    acting: Optional[crew.RemoteCrew] = None,
  ):
    """Builds agent and schedule.

    Args:
      experiment: what to run.
      root_dir: where the run leaves what it leaves, and goes on from.
      seed: of environments, initial weights and exploration. Replay's sampling cannot be seeded.
      acting: who acts; by default this process does.

    Raises:
      ValueError: for settings that do not fit together; one line that says which.
    """
    self._experiment = experiment
    self._root_dir = root_dir
    self._crew = acting or crew.LocalCrew(experiment, seed)
    self._environment = self._crew.environment
    self.updates = tf.Variable(0, dtype=tf.int64, trainable=False, name='updates')
    self.agent = experiment.agent(self._environment, self.updates)
    if not checkpoints.exists(root_dir):
      experiment.transfer(self.agent)
    self.replay_config = experiment.replay_config(self._environment)
    self.codec = experiment.codec(self.replay_config)
    self._encoding = encoding.Encoding(self.agent, self.codec, self.replay_config, experiment)
    self._schedule = experiment.schedule_fn()
    self._schedule.check(experiment.initial_random_agent_steps, experiment.total_agent_steps)
    self._schedule.check_layers(self._layers)
    checks.check_first_sample(experiment, self.replay_config)
    checks.check_draws(experiment, self.replay_config, self.agent)
    self._capacity = capacity_lib.Capacity()
    self._capacity.check(self.replay_config, experiment.batch_size)
    self._publication = publication.Publication(
      self.agent, self._crew.needs_weights, experiment.variables_period_seconds
    )
    self._fingerprint = ''
    self._learner = None
    self._learns = False
    self._needs_rows = False
    self._incarnation = 0  # of the server that was agreed with
    self._draining = 0  # as it was published last
    self._converted = 0  # rows, as far as a conversion of this process has come
    self._counted = 0  # agent steps that are in the ledger and in:
    self._due = 0  # updates that they all make necessary

  def run(self, server_address: str, client: reverb.Client, check_server) -> str:
    """Lives the whole run, or what is left of it, and returns the table that sums it up.

    Args:
      server_address: 'host:port' of a replay server with `replay_config`'s tables.
      client: connected to it.
      check_server: called between agent steps; raises once the server is gone for good.
    """
    self.link = link.Link(
      server_address, client, check_server, self._experiment, self.replay_config, self.codec
    )
    self._conversion = conversion.Conversion(
      self.link,
      self.replay_config,
      self._publish,
      self._publication.order_checkpoint,
      self._encoding,
      self._experiment.conversion_batch_size,
      self.keep_alive,
    )
    self._account = account.Account(
      self._root_dir, self._experiment.total_agent_steps, self._costs, self._crew.evaluates
    )
    self._ledger = self._account.ledger
    try:
      self._account.warn(self._capacity.warnings(self.replay_config, self.link.report()))
      self._crew.join(self)
      self._resume()
      self._live_on()
      return self._account.summary()
    except (KeyboardInterrupt, SystemExit):
      self._save_at_last()
      raise
    finally:
      self._account.close()
      self._crew.close()

  def _live_on(self):
    """Lives, and goes on when the server was away."""
    while True:
      try:
        with leaving.by_signal():
          self._live()
        return
      except subscription.SERVER_ERRORS as error:
        self._crew.abandon()
        self._learns = False
        if self._learner is not None:
          self._learner.stop_feeding()
        progress = (self._learned_agent_steps, int(self.updates), self._phase, self._converted)
        self.link.await_back(error, progress, self._account.say)

  def _live(self):
    self._agree()
    self._crew.begin(self._phase, self._is_new)
    if self._phase == freeze.Phase.PIXELS:
      self._begin_learning('pixels')
      self._advance(self._freeze_due)
      self._crew.rest()
      self._evaluate()
      self._measure()
      if not self._is_over:
        self._freeze()
    if self._phase == freeze.Phase.DRAINING:
      self._convert()
    if self._phase == freeze.Phase.LATENTS:
      self._begin_learning('latents', self._experiment.draws_per_block)
      self._advance(lambda agent_steps: False)
      self._crew.end()
      self._convert_stragglers()
      self._check_latents()
    self._learns = False
    self.agent.agent_steps.assign(self._crew.agent_steps)
    self._learner.save()
    if self._phase == freeze.Phase.LATENTS:
      self._evaluate()
      self._measure()
    self._publish(is_over=1)

  def _resume(self):
    """Goes on from the newest checkpoint, if there is one."""
    if not checkpoints.exists(self._root_dir):
      self._account.records.go_back_to(-1)  # of a life that was killed before its first
      return
    self._learner = self._made_learner()
    self.agent.freeze_again()
    self._learner.retrace()
    self._ledger.costs = self._costs
    self._account.records.go_back_to(self._crew.agent_steps)
    if self._fingerprint:
      self._encoding.check(self._fingerprint)
    self._account.say(
      f'going on from agent step {self._crew.agent_steps:,}, update {int(self.updates):,}, '
      f'phase {self._phase_name}'
    )

  def _agree(self):
    """Finds out what replay holds, whatever was killed and when, and what is to be done about it.

    Raises:
      ValueError: if it holds what this run has not made, or cannot know.
    """
    self.link.check_tables()
    said = self.link.said()
    self._publication.begin(said)
    if said.version >= 0 and not said.is_over:
      said = self._watched_for_another_learner()
    report = self.link.report()
    self._is_new = said.version < 0 and not report.rows and not report.checkpoints
    foreign = said.fingerprint and self._fingerprint and said.fingerprint != self._fingerprint
    # A conversion is published before it is saved, but a freeze is saved before it is published.
    is_ahead = said.phase > self._phase == freeze.Phase.PIXELS
    if is_ahead or foreign:
      raise ValueError(
        f'Replay server {self.link.address} is in phase {freeze.Phase(said.phase).name.lower()} '
        f'with latents {said.fingerprint[:12] or "(none)"}, the newest checkpoint of this learner '
        f'in phase {self._phase_name} with {self._fingerprint[:12] or "(none)"}: they are not of '
        'one run. Give the root_dir of that run, or start the server with another root_dir.'
      )
    # A server that came back in the middle does not know it; this process may have read it since.
    if said.draining or self._draining:
      self._account.say('the conversion was interrupted: replay goes back to before it')
      self._conversion.start_server_anew()
      said = self.link.said()
    if self._phase != freeze.Phase.PIXELS:
      converted = said.phase == freeze.Phase.LATENTS
      self._enter(freeze.Phase.LATENTS if converted else freeze.Phase.DRAINING)
    self._incarnation = self.link.report().incarnation
    self._publish()

  def _watched_for_another_learner(self) -> messages.Variables:
    """Gives way to one that publishes, which it does in that time if it lives and is not busy.

    Returns what the server has of a learner's words afterwards.
    """
    time.sleep(_PERIODS_OF_ANOTHER * self._experiment.variables_period_seconds)
    said = self.link.said()
    self._give_way(self._publication.is_anothers(said.version))
    return said

  def _give_way(self, to_another: bool):
    """Ends this learner where another one was there before."""
    if to_another:
      raise ValueError(
        f'Another learner publishes at replay server {self.link.address}: a server serves one run '
        'and its learner. Stop that one, or start a server for each.'
      )

  @property
  def _is_over(self) -> bool:
    return self._learned_agent_steps >= self._experiment.total_agent_steps

  @property
  def _owed(self) -> int:
    """Updates that agent steps were taken for and that are not made yet."""
    return self._due - int(self.updates)

  @property
  def _learned_agent_steps(self) -> int:
    """Agent steps that all updates were made for: actors elsewhere may be ahead of them."""
    updates = self._experiment.updates(self._phase == freeze.Phase.LATENTS)
    return self._counted - math.ceil(self._owed / updates)

  @property
  def _layers(self) -> Sequence[str]:
    """Names of the layers below the cut, first to last."""
    return [stage.name for stage in self.agent.lower.stages]

  @property
  def _costs(self) -> flops.Costs:
    return self.agent.costs(self._experiment.batch_size, self.replay_config.stored_crops)

  @property
  def _phase(self) -> freeze.Phase:
    return freeze.Phase(int(self.agent.phase))

  @property
  def _phase_name(self) -> str:
    return self._phase.name.lower()

  @property
  def _clocks(self) -> records.Clocks:
    return records.Clocks(self._crew.env_frames, self._learned_agent_steps, int(self.updates))

  def observers(self) -> Sequence[Callable]:
    """Who is to see the trajectories of the pixel phase, besides replay."""
    return list(self._schedule.watch(self.agent.activations, self._record_similarities))

  def age_in_updates(self, version: int) -> float:
    """Updates made since this version of the variables; NaN if that is not known any more."""
    return self._publication.age(version, int(self.updates))

  def _begin_learning(self, table: str, draws_per_window: int = 1):
    """Acts until something can be sampled from `table`, and has the learner do so."""
    first = self._experiment.initial_random_agent_steps
    self._learns, self._needs_rows = False, True
    self._advance(lambda _: self._crew.agent_steps >= first and self._crew.can_sample(table))
    self._needs_rows = False
    self._crew.learn(self._phase)
    if self._learner is None:
      self._learner = self._made_learner()
    waited = functools.partial(self._ledger.waited, table)
    self._learner.feed(self.link.dataset(table, draws_per_window, waited))
    self._learns = True

  def _advance(self, is_done: Callable[[int], bool]):
    """Acts, and learns once there is something to learn from, until `is_done` or the run's end."""
    experiment, ledger, acting = self._experiment, self._ledger, self._crew
    phase, from_latents = self._phase_name, self._phase == freeze.Phase.LATENTS
    updates = experiment.updates(from_latents)
    report_due = _Every(_REPORT_PERIOD, self._learned_agent_steps)
    evaluation_due = _Every(experiment.evaluation_period, self._learned_agent_steps)
    while not self._is_over:
      leaving.check()
      with ledger.timed(phase):  # a schedule may take its time to look at the encoder
        if is_done(self._learned_agent_steps):
          break
      self.agent.agent_steps.assign(acting.agent_steps)
      with ledger.timed(phase):
        acting.advance(wait=not (self._learns and self._owed))
        new = acting.agent_steps - self._counted
        first = max(self._counted, experiment.initial_random_agent_steps)
        self._counted = acting.agent_steps
        self._due += max(0, self._counted - first) * updates
        ledger.acted(phase, new, encoded=self._learns, stored=from_latents)
        if self._learns:
          stop = min(evaluation_due.next, experiment.total_agent_steps)
          left = (stop - self._learned_agent_steps) * updates
          count = min(self._owed, left, max(updates, _MOST_UPDATES))
          if count:
            with ledger.updates(phase, count, from_latents):
              self._learner.run(count)
      self.keep_alive(draining=0)
      if report_due(self._learned_agent_steps):
        self._report()
        if from_latents:
          self._convert_stragglers()
      if evaluation_due(self._learned_agent_steps):
        self._evaluate()

  def _freeze_due(self, agent_steps: int) -> bool:
    """Whether replay is to be converted; freezes layers that are due before that."""
    layers, frozen = self._layers, self.agent.encoder.frozen
    if frozen == len(layers) and not self._experiment.store_latents:
      return False
    due = min(self._schedule(agent_steps), len(layers))
    if self._experiment.store_latents and due == len(layers):
      return True
    if due > frozen:
      self.agent.freeze_layers(due)
      self._learner.retrace()
      self._ledger.costs = self._costs
      self._say_frozen(', '.join(layers[frozen:due]))
    return False

  def _say_frozen(self, what: str):
    self._account.say(
      f'freezing {what} at agent step {self._learned_agent_steps:,}: {self._schedule.reason}'
    )

  def _freeze(self):
    """Freezes the lower encoder; from here on a checkpoint says so."""
    with self._ledger.timed('draining'):
      self._learner.stop_feeding()
      calibrated = self._encoding.calibrate(self.link)
      fingerprint = self.agent.freeze()
      self._learner.retrace()
      self._fingerprint = freeze.of_latents(fingerprint, self.codec.digest)
      logging.info('Lower encoder frozen, fingerprint %s.', self._fingerprint[:12])
      self._say_frozen('the encoder')
    self._ledger.converted('draining', calibrated)
    with self._ledger.timed('draining'):
      self._learner.save_checkpoint()
      faults.reach('frozen')

  def _convert(self):
    """Turns the rows of pixels that replay holds into latents: see `conversion`."""
    with self._ledger.timed('draining'):
      self._publish()
      faults.reach('announced')
      self._crew.hand_over()
      # The server evicts no more pixels once it has seen the phase.
      self.link.next_report(lambda report: report.phase >= freeze.Phase.DRAINING)
      # Whatever a lost server or another run has left there; actors hold theirs back meanwhile.
      self.link.empty_latents()
      rows, latents = self._conversion.convert(
        self._crew.wanted_pixels, self._converting, self._crew.stream
      )
      faults.reach('drained')
      self._crew.take_over(latents)
      self._enter(freeze.Phase.LATENTS)
      self._publication.order_checkpoint()
      self._publish()
      faults.reach('latents published')
      self._check_latents()
    self._ledger.converted('draining', rows)
    with self._ledger.timed('draining'):
      self._learner.save_checkpoint()

  def _enter(self, phase: freeze.Phase):
    """From here on an agent step asks for the updates of this phase, also one not learned yet."""
    if phase != self._phase:
      steps = self._counted - self._learned_agent_steps
      self.agent.phase.assign(int(phase))
      updates = self._experiment.updates(phase == freeze.Phase.LATENTS)
      self._due = int(self.updates) + steps * updates

  def _convert_stragglers(self):
    """Converts rows of pixels that came after the conversion, of an actor that had hung."""
    if not self.link.client.server_info(link.TIMEOUT_SECONDS)['drain'].current_size:
      return
    with self._ledger.timed('draining'):
      rows, _ = self._conversion.convert(lambda report: None, self._converting)
      self._publication.order_checkpoint()
      self._publish()
    self._ledger.converted('draining', rows)

  def _check_latents(self):
    """Refuses latents in replay that are not this run's; a server that has lost all has none."""
    published = self.link.said().fingerprint
    if published:
      self._encoding.check(published)

  def _converting(self, done: int, total: int):
    faults.reach('batch')
    self._converted = max(self._converted, done)
    self._account.progress.converting(done, total)
    self.keep_alive(draining=1)

  def _made_learner(self) -> learner_lib.Learner:
    """A learner, which goes on from the newest checkpoint in root_dir, if there is one."""
    parts = dict(
      run=checkpoints.Part(self._state, self._restore),
      crew=self._crew,
      schedule=self._schedule,
      account=self._account,
      publication=self._publication,
      replay=self.link.replay,
    )
    self.agent.run_state = checkpoints.RunState(parts)
    return learner_lib.make(self._root_dir, self.updates, self.agent, self.link, self._experiment)

  def _state(self) -> Dict[str, np.ndarray]:
    """What a checkpoint holds of this run besides weights and parts."""
    return {
      'fingerprint': np.asarray(self._fingerprint),
      'codec': np.frombuffer(self.codec.state, np.uint8),
      'counted': np.asarray([self._counted, self._due], np.int64),
    }

  def _restore(self, state: Mapping[str, np.ndarray]):
    self._fingerprint = str(state['fingerprint'])
    if state['codec'].size:
      self.codec.restore(state['codec'].tobytes())
    self._counted, self._due = (int(count) for count in state['counted'])

  def _save_at_last(self):
    """Saves what there is when the process is told to leave, unless it is just freezing."""
    if self._learner is None or (self._phase == freeze.Phase.PIXELS) != (not self._fingerprint):
      return
    self._learner.save_checkpoint()
    if self._learns:
      try:
        self._crew.end()
      except subscription.SERVER_ERRORS as error:
        logging.warning('The last rows may be lost: %s', error)

  def _publish(self, draining: int = 0, **further):
    """Tells whoever reads table `variables` where the run stands."""
    limit = self._experiment.actors_ahead_agent_steps
    ahead = self._crew.agent_steps - self._learned_agent_steps
    self._draining = draining
    self._publication.publish(
      self.link.client,
      link.TIMEOUT_SECONDS,
      draining=draining,
      fingerprint=self._fingerprint,
      codec=self.codec.state,
      may_act=int(ahead <= limit or self._needs_rows or self._phase == freeze.Phase.DRAINING),
      flops=float(self._ledger.flops),
      seconds=self._ledger.seconds,
      **self._clocks._asdict(),
      **further,
    )

  def _record_similarities(self, agent_steps: int, values: Mapping[str, float]):
    self._account.records.by_agent_steps('Similarity', agent_steps, values)

  def _measure(self):
    """Notes how this phase's replay stands at its end."""
    self._account.measured(self._phase_name, self.link.next_report())

  def _evaluate(self):
    """Evaluates the greedy policy, unless that was done at this very agent step."""
    clocks = self._clocks
    if self._account.has_evaluated(clocks.agent_steps):
      return
    returns = self._crew.evaluate()
    if returns:
      self._account.evaluated(clocks, self._phase_name, returns, self.link.report())

  def keep_alive(self, draining: int, **further):
    """Publishes if that is due: actors act on, as long as they hear of the learner."""
    if self._publication.is_due:
      if not further:  # or the server may just be starting anew
        report = self.link.report()
        self._give_way(self._publication.gives_way(report.version, report.learner))
      self._publish(draining, **further)

  def _report(self):
    """Refreshes progress bar and TensorBoard, and looks after the server."""
    self.link.check()
    acted = self._crew.agent_steps
    figures = {
      'Costs': dict(
        frozen_layers=self.agent.encoder.frozen,
        samples_per_agent_step=int(self.updates) * self._experiment.batch_size / max(1, acted),
        agent_steps_ahead=acted - self._learned_agent_steps,
      ),
      'Actors': self._crew.figures(),
    }
    report = self.link.report()
    if report.incarnation != self._incarnation:
      raise TimeoutError(f'Replay server {self.link.address} has started anew.')
    self._give_way(self._publication.gives_way(report.version, report.learner))
    self._account.report(self._clocks, self._phase_name, report, self._crew.last_return, figures)
