"""What a learner publishes, and hears: of another learner, of actors that are not there."""

import logging
import time
import types

import pytest
import reverb

from seer_tf.replay import messages, tables
from seer_tf.training import crew, publication

CONFIG = tables.ReplayConfig(
  frame_shape=(4, 4, 1),
  frame_stack=1,
  action_shape=(),
  action_dtype='int64',
  latent_size=3,
  stored_crops=1,
  n_step=1,
  pixels_capacity=10,
  latents_capacity=32,
)


@pytest.fixture(name='client')
def fixture_client():
  server = reverb.Server(tables.make_tables(CONFIG))
  yield reverb.Client(f'localhost:{server.port}')
  server.stop()


def test_of_two_learners_the_one_that_came_later_gives_way(client):
  first, second = (
    publication.Publication(types.SimpleNamespace(phase=0), with_weights=False, period_seconds=1)
    for _ in range(2)
  )
  first.begin(messages.read(client))
  first.publish(client, 20)
  time.sleep(0.01)
  restored = messages.read(client)
  second.begin(restored)
  assert not second.is_anothers(restored.version)
  for _ in range(3):
    second.publish(client, 20)
    said = messages.read(client)
    assert first.is_anothers(said.version) and not first.gives_way(said.version, said.learner)
    assert not second.is_anothers(said.version)
    first.publish(client, 20)
    said = messages.read(client)
    assert not first.is_anothers(said.version)
    assert second.is_anothers(said.version) and second.gives_way(said.version, said.learner)
    # Told by a server that has gone back to what it knew before: by nobody who lives.
    assert not second.gives_way(restored.version, restored.learner)


def test_a_learner_without_actors_says_so(client, caplog, monkeypatch):
  monkeypatch.setattr(crew, '_IDLE_SECONDS', 0.2)
  experiment = types.SimpleNamespace(
    environment_fn=lambda seed: None,
    actors_ahead_agent_steps=1,
    variables_period_seconds=1,
    variables_limit_seconds=1,
  )
  remote = crew.RemoteCrew(experiment)
  link = types.SimpleNamespace(client=client, address='there:8000')
  monkeypatch.setattr(remote, '_run', types.SimpleNamespace(link=link), raising=False)

  def lines(seconds, wait=True):
    caplog.clear()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
      remote.advance(wait)
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]

  assert not lines(0.4, wait=False)
  deadline, said = time.monotonic() + 60, []
  while not said and time.monotonic() < deadline:
    said = lines(0.3)
  line = said[0]
  assert 'No actor has acted for 0.2 s (0 are there)' in line and 'there:8000' in line
