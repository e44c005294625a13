"""A run with a process for each role, and what stops one of them."""

import csv
import os
import pathlib
import re
import signal
import socket
import time

import numpy as np
import pytest
import reverb
import tensorflow as tf

from seer_tf.freezing import freeze
from seer_tf.replay import messages, server, tables
from seer_tf.training import records
from tests.launch import counting_runs, forks

BINDINGS = [
  'Experiment.total_agent_steps = 400',
  'AtStep.freeze_at_agent_steps = 200',
  'Experiment.evaluation_period = 100',
  'Experiment.variables_period_seconds = 0.2',
  'Experiment.actors_ahead_agent_steps = 20',
  'Checkpoints.period_seconds = 1',
]


class Processes:
  """What is started, and ends with the test."""

  def __init__(self):
    self.all = {}

  def __enter__(self):
    return self

  def __exit__(self, *_):
    for process in self.all.values():
      process.kill()

  def start(self, name, module, *arguments, bindings=()):
    line = counting_runs.command(module, [*BINDINGS, *bindings], *arguments)
    self.all[name] = forks.Process(line)
    return self.all[name]

  def start_server(self, *arguments, bindings=()):
    """Returns its address."""
    arguments = ('launch.replay_server', '--port=0', *arguments)
    return self.start('server', *arguments, bindings=bindings).address

  def said(self, name):
    return self.all[name].stderr

  def ends(self, name, code=0):
    assert self.all[name].wait() == code, self.said(name)[-3000:]


def until(holds):
  """What `holds` returns once it is true."""
  deadline = time.monotonic() + forks.LIMIT
  while True:
    value = holds()
    if value:
      return value
    assert time.monotonic() < deadline
    time.sleep(0.05)


def streams_of(client, config):
  """Streams that have rows in table `pixels`, which must not be empty."""
  sample = lambda: list(client.sample('pixels', 50, emit_timesteps=False))
  return {
    tables.stream_of(int(number))
    for sample in server.with_limit(sample, forks.LIMIT, 'table pixels')
    for number in tables.own_numbers(
      tables.StoredRow(*sample.data).rest, config.pixels_layout, config.pixels_row
    )
    if number >= 0
  }


@pytest.fixture(scope='module')
def lived(tmp_path_factory):
  """A run with actors that come and go, and what it left."""
  root_dir = tmp_path_factory.mktemp('cluster') / 'run'
  with Processes() as processes:
    address = processes.start_server(f'--root_dir={root_dir}')
    to = f'--replay_server={address}'
    client = reverb.Client(address)
    processes.start('actor0', 'launch.actor', to, '--task=0')
    processes.start('actor1', 'launch.actor', to, '--task=1')
    processes.start('learner', 'launch.learner', to, f'--root_dir={root_dir}')
    processes.start('evaluator', 'launch.evaluator', to, f'--root_dir={root_dir}')
    processes.start('other', 'launch.actor', to, '--task=9', bindings=['Experiment.gamma = 0.5'])
    config = counting_runs.replay_config(BINDINGS)
    until(lambda: messages.read(client).updates > 20 and len(streams_of(client, config)) == 2)
    processes.start('second', 'launch.learner', to, f'--root_dir={root_dir}')
    processes.all['actor1'].kill()
    until(lambda: messages.read(client).phase == freeze.Phase.LATENTS)
    processes.start('actor2', 'launch.actor', to, '--task=2')
    for name in ('learner', 'evaluator', 'actor0', 'actor2'):
      processes.ends(name)
    yield dict(
      processes=processes,
      address=address,
      root_dir=root_dir,
      variables=messages.read(client),
      info=client.server_info(timeout=20),
      streams=counting_runs.streams(client, config.latents_layout, config.latents_row),
    )


def test_every_stream_is_whole(lived):
  """Of the actor that stayed, and of the one that was killed as far as it was acknowledged."""
  assert len(lived['streams']) >= 2
  for stream, rows in lived['streams'].items():
    numbers = [number for number, *_ in rows]
    assert numbers == list(range(tables.first_number(stream), numbers[-1] + 1))
    rewards = [reward for _, step_type, reward in rows if step_type != 2]
    np.testing.assert_array_equal(rewards, rewards[0] + np.arange(len(rewards)))
  assert lived['info']['pixels'].current_size == lived['info']['drain'].current_size == 0


def test_updates_keep_to_the_agent_steps(lived):
  variables = lived['variables']
  assert variables.is_over and variables.updates == variables.agent_steps - 10
  acted = sum(sum(kind != 2 for _, kind, _ in rows) for rows in lived['streams'].values())
  assert 400 <= variables.agent_steps <= acted
  # Actors are ahead by what is configured, and by as much again between two looks of each.
  ahead = [
    int(row['env_frames']) - int(row['agent_steps'])
    for row in csv.DictReader((lived['root_dir'] / 'results.csv').open())
    if row['phase'] == 'pixels'
  ]
  assert ahead and max(ahead) <= 5 * 20


def test_an_evaluator_writes_the_results(lived):
  rows = list(csv.DictReader((lived['root_dir'] / 'results.csv').open()))
  steps = [int(row['agent_steps']) for row in rows]
  assert steps == sorted(set(steps)) and steps[-1] == lived['variables'].agent_steps
  assert rows[0]['phase'] == 'pixels' and rows[-1]['phase'] == 'latents'
  assert float(rows[-1]['flops']) > 0 and float(rows[-1]['seconds']) > 0


def test_tensorboard_shows_the_actors(lived):
  tags = records.scalars(lived['root_dir'] / 'train')
  for name in ('actors', 'mean_updates_behind', 'most_updates_behind'):
    assert f'Actors by agent_steps/{name}' in tags
  for name in ('samples_per_agent_step', 'agent_steps_ahead'):
    assert f'Costs by agent_steps/{name}' in tags


def test_other_configurations_and_second_learners_are_refused(lived):
  processes = lived['processes']
  processes.ends('other', 2)
  assert 'is configured differently: Experiment.gamma was not bound, now 0.5' in processes.said(
    'other'
  )
  processes.ends('second', 2)
  assert 'is being written by another process' in processes.said('second')


def error(*line):
  """The one line with which a command ends, quickly."""
  process = forks.run(line)
  lines = [text for text in process.stderr.splitlines() if text.startswith('error: ')]
  assert process.returncode == 2 and len(lines) == 1, process.stderr[-3000:]
  return lines[0]


@pytest.mark.parametrize('module', ['launch.learner', 'launch.actor', 'launch.evaluator'])
@pytest.mark.parametrize(
  'arguments, message',
  [
    ([], 'replay_server'),
    (['--replay_server=localhost:1'], 'root_dir|task'),
  ],
)
def test_missing_flags_are_named(module, arguments, message):
  process = forks.run(counting_runs.command(module, BINDINGS, *arguments))
  assert process.returncode == 1 and re.search(f'--({message})', process.stderr)


def test_addresses_that_are_none(tmp_path):
  line = lambda address: counting_runs.command(
    'launch.actor', BINDINGS, f'--replay_server={address}', '--task=0'
  )
  assert 'is no address; give host:port' in error(*line('localhost'))
  with socket.create_server(('localhost', 0)) as silent:
    address = f'localhost:{silent.getsockname()[1]}'
    assert f'No replay server answers at {address}' in error(*line(address))


def test_a_damaged_checkpoint_of_the_learner_is_named(lived, tmp_path):
  """The data of the newest checkpoint is cut short, as a disk can do it."""
  checkpoints = lived['root_dir'] / 'train' / 'checkpoints'
  newest = pathlib.Path(tf.train.latest_checkpoint(str(checkpoints)))
  [data] = newest.parent.glob(f'{newest.name}.data*')
  os.truncate(data, data.stat().st_size // 2)
  to = f'--replay_server={lived["address"]}'
  line = counting_runs.command('launch.learner', BINDINGS, to, f'--root_dir={lived["root_dir"]}')
  assert f'The newest checkpoint in {lived["root_dir"]}/train/checkpoints cannot be' in error(*line)


def test_another_learner_an_actor_that_is_told_to_leave_and_a_silent_server(tmp_path):
  """In this order. The server is stopped: it accepts connections, but never answers."""
  limit = ['Experiment.reconnect_seconds = 60', 'Experiment.total_agent_steps = 1_000_000']
  with Processes() as processes:
    address = processes.start_server(bindings=limit)
    client, to = reverb.Client(address), f'--replay_server={address}'
    root_dir = f'--root_dir={tmp_path / "run"}'
    processes.start('learner', 'launch.learner', to, root_dir, bindings=limit)
    processes.start('evaluator', 'launch.evaluator', to, root_dir, bindings=limit)
    for number in range(2):
      processes.start(f'actor{number}', 'launch.actor', to, f'--task={number}', bindings=limit)
    config = counting_runs.replay_config(BINDINGS)
    until(lambda: messages.read(client).updates > 5 and len(streams_of(client, config)) == 2)
    processes.start(
      'other', 'launch.learner', to, f'--root_dir={tmp_path / "other"}', bindings=limit
    )
    processes.ends('other', 2)
    assert f'Another learner publishes at replay server {address}' in processes.said('other')
    assert processes.all['learner'].returncode is None
    processes.all['actor1'].send_signal(signal.SIGTERM)
    assert processes.all['actor1'].wait(timeout=30) == 143, processes.said('actor1')[-3000:]
    processes.all['server'].send_signal(signal.SIGSTOP)
    for name in ('learner', 'actor0', 'evaluator'):
      processes.ends(name, 2)
      assert f'{address}: no progress for 60 s' in processes.said(name)
