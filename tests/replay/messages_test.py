"""Messages between the processes of a run, against a real server in another process."""

import dataclasses
import math

import pytest
import reverb

from seer_tf.replay import messages
from tests.replay.tables_test import CONFIG


@pytest.fixture
def client(replay_servers):
  return reverb.Client(replay_servers.start(dataclasses.replace(CONFIG)))


def test_variables_are_the_newest_published(client):
  assert messages.read(client) == messages.Variables()
  last = messages.Variables(
    phase=2,
    draining=1,
    fingerprint='abc',
    codec=b'\0\1\0',
    env_frames=160,
    agent_steps=20,
    updates=2**40,
    version=3,
    weights=bytes(range(256)) * 1000,
    configuration="DOMAIN = 'hopper'\nµ = 1\n",
    checkpoint_order=4,
    restore_order=2**62,
    may_act=0,
    is_over=1,
    flops=1e18,
    seconds=0.25,
  )
  for variables in (last._replace(updates=1), last):
    messages.publish(client, variables)
  assert messages.read(client) == last == messages.read(client)


def test_statuses_come_once_and_in_order(client):
  assert messages.receive(client) == []
  sent = [
    messages.Status(
      stream=2**31 - 1, phase=1, version=i, env_frames=8 * i, agent_steps=i, rows=i, last_return=0.5
    )
    for i in range(40)
  ]
  for status in sent:
    messages.send(client, status)
  assert messages.receive(client) == sent
  assert messages.receive(client) == []
  messages.send(client, sent[0]._replace(last_return=math.nan, is_leaving=1))
  [status] = messages.receive(client)
  assert math.isnan(status.last_return) and status.is_leaving == 1


def test_a_server_that_is_gone_is_named(replay_servers):
  address = replay_servers.start(CONFIG)
  client = reverb.Client(address)
  replay_servers.stop(address)
  for call in (messages.read, messages.receive):
    with pytest.raises((TimeoutError, reverb.errors.ReverbError), match=address.split(':')[1]):
      call(client, timeout_seconds=1)
  with pytest.raises(TimeoutError, match=f'{address}, table variables'):
    messages.publish(client, messages.Variables(), timeout_seconds=1)
