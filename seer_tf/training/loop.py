"""The life of a run in one process: pixels, the switch, latents.

pixels     act, write pixels, learn from sampled pixels; layers may freeze one after another
draining   freeze the lower encoder; every pixel row in replay becomes a latent row, once
latents    act and encode, write latents, learn from sampled latents
"""

import functools
import math
import os
from typing import Callable, Dict, List, Mapping, Optional, Sequence

from absl import logging
import numpy as np
import reverb
import tensorflow as tf
from tf_agents.policies import py_tf_eager_policy, random_py_policy
from tf_agents.train import learner as tf_agents_learner
from tf_agents.train import triggers

from seer_tf.costs import flops
from seer_tf.costs import ledger as ledger_lib
from seer_tf.freezing import freeze
from seer_tf.replay import capacity as capacity_lib
from seer_tf.replay import datasets, drain, messages, priorities, tables, writers
from seer_tf.replay import server as replay_server
from seer_tf.training import collector as collector_lib
from seer_tf.training import evaluation, records
from seer_tf.training import experiment as experiment_lib
from seer_tf.training import learner as learner_lib

# Agent steps between two looks at the server, the progress bar's figures and TensorBoard's.
_REPORT_PERIOD = 20
# Limit of a single wait for the replay server.
_TIMEOUT_SECONDS = 30


class Run:
  """One training run against one replay server.

  Building it checks everything that can be checked before the first agent step. `run` lives it.
  """

  def __init__(
    self,
    experiment: experiment_lib.Experiment,
    root_dir: str,
    seed: Optional[int] = None,
  ):
    """Builds environments, agent and schedule.

    Args:
      experiment: what to run.
      root_dir: where the run leaves what it leaves.
      seed: of environments, initial weights and exploration. Replay's sampling cannot be seeded.

    Raises:
      ValueError: for settings that do not fit together; one line that says which.
    """
    self._experiment = experiment
    self._root_dir = root_dir
    seeds = (None, None) if seed is None else (seed, seed + 1)
    self._environment = experiment.environment_fn(seed=seeds[0])
    evaluation_environment_fn = experiment.evaluation_environment_fn or experiment.environment_fn
    self._evaluation_environment = evaluation_environment_fn(seed=seeds[1])
    self._updates = tf.Variable(0, dtype=tf.int64, trainable=False, name='updates')
    self.agent = experiment.agent(self._environment, self._updates)
    self.replay_config = experiment.replay_config(self._environment)
    self._codec = experiment.codec(self.replay_config)
    self._schedule = experiment.schedule_fn()
    self._schedule.check(experiment.initial_random_agent_steps, experiment.total_agent_steps)
    self._schedule.check_layers(self._layers)
    self._check_first_sample()
    self._check_draws()
    self._capacity = capacity_lib.Capacity()
    self._capacity.check(self.replay_config, experiment.batch_size)
    self._ledger = ledger_lib.Ledger(self._costs)
    self._reports: Dict[str, replay_server.Report] = {}  # at the end of a phase
    self._warnings: List[str] = []
    self._fingerprint = ''
    self._learner = None
    self._random_policy = random_py_policy.RandomPyPolicy(
      self._environment.time_step_spec(), self._environment.action_spec(), seed=seed
    )

  def _check_first_sample(self):
    """Refuses a run that would wait for a transition that replay cannot hold yet, or ever."""
    config, needed = self.replay_config, self.replay_config.rows_to_sample
    rows = {
      'Experiment.initial_random_agent_steps': self._experiment.initial_random_agent_steps,
      'ReplayConfig.pixels_capacity': config.pixels_capacity,
      'ReplayConfig.latents_capacity': config.latents_capacity,
    }
    for name, count in rows.items():
      if count < needed:
        raise ValueError(
          f'{name} is {count}, but before the first update replay must hold {needed} rows: a block '
          f'and the ReplayConfig.n_step = {config.n_step} agent steps behind it. Give at least '
          f'{needed}, or a smaller ReplayConfig.n_step, block_length or pixels_block_length.'
        )

  def _check_draws(self):
    """Refuses what no batch could be drawn or ranked by."""
    draws, config = self._experiment.draws_per_block, self.replay_config
    if config.prioritised and not self.agent.has_td_errors:
      raise ValueError(
        f'ReplayConfig.priority_exponent is {config.priority_exponent}, but '
        f'{type(self.agent).__name__} has no TD error of each transition to make priorities of: '
        'bind 0 for uniform replay, or Experiment.agent_fn = @SeerDqnAgent.'
      )
    if draws > config.block_length:
      raise ValueError(
        f'Experiment.draws_per_block is {draws}, but an item of latents owns '
        f'ReplayConfig.block_length = {config.block_length} rows: give no more than that.'
      )

  def run(self, server_address: str, client: reverb.Client, check_server) -> str:
    """Lives the whole run and returns the table that sums it up.

    Args:
      server_address: 'host:port' of a replay server with `replay_config`'s tables.
      client: connected to it.
      check_server: called between agent steps; raises once the server is gone.
    """
    self._client = client
    self._server_address = server_address
    self._check_server = check_server
    learning = self._experiment.total_agent_steps - self._experiment.initial_random_agent_steps
    total_updates = learning * self._experiment.updates_per_agent_step
    self._replay = priorities.of_replay(client, self.replay_config, total_updates, _TIMEOUT_SECONDS)
    self._records = records.Records(self._root_dir)
    self._progress = records.Progress(self._experiment.total_agent_steps)
    try:
      self._warn(self._capacity.warnings(self.replay_config, replay_server.report(client)))
      self._live()
      return records.summary_table(
        self._records.evaluations, self._ledger, self._reports, self._warnings
      )
    except (OSError, tf.errors.OpError):
      self._check_server()  # A server that has died explains any other error.
      raise
    finally:
      self._progress.close()
      self._records.close()
      self._environment.close()
      self._evaluation_environment.close()

  def _live(self):
    experiment, agent, config = self._experiment, self.agent, self.replay_config
    self._evaluator = evaluation.Evaluator(
      self._evaluation_environment, agent.policy, self._updates, experiment.evaluation_episodes
    )
    self._collector = collector_lib.Collector(self._environment)
    self._publish()

    pixels = self._writer(config.pixels_layouts, config.pixels_row)
    write_pixels = lambda trajectory: pixels.append(
      writers.pixels_row(trajectory, config.frame_shape[-1])
    )
    observers = [write_pixels, *self._schedule.watch(agent.activations, self._record_similarities)]
    self._collector.act_with(self._random_policy, observers)
    self._advance(lambda agent_steps: agent_steps >= experiment.initial_random_agent_steps)
    pixels.flush()

    self._learner = self._make_learner()
    self._collector.act_with(_eager(agent.collect_policy), observers)
    self._advance(self._freeze_due)
    pixels.close()
    self._evaluate()
    self._measure()
    if self._is_over:
      self._learner.save()
      return

    latents = self._writer(config.latents_layouts, config.latents_row)
    self._switch(pixels.rows, latents)
    write_latents = lambda trajectory: latents.append(
      writers.latents_row(trajectory, self._codec.encode)
    )
    self._collector.act_with(_eager(agent.storing_policy(config.stored_crops)), [write_latents])
    self._advance(lambda agent_steps: False)
    latents.close()
    self._check_latents()
    self._learner.save()
    self._evaluate()
    self._measure()
    row_bytes = (self._reports[phase].bytes_per_row for phase in ('pixels', 'latents'))
    self._warn(capacity_lib.without_gain(*row_bytes, measured=True))

  @property
  def _is_over(self) -> bool:
    return self._collector.agent_steps >= self._experiment.total_agent_steps

  @property
  def _layers(self) -> Sequence[str]:
    """Names of the layers below the cut, first to last."""
    return [stage.name for stage in self.agent.lower.stages]

  @property
  def _costs(self) -> flops.Costs:
    return self.agent.costs(self._experiment.batch_size, self.replay_config.stored_crops)

  @property
  def _phase(self) -> str:
    return freeze.Phase(int(self.agent.phase)).name.lower()

  @property
  def _clocks(self) -> records.Clocks:
    collector = self._collector
    return records.Clocks(collector.env_frames, collector.agent_steps, int(self._updates))

  def _advance(self, is_done: Callable[[int], bool]):
    """Acts, and learns once there is a learner, until `is_done(agent_steps)` or the run's end."""
    experiment, ledger, collector = self._experiment, self._ledger, self._collector
    phase, from_latents = self._phase, int(self.agent.phase) == freeze.Phase.LATENTS
    updates = experiment.updates(from_latents)
    while not self._is_over:
      with ledger.timed(phase):  # a schedule may take its time to look at the encoder
        if is_done(collector.agent_steps):
          break
      self.agent.agent_steps.assign(collector.agent_steps)
      with ledger.timed(phase):
        collector.run()
        ledger.acted(phase, encoded=self._learner is not None, stored=from_latents)
        if self._learner is not None:
          with ledger.updates(phase, updates, from_latents):
            self._learner.run(updates)
      if collector.agent_steps % _REPORT_PERIOD == 0:
        self._report()
      if collector.agent_steps % experiment.evaluation_period == 0:
        self._evaluate()

  def _freeze_due(self, agent_steps: int) -> bool:
    """Whether replay is to be converted; freezes layers that are due before that."""
    layers, frozen = self._layers, self.agent.encoder.frozen
    if frozen == len(layers):
      return False  # and none is ever to be stored
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
    self._progress.say(
      f'freezing {what} at agent step {self._collector.agent_steps:,}: {self._schedule.reason}'
    )

  def _switch(self, written: int, latents: writers.RowWriter):
    """Freezes the lower encoder and turns the rows of pixels that replay holds into latents.

    Args:
      written: rows of pixels in all.
      latents: takes those that are held, and goes on with the rows that follow.
    """
    with self._ledger.timed('draining'):
      self._learner.stop_feeding()
      fingerprint = self.agent.freeze()
      calibrated = self._calibrate()
      self._fingerprint = freeze.of_latents(fingerprint, self._codec.digest)
      self._publish()
      logging.info('Lower encoder frozen, fingerprint %s.', self._fingerprint[:12])
      self._say_frozen('the encoder')
      # The server evicts no more pixels once it has seen the phase.
      seen = self._next_report(lambda report: report.phase == self.agent.phase)
      rows = drain.drain(
        self._client,
        self.replay_config,
        range(seen.pixels_first_row, written),
        lambda pixels: self._codec.encode(self._encode_crops(pixels)),
        latents,
        self._experiment.conversion_batch_size,
        self._progress.converting,
      )
      latents.flush()
    self._ledger.converted('draining', rows + calibrated)
    self.agent.phase.assign(int(freeze.Phase.LATENTS))
    self._publish()
    self._check_latents()
    self._learner.feed(self._dataset('latents', self._experiment.draws_per_block))

  def _check_latents(self):
    published = messages.read(self._client, _TIMEOUT_SECONDS).fingerprint
    freeze.check_latents(published, self.agent.lower, self._codec.digest)

  def _encode_crops(self, pixels) -> np.ndarray:
    return self.agent.encode_crops(pixels, self.replay_config.stored_crops).numpy()

  def _calibrate(self) -> int:
    """Fits the codec to latents of sampled observations; returns the observations encoded."""
    if not self._codec.needs_calibration:
      return 0
    batch_size, crops = self._experiment.batch_size, self.replay_config.stored_crops
    batches = math.ceil(self._experiment.calibration_latents / (batch_size * crops))
    sampled = self._dataset('pixels').take(batches)
    latents = [self._encode_crops(batch.time_step.observation) for batch, _ in sampled]
    self._codec.calibrate(np.concatenate(latents))
    return batches * batch_size

  def _make_learner(self) -> learner_lib.Learner:
    saved_model_dir = os.path.join(self._root_dir, tf_agents_learner.POLICY_SAVED_MODEL_DIR)
    period = self._experiment.checkpoint_period
    return learner_lib.Learner(
      self._root_dir,
      self._updates,
      self.agent,
      replay=self._replay,
      experience_dataset_fn=lambda: self._dataset('pixels'),
      triggers=[
        triggers.PolicySavedModelTrigger(
          saved_model_dir, self.agent, self._updates, interval=period, save_collect_policy=False
        )
      ],
      checkpoint_interval=period,
      summary_interval=self._experiment.summary_period,
    )

  def _dataset(self, table: str, draws_per_window: int = 1) -> tf.data.Dataset:
    return datasets.make_dataset(
      self._server_address,
      table,
      self.replay_config,
      self._experiment.batch_size,
      self._experiment.gamma,
      timeout_seconds=_TIMEOUT_SECONDS,
      draws_per_window=draws_per_window,
      decode=self._codec.decode,
      waited=functools.partial(self._ledger.waited, table),
    )

  def _writer(self, layouts, row_spec) -> writers.RowWriter:
    return writers.RowWriter(
      self._client,
      layouts,
      tables.padding_row(row_spec),
      timeout_seconds=_TIMEOUT_SECONDS,
      check_server=self._check_server,
      priority_of=self._replay.of,
    )

  def _publish(self):
    """Tells whoever reads table `variables` where the run stands."""
    variables = messages.Variables(
      phase=int(self.agent.phase),
      fingerprint=self._fingerprint,
      codec=self._codec.state,
      **self._clocks._asdict(),
    )
    messages.publish(self._client, variables, _TIMEOUT_SECONDS)

  def _record_similarities(self, agent_steps: int, values: Mapping[str, float]):
    self._records.by_agent_steps('Similarity', agent_steps, values)

  def _next_report(self, holds=lambda report: True) -> replay_server.Report:
    return replay_server.next_report(self._client, _TIMEOUT_SECONDS, holds)

  def _measure(self):
    """Notes how this phase's replay stands at its end."""
    self._reports[self._phase] = self._next_report()

  def _warn(self, lines: Sequence[str]):
    """Prints warnings, and keeps them for the last table."""
    self._warnings += lines
    for line in lines:
      self._progress.say(line)

  def _evaluate(self):
    """Evaluates the greedy policy, unless that was done at this very agent step."""
    clocks = self._clocks
    evaluations = self._records.evaluations
    if evaluations and evaluations[-1].agent_steps == clocks.agent_steps:
      return
    returns = self._evaluator()
    report = replay_server.report(self._client)
    self._records.evaluated(clocks, self._phase, returns, self._ledger, report)

  def _report(self):
    """Refreshes progress bar and TensorBoard, and looks after the server."""
    self._check_server()
    clocks, phase, report = self._clocks, self._phase, replay_server.report(self._client)
    figures = self._ledger.phase(phase)
    updates_per_second = figures['updates'] / max(figures['seconds'], 1e-9)
    self._progress.show(
      phase,
      clocks.agent_steps,
      **{
        'return': f'{self._collector.last_return:.1f}',
        'updates/s': f'{updates_per_second:.1f}',
        'replay': f'{report.used_bytes / 1e6:.0f}MB',
      },
    )
    costs = dict(
      flops=self._ledger.flops,
      seconds=self._ledger.seconds,
      replay_bytes=report.resident_bytes - report.empty_bytes,
      updates_per_second=updates_per_second,
      ms_per_update=figures['ms_per_update'],
      waiting_percent=figures['waiting_percent'],
      collected_return=self._collector.last_return,
      frozen_layers=self.agent.encoder.frozen,
    )
    self._records.by_agent_steps('Costs', clocks.agent_steps, costs)
    replay = dict(
      budget_bytes=report.budget_bytes,
      used_bytes=report.used_bytes,
      steps_held=report.rows,
      bytes_per_step=report.bytes_per_row,
    )
    self._records.by_agent_steps('Replay', clocks.agent_steps, replay)


def _eager(policy) -> py_tf_eager_policy.PyTFEagerPolicy:
  return py_tf_eager_policy.PyTFEagerPolicy(policy, use_tf_function=True)
