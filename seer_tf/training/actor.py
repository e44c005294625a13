"""An actor in a process of its own: it acts with the newest published weights and writes rows.

It follows the learner's phase: as soon as it reads that the encoder is frozen it closes its stream
of pixels, every row of which is then acknowledged, and goes on with latents. So a row of pixels is
never written by someone who knows better, and acting stops for no longer than that. Latents of what
it does during the conversion are held here until that is over, and come behind all converted rows:
tables that are full evict in the order in which rows came. A server that is lost meanwhile takes
none of them with it: no server has seen them yet.
"""

import collections
import contextlib
import time
from typing import Optional

import reverb
import tensorflow as tf
from tf_agents.policies import random_py_policy

from seer_tf.freezing import freeze
from seer_tf.replay import messages, tables, writers
from seer_tf.replay import server as replay_server
from seer_tf.training import checks, crew, leaving, subscription
from seer_tf.training import collector as collector_lib
from seer_tf.training import experiment as experiment_lib

_TIMEOUT_SECONDS = 10
# A pause between two looks whether there is reason to go on.
_PAUSE_SECONDS = 0.1
# Rows of latents that an actor keeps while replay is being converted: some 100 MB.
_MOST_HELD = 100_000


class Actor:
  """Acts in one environment until the run is over, whatever becomes of server and learner."""

  def __init__(self, experiment: experiment_lib.Experiment, seed: Optional[int] = None):
    """Builds environment and agent.

    Args:
      experiment: what to run.
      seed: of the environment and of random actions; another one for each actor.

    Raises:
      ValueError: for settings that do not fit together; one line that says which.
    """
    self._experiment = experiment
    self.environment = experiment.environment_fn(seed=seed)
    updates = tf.Variable(0, dtype=tf.int64, trainable=False, name='updates')
    self.agent = experiment.agent(self.environment, updates)
    self.replay_config = experiment.replay_config(self.environment)
    checks.check_streams(self.replay_config)
    self._policies = dict(
      random=random_py_policy.RandomPyPolicy(
        self.environment.time_step_spec(), self.environment.action_spec(), seed=seed
      ),
      collecting=crew.eager(self.agent.collect_policy),
      storing=crew.eager(self.agent.storing_policy(self.replay_config.stored_crops)),
    )
    self._acted = self._acted_at_news = 0  # agent steps
    self._writer = None
    self._held = collections.deque()  # rows that were not sent: of latents, during a conversion
    self._made_by = ''  # their fingerprint
    # While the server is lost: number of the first of them, and what the learner said last.
    self._following, self._newest = 0, -1

  def run(self, client: reverb.Client):
    """Acts until the learner says that the run is over.

    Args:
      client: of the replay server.

    Raises:
      TimeoutError: if the server stays away.
      ValueError: if the learner does, or is configured otherwise.
    """
    self._client = client
    trouble = subscription.Trouble(client, self._experiment.reconnect_seconds)
    try:
      while True:
        try:
          with leaving.by_signal():
            self._live()
          return
        except subscription.SERVER_ERRORS as error:
          self._abandon()
          trouble.wait(error, progress=self._acted)
    finally:
      self.environment.close()

  def leave(self):
    """Delivers what was not delivered yet, and says good-bye; for a process that is told to end.

    But not what it did during a conversion that still goes on: nobody else knows of that yet. Nor
    what is left of a delivery that the signal has cut short, or while the server is away.
    """
    with contextlib.suppress(*subscription.SERVER_ERRORS):
      if self._writer is not None:
        if self._writer.is_whole:
          self._deliver()
        self._writer.close()
        self._say(is_leaving=1)

  def _live(self):
    """Acts in a stream of its own until the run is over or the server is lost.

    What was heard of a learner before is forgotten: this may be another run's server by now. A
    stream whose newest rows are still held here is gone on with, if these latents are still asked
    for; what a server remembers from before they were made does not tell.
    """
    experiment, period = self._experiment, self._experiment.variables_period_seconds
    self._incarnation = replay_server.report(self._client).incarnation
    self._codec = experiment.codec(self.replay_config)
    self._seen = seen = subscription.Subscription(
      self._client, self.agent, self._codec, experiment.reconnect_seconds
    )
    seen.wait_for_learner(newer_than=self._newest if self._held else -1)
    self._acted_at_news = self._acted
    if not self._held or seen.variables.fingerprint != self._made_by:
      self._held.clear()
      self._collector = collector_lib.Collector(self.environment)
      self._frames_before = self.environment.env_frames
      self._stream = crew.new_stream()
      self._following = tables.first_number(self._stream)
    self._open(self._following)
    self._deliver()
    self._say()
    next_look = time.monotonic() + period
    while not seen.variables.is_over:
      leaving.check()
      if time.monotonic() >= next_look:
        self._look()
        next_look = time.monotonic() + period
      elif self._must_pause():
        time.sleep(_PAUSE_SECONDS)  # until a look changes that
      else:
        self._act()
        self._deliver()
    self._writer.close()
    self._say(is_leaving=1)

  def _abandon(self):
    """Gives up what was on its way: it must not reach the successor of a server that is lost.

    Latents that are held were not.
    """
    if self._writer is not None:
      if self._writes_pixels:
        self._held.clear()
      writer, self._writer = self._writer, None
      self._following, self._newest = writer.next_number, self._seen.variables.version
      writer.abandon()

  def _act(self):
    """Takes an agent step. Nothing is sent meanwhile, so that a loss never cuts one in two."""
    try:
      self._collector.run()
    except Exception:
      self._held.clear()  # the collector may be a step behind its environment
      raise
    self._acted += 1

  def _must_pause(self) -> bool:
    """Whether the learner is silent for long, or this actor as far ahead of it as it may be."""
    experiment, seen = self._experiment, self._seen
    since_news = self._acted - self._acted_at_news
    is_draining = seen.variables.phase == freeze.Phase.DRAINING
    return (
      not seen.variables.may_act
      or len(self._held) >= _MOST_HELD
      or (since_news >= experiment.actors_ahead_agent_steps and not is_draining)
      or seen.is_silent(experiment.variables_limit_seconds)
    )

  def _look(self):
    """Takes what the learner has published, and says how things stand."""
    if not self._is_same_server():
      raise TimeoutError(
        f'Replay server {self._client.server_address} has started anew: what it had not kept in a '
        'checkpoint is gone.'
      )
    if self._seen.refresh():
      self._acted_at_news = self._acted
    if (self._seen.variables.phase == freeze.Phase.PIXELS) != self._writes_pixels:
      self._writer.close()
      self._open(self._writer.next_number)
    else:
      self._choose_policy()
    self._deliver()
    if not self._seen.variables.updates:
      self._writer.flush()  # the learner waits for what it can sample
    self._say()

  def _is_same_server(self) -> bool:
    return replay_server.report(self._client, _TIMEOUT_SECONDS).incarnation == self._incarnation

  def _open(self, first_number: int):
    """Opens a stream of the kind of rows that the learner's phase asks for."""
    self._writes_pixels = self._seen.variables.phase == freeze.Phase.PIXELS
    self._made_by = self._seen.variables.fingerprint
    self._writer = writers.RowWriter.of_table(
      self._client,
      self.replay_config,
      'pixels' if self._writes_pixels else 'latents',
      timeout_seconds=_TIMEOUT_SECONDS,
      is_same_server=self._is_same_server,
      first_number=first_number,
    )
    self._policy = None
    self._choose_policy()

  def _choose_policy(self):
    """Random to begin with, then the agent's; the one that stores latents once they are written."""
    first = self._experiment.initial_random_agent_steps
    if not self._writes_pixels:
      wanted = 'storing'
    else:
      wanted = 'random' if self._seen.variables.agent_steps < first else 'collecting'
    if wanted != self._policy:
      self._policy = wanted
      self._collector.act_with(self._policies[wanted], [self._write])

  def _write(self, trajectory):
    config = self.replay_config
    if self._writes_pixels:
      row = writers.pixels_row(trajectory, config.frame_shape[-1])
    else:
      row = writers.latents_row(trajectory, self._codec.encode)
    self._held.append(row)

  def _deliver(self):
    """Writes the rows that are held, unless replay is being converted."""
    if self._seen.variables.phase == freeze.Phase.DRAINING:
      return
    while self._held:  # each leaves before it is written: a signal in between must not double it
      self._writer.append(self._held.popleft())

  def _say(self, is_leaving: int = 0):
    variables = self._seen.variables
    status = messages.Status(
      stream=self._stream,
      phase=int(freeze.Phase.PIXELS if self._writes_pixels else freeze.Phase.LATENTS),
      version=variables.version,
      env_frames=self.environment.env_frames - self._frames_before,
      agent_steps=self._collector.agent_steps,
      rows=self._writer.acknowledged,
      last_return=self._collector.last_return,
      is_leaving=is_leaving,
    )
    messages.send(self._client, status, _TIMEOUT_SECONDS)
