"""What an actor keeps of a conversion whose replay server is lost; the learner is the test."""

import threading
import time

import gin
import numpy as np
import pytest
import reverb
import tensorflow as tf

from seer_tf.freezing import freeze
from seer_tf.replay import messages, server, tables
from seer_tf.training import actor, experiment, publication
from tests import ports
from tests.launch import counting_runs

BINDINGS = [
  'Experiment.codec_fn = @Float32',
  'Experiment.variables_period_seconds = 0.2',
  # From then on it waits for news.
  'Experiment.variables_limit_seconds = 1.0',
  'ReplayConfig.latents_capacity = 100_000',
]


class Learner:
  """Says what a learner would, and hears what it would hear, at servers that come and go."""

  def __init__(self, port):
    self._port, self._experiment = port, experiment.Experiment()
    environment = self._experiment.environment_fn(seed=None)
    self.config = self._experiment.replay_config(environment)
    updates = tf.Variable(0, dtype=tf.int64)
    self._agent = self._experiment.agent(environment, updates)
    self._codec = self._experiment.codec(self.config)
    self._publication = publication.Publication(self._agent, with_weights=True, period_seconds=1.0)
    self._server, self.client = None, reverb.Client(f'localhost:{port}')

  def start_server(self, incarnation):
    """A new one in the place of the one before; what that held is gone."""
    self.stop_server()
    self._server = reverb.Server(tables.make_tables(self.config), self._port)
    report = server.Report(*[0] * 8, '', *[0] * 3)._replace(incarnation=incarnation)
    values = {
      name: np.asarray(getattr(report, name), spec.dtype.as_numpy_dtype)
      for name, spec in tables.SERVER_SIGNATURE.items()
    }
    self.client.insert(values, {'server': 1.0})

  def stop_server(self):
    if self._server:
      self._server.stop()

  def freeze_another(self):
    """As if it had gone back to before the freeze, and come to another encoder."""
    for weight in self._agent.lower.variables:
      weight.assign(weight + 0.01)

  def publish(self, phase, **values):
    self._agent.phase.assign(phase)
    fingerprint = freeze.fingerprint(self._agent.lower)
    self._publication.publish(
      self.client,
      20,
      fingerprint=freeze.of_latents(fingerprint, self._codec.digest),
      codec=self._codec.state,
      **values,
    )

  def hear(self, steps, phase=freeze.Phase.DRAINING, not_of=None):
    """Keeps publishing until an actor has said that it has taken so many agent steps.

    Args:
      steps: in a stream.
      phase: that is published.
      not_of: stream whose words may still be on their way.
    """
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
      self.publish(phase)
      for status in messages.receive(self.client):
        if status.agent_steps >= steps and status.stream != not_of:
          return status
      time.sleep(0.05)
    raise AssertionError(f'no actor has taken {steps} agent steps')


@pytest.fixture
def learner(root, monkeypatch):
  monkeypatch.chdir(root)
  with gin.unlock_config():
    gin.clear_config()
    gin.parse_config_files_and_bindings(['tests/counting.gin'], BINDINGS)
    made = Learner(ports.fixed())
    yield made
    made.stop_server()
    gin.clear_config()


@pytest.mark.parametrize(
  'is_same_encoder, next_phase',
  [
    (True, freeze.Phase.DRAINING),
    (True, freeze.Phase.LATENTS),
    (False, freeze.Phase.DRAINING),
  ],
)
def test_rows_held_in_a_conversion_outlive_the_server(learner, is_same_encoder, next_phase):
  """But not the encoder that made them. The server comes back with words from before the freeze."""
  learner.start_server(incarnation=1)
  learner.publish(freeze.Phase.PIXELS)
  words = messages.read(learner.client)._replace(fingerprint='', codec=b'')
  learner.publish(freeze.Phase.DRAINING)
  acting = actor.Actor(experiment.Experiment(), seed=0)
  thread = threading.Thread(target=acting.run, args=[learner.client], daemon=True)
  thread.start()
  before = learner.hear(steps=30)
  learner.start_server(incarnation=2)
  messages.publish(learner.client, words)
  if is_same_encoder:
    time.sleep(3)  # in which it could take these words for news
    messages.receive(learner.client)  # what was still on its way
    after = learner.hear(before.agent_steps + 30, next_phase)
  else:
    learner.freeze_another()
    after = learner.hear(30, next_phase, not_of=before.stream)
  if next_phase == freeze.Phase.DRAINING:
    assert learner.client.server_info(timeout=20)['latents'].current_size == 0
  learner.hear(after.agent_steps + 30, freeze.Phase.LATENTS)
  learner.publish(freeze.Phase.LATENTS, is_over=1)
  thread.join(300)
  assert not thread.is_alive()
  *_, last = messages.receive(learner.client)
  assert last.is_leaving and last.stream == after.stream

  layout, row = learner.config.latents_layout, learner.config.latents_row
  streams = counting_runs.streams(learner.client, layout, row)
  assert list(streams) == [after.stream]
  rows = streams[after.stream]
  numbers, step_types, rewards = zip(*rows)
  assert last.rows == len(rows)
  np.testing.assert_array_equal(np.diff(numbers), 1)
  rewards = np.asarray(rewards)[np.asarray(step_types) != 2]
  np.testing.assert_array_equal(np.diff(rewards), 1)
  assert len(rewards) == last.agent_steps
  assert (after.stream == before.stream) == is_same_encoder
  assert (rewards[0] == 1) == is_same_encoder
