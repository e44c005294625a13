"""Who acts for a learner: its own process, one agent step at a time, or actors elsewhere.

Both crews answer to the same calls, so that the life of a run (`loop`) is written once:

    join      before the first agent step
    begin     in a phase, also when the run goes on from a checkpoint or its server has come back
    advance   some agent steps
    rest      the phase of pixels is over here: all rows are acknowledged
    hand_over who acts has been told, and has delivered its pixels
    take_over the drain is done: what it has written of the `stream` acted in is gone on with
    abandon   the server is lost, and so is what it has not acknowledged
    end       the run is over

Rows come in streams (`tables.first_number`). A stream belongs to one environment from one start on,
so that what goes on after an interruption is a stream of its own, whose number is drawn; but for an
actor's whose newest rows had not been sent.
"""

import secrets
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from absl import logging
import numpy as np
from tf_agents.policies import py_tf_eager_policy, random_py_policy

from seer_tf.freezing import freeze
from seer_tf.replay import messages, server, tables, writers
from seer_tf.training import collector as collector_lib
from seer_tf.training import evaluation

# Actors that have not been heard of for so long are taken for gone.
# Longer than they themselves try to deliver something.
_SILENT_SECONDS = 45.0
_POLL_SECONDS = 0.02
# Without any agent step to learn from, until the learner says so.
_IDLE_SECONDS = 30.0


def new_stream() -> int:
  """A stream that no other process or start has, but for a chance of one in 2**31."""
  return 1 + secrets.randbelow(2**31 - 1)


class LocalCrew:
  """Acts in this process, between the learner's updates.

  Attributes:
    environment: that is acted in.
    agent_steps: clock, that of earlier starts of this run included.
    needs_weights: whether weights must be published for it.
    evaluates: whether it evaluates.
  """

  needs_weights = False
  evaluates = True

  def __init__(self, experiment, seed: Optional[int] = None):
    """Builds the environments.

    Args:
      experiment: what to run.
      seed: of environments and of random actions.
    """
    seeds = (None, None) if seed is None else (seed, seed + 1)
    self._seed = seed
    self._episodes = experiment.evaluation_episodes
    self._random_agent_steps = experiment.initial_random_agent_steps
    self.environment = experiment.environment_fn(seed=seeds[0])
    evaluation_environment_fn = experiment.evaluation_environment_fn or experiment.environment_fn
    self._evaluation_environment = evaluation_environment_fn(seed=seeds[1])
    self._before = (0, 0)  # clocks of earlier starts: agent_steps, env_frames
    self._collector = None
    self._writer = None

  def join(self, run):
    """Resets the environment.

    Args:
      run: the `loop.Run` to act for.
    """
    self._run = run
    self._observers = run.observers()
    self._evaluator = evaluation.Evaluator(
      self._evaluation_environment, run.agent.policy, run.updates, self._episodes
    )
    self._collector = collector_lib.Collector(self.environment)

  @property
  def agent_steps(self) -> int:
    """Clock, that of earlier starts of this run included."""
    return self._before[0] + (self._collector.agent_steps if self._collector else 0)

  @property
  def env_frames(self) -> int:
    """Clock, that of earlier starts of this run included."""
    return self._before[1] + (self._collector.env_frames if self._collector else 0)

  @property
  def last_return(self) -> float:
    """Undiscounted return of the newest finished episode; NaN before the first."""
    return self._collector.last_return

  def begin(self, phase: freeze.Phase, is_new: bool):
    """Opens a stream of its own in this phase; at first at random, if it is the beginning.

    Args:
      phase: of the run.
      is_new: whether replay is empty, so that the stream can be number 0.
    """
    stream = 0 if is_new else new_stream()
    self._is_only_stream = is_new
    if phase == freeze.Phase.PIXELS:
      config = self._run.replay_config
      self._writer = self._run.link.writer('pixels', tables.first_number(stream))
      write = lambda trajectory: self._writer.append(
        writers.pixels_row(trajectory, config.frame_shape[-1])
      )
      self._write_pixels = [write, *self._observers]
      random = random_py_policy.RandomPyPolicy(
        self.environment.time_step_spec(), self.environment.action_spec(), seed=self._seed
      )
      is_first = self.agent_steps < self._random_agent_steps
      policy = random if is_first else eager(self._run.agent.collect_policy)
      self._collector.act_with(policy, self._write_pixels)
    elif phase == freeze.Phase.LATENTS:
      self._act_on_latents(self._run.link.writer('latents', tables.first_number(stream)))

  def abandon(self):
    """Gives up the stream and its episode: what is not acknowledged must not come later."""
    if self._writer is not None:
      self._writer.abandon()
      self._writer = None
    # An error in the middle of an agent step leaves the collector a step behind its environment.
    self._before = (self.agent_steps, self._before[1])
    self._collector = collector_lib.Collector(self.environment)

  @property
  def stream(self) -> Optional[int]:
    """The stream that is acted in, if it is known to replay."""
    return None if self._writer is None else tables.stream_of(self._writer.next_number)

  def can_sample(self, table: str) -> bool:
    """Whether `table` has, or will have after `learn`, something to sample."""
    return self._writer.rows >= self._run.replay_config.rows_to_sample

  def learn(self, phase: freeze.Phase):
    """The learner begins: acts with the agent's policy, and what was written can be sampled."""
    self._writer.flush()
    if phase == freeze.Phase.PIXELS:
      self._collector.act_with(eager(self._run.agent.collect_policy), self._write_pixels)

  def advance(self, wait: bool):
    """Takes an agent step, whether there is time to `wait` or not."""
    del wait
    self._collector.run()

  def rest(self):
    """Closes the stream of pixels, or goes on without one that the server has lost."""
    if self._writer is not None:
      self._writer.close()

  def hand_over(self):
    """Nothing is left to be done: there is one stream that is written, and it rests."""

  def wanted_pixels(self, report: server.Report) -> Optional[range]:
    """Rows that the conversion takes: those that `pixels` holds; None where others wrote, too."""
    if not self._is_only_stream:
      return None
    return range(report.pixels_first_row, self._writer.next_number)

  def take_over(self, latents: Optional[writers.RowWriter]):
    """Goes on, in the running episode, with the very writer that the drain has filled.

    Args:
      latents: of `stream`; None if there is none.
    """
    following = None if self._writer is None else self._writer.next_number
    if latents is not None and latents.next_number != following:
      latents.close()  # its last rows have come out of order
      latents = None
    if latents is None:
      first = tables.first_number(new_stream()) if following is None else following
      latents = self._run.link.writer('latents', first)
    self._act_on_latents(latents)

  def _act_on_latents(self, writer: writers.RowWriter):
    self._writer = writer
    policy = self._run.agent.storing_policy(self._run.replay_config.stored_crops)
    write = lambda trajectory: self._writer.append(
      writers.latents_row(trajectory, self._run.codec.encode)
    )
    self._collector.act_with(eager(policy), [write])

  def evaluate(self) -> List[float]:
    """Returns of new episodes with the greedy policy."""
    return self._evaluator()

  def figures(self) -> Dict[str, float]:
    """What TensorBoard shows of it besides what all crews have: nothing."""
    return {}

  def end(self):
    """Every row is acknowledged when it returns."""
    if self._writer is not None:
      self._writer.close()

  def close(self):
    """Closes the environments."""
    self.environment.close()
    self._evaluation_environment.close()

  def state(self) -> Dict[str, np.ndarray]:
    """The clocks."""
    return {'clocks': np.asarray([self.agent_steps, self.env_frames], np.int64)}

  def restore(self, state: Mapping[str, np.ndarray]):
    """Goes on from what `state` returned, with clocks of an environment that has not begun."""
    self._before = tuple(int(clock) for clock in state['clocks'])


class _Pixels(NamedTuple):
  """A sampled observation, for observers of trajectories."""

  observation: np.ndarray

  def is_boundary(self) -> bool:
    """Whether nothing was acted on here."""
    return False


class RemoteCrew:
  """Hears of actors in other processes, which come and go.

  Attributes:
    environment: for its specs only.
    needs_weights: whether weights must be published for it.
    evaluates: whether it evaluates; an evaluator of its own does.
  """

  needs_weights = True
  evaluates = False

  def __init__(self, experiment):
    """Has heard of nobody yet."""
    self.environment = experiment.environment_fn(seed=None)
    self._ahead_limit = experiment.actors_ahead_agent_steps
    self._period = experiment.variables_period_seconds
    self._limit = experiment.variables_limit_seconds
    # Stream -> (agent_steps, env_frames); all there ever were.
    self._clocks: Dict[int, Any] = {}
    # Stream -> (what it said last, when), of those that have not left.
    self._heard: Dict[int, Any] = {}
    self.last_return = float('nan')
    self._acted = 0.0  # when actors were last heard to have acted, or there was other work

  def join(self, run):
    """Takes the `loop.Run` that they act for."""
    self._run = run
    self._observers = run.observers()

  @property
  def agent_steps(self) -> int:
    """Clock of all streams, as far as they have said."""
    return sum(steps for steps, _ in self._clocks.values())

  @property
  def env_frames(self) -> int:
    """Clock of all streams, as far as they have said."""
    return sum(frames for _, frames in self._clocks.values())

  def begin(self, phase: freeze.Phase, is_new: bool):
    """Actors open their streams by what is published."""
    self._acted = time.monotonic()

  def can_sample(self, table: str) -> bool:
    """Whether `table` has something to sample: actors flush until the learner has begun."""
    config = self._run.replay_config
    layout = config.pixels_layout if table == 'pixels' else config.latents_layout
    items = self._run.link.client.server_info(timeout=20)[table].current_size
    return items * layout.block_length >= config.rows_to_sample

  def learn(self, phase: freeze.Phase):
    """Shows observations of theirs to whoever would have seen them acting."""
    if phase != freeze.Phase.PIXELS or all(observe.is_full for observe in self._observers):
      return
    for batch, _ in self._run.link.dataset('pixels'):
      for observation in map(_Pixels, batch.time_step.observation.numpy()):
        for observe in self._observers:
          observe(observation)
      if all(observe.is_full for observe in self._observers):
        break

  def advance(self, wait: bool):
    """Hears what actors have done since the last call; waits a moment for news if it may."""
    before = self.agent_steps
    self._listen()
    now = time.monotonic()
    if not wait or self.agent_steps != before:
      self._acted = now
      return
    if now - self._acted > _IDLE_SECONDS:
      self._acted = now
      logging.error(
        'No actor has acted for %g s (%d are there). Start one: python -m launch.actor '
        '--replay_server=%s --task=0 --gin_file=...',
        _IDLE_SECONDS,
        len(self._heard),
        self._run.link.address,
      )
    time.sleep(_POLL_SECONDS)  # Reverb has no call that waits for a message without a limit.

  def _listen(self):
    now = time.monotonic()
    for status in messages.receive(self._run.link.client):
      if status.stream not in self._clocks:
        logging.info('Actor with stream %d has come.', status.stream)
      steps, frames = self._clocks.get(status.stream, (0, 0))
      self._clocks[status.stream] = (
        max(steps, status.agent_steps),
        max(frames, status.env_frames),
      )
      self._heard[status.stream] = (status, now)
      if np.isfinite(status.last_return):
        self.last_return = status.last_return
    self._heard = {
      stream: (status, heard)
      for stream, (status, heard) in self._heard.items()
      if not status.is_leaving and now - heard < _SILENT_SECONDS
    }

  def rest(self):
    """They go on acting until `hand_over`, and beyond."""

  def abandon(self):
    """Actors notice for themselves."""

  stream = None  # none of theirs is gone on with here

  def hand_over(self):
    """Waits until every actor has said that it writes no more pixels, or is gone, with a limit.

    Should one write more pixels all the same, these wait in the drain table, and are converted when
    the learner next looks there.
    """
    start = time.monotonic()
    while True:
      self._listen()
      waiting = [status for status, _ in self._heard.values() if status.phase == 0]
      waited = time.monotonic() - start
      # Whoever is there says so once a period; a learner that has just begun knows of nobody.
      if not waiting and waited > 2 * self._period:
        return
      if waited > self._limit:
        logging.warning('%d actors still write pixels; these are converted later.', len(waiting))
        return
      self._run.keep_alive(0)
      time.sleep(_POLL_SECONDS)

  def wanted_pixels(self, report: server.Report) -> None:
    """Rows that the conversion takes: all."""

  def take_over(self, latents: Optional[writers.RowWriter]):
    """Nothing is left to be done: actors have writers of their own."""

  def evaluate(self) -> List[float]:
    """None: an evaluator does that."""
    return []

  def figures(self) -> Dict[str, float]:
    """How many actors there are, and how old the weights are that they act with."""
    ages = [self._run.age_in_updates(status.version) for status, _ in self._heard.values()]
    return dict(
      actors=len(self._heard),
      mean_updates_behind=float(np.mean(ages)) if ages else float('nan'),
      most_updates_behind=max(ages, default=float('nan')),
    )

  def end(self):
    """They leave when they read that the run is over."""

  def close(self):
    """Closes the environment."""
    self.environment.close()

  def state(self) -> Dict[str, np.ndarray]:
    """The clocks of each stream."""
    rows = [(stream, *clocks) for stream, clocks in self._clocks.items()]
    return {'streams': np.asarray(rows, np.int64).reshape(-1, 3)}

  def restore(self, state: Mapping[str, np.ndarray]):
    """Goes on from what `state` returned."""
    self._clocks = {int(row[0]): (int(row[1]), int(row[2])) for row in state['streams']}


def eager(policy) -> py_tf_eager_policy.PyTFEagerPolicy:
  """A policy of TensorFlow's for environments of Python's, in a graph."""
  return py_tf_eager_policy.PyTFEagerPolicy(policy, use_tf_function=True)
