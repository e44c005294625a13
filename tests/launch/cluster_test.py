"""A run with a process for each role, and what stops one of them."""

import csv
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import numpy as np
import pytest
import reverb
import tensorflow as tf
from tensorflow.core.util import event_pb2

from seer_tf.freezing import freeze
from seer_tf.replay import messages, tables
from tests.launch import counting_runs

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

  def __init__(self, folder):
    self._folder = folder
    self.all = {}

  def start(self, name, module, *arguments, bindings=()):
    log = (self._folder / f'{name}.log').open('w')
    self.all[name] = subprocess.Popen(
      counting_runs.command(module, [*BINDINGS, *bindings], *arguments),
      cwd=counting_runs.ROOT,
      stdout=log,
      stderr=log,
    )
    return self.all[name]

  def said(self, name):
    return (self._folder / f'{name}.log').read_text()

  def ends(self, name, code=0):
    assert self.all[name].wait(timeout=counting_runs.LIMIT) == code, self.said(name)[-3000:]

  def kill(self):
    for process in self.all.values():
      process.kill()
      process.wait()


def until(holds):
  """What `holds` returns once it is true."""
  deadline = time.monotonic() + counting_runs.LIMIT
  while True:
    value = holds()
    if value:
      return value
    assert time.monotonic() < deadline
    time.sleep(0.05)


def streams_of(client, config):
  """Streams that have rows in table `pixels`, which must not be empty."""
  return {
    tables.stream_of(int(number))
    for sample in client.sample('pixels', 50, emit_timesteps=False)
    for number in tables.own_numbers(
      tables.StoredRow(*sample.data).rest, config.pixels_layout, config.pixels_row
    )
    if number >= 0
  }


@pytest.fixture(scope='module')
def lived(tmp_path_factory):
  """A run with actors that come and go, and what it left."""
  folder = tmp_path_factory.mktemp('cluster')
  root_dir = folder / 'run'
  processes = Processes(folder)
  try:
    processes.start('server', 'launch.replay_server', f'--root_dir={root_dir}', '--port=0')
    port = until(lambda: re.search(r'ready on port (\d+)', processes.said('server')))[1]
    address = f'localhost:{port}'
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
    for name in ('learner', 'evaluator', 'actor0'):
      processes.ends(name)
    yield dict(
      processes=processes,
      root_dir=root_dir,
      variables=messages.read(client),
      info=client.server_info(timeout=20),
      streams=counting_runs.streams(client, config.latents_layout, config.latents_row),
    )
  finally:
    processes.kill()


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
  tags = set()
  for path in (lived['root_dir'] / 'train').glob('events*'):
    for record in tf.data.TFRecordDataset(str(path)):
      tags |= {value.tag for value in event_pb2.Event.FromString(record.numpy()).summary.value}
  for name in ('actors', 'mean_updates_behind', 'most_updates_behind'):
    assert f'Actors by agent_steps/{name}' in tags


def test_other_configurations_and_second_learners_are_refused(lived):
  processes = lived['processes']
  processes.ends('other', 2)
  assert 'is configured differently: Experiment.gamma was not bound, now 0.5' in processes.said(
    'other'
  )
  processes.ends('second', 2)
  assert 'is being written by another process' in processes.said('second')


def error(*line, **kwargs):
  """The one line with which a command ends, quickly."""
  process = subprocess.run(
    line,
    cwd=counting_runs.ROOT,
    capture_output=True,
    text=True,
    timeout=counting_runs.LIMIT,
    check=False,
    **kwargs,
  )
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
  process = subprocess.run(
    counting_runs.command(module, BINDINGS, *arguments),
    cwd=counting_runs.ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
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
  server = lived['processes'].said('server')
  port = re.search(r'ready on port (\d+)', server)[1]
  line = counting_runs.command(
    'launch.learner',
    BINDINGS,
    f'--replay_server=localhost:{port}',
    f'--root_dir={lived["root_dir"]}',
  )
  assert f'The newest checkpoint in {lived["root_dir"]}/train/checkpoints cannot be' in error(*line)


def test_a_server_that_falls_silent_is_named_by_all_and_not_waited_for_without_limit(tmp_path):
  """It accepts connections, but never answers."""
  processes, limit = Processes(tmp_path), ['Experiment.reconnect_seconds = 20']
  limit += ['Experiment.total_agent_steps = 1_000_000']
  try:
    server = processes.start('server', 'launch.replay_server', '--port=0', bindings=limit)
    port = until(lambda: re.search(r'ready on port (\d+)', processes.said('server')))[1]
    client, to = reverb.Client(f'localhost:{port}'), f'--replay_server=localhost:{port}'
    root_dir = f'--root_dir={tmp_path / "run"}'
    processes.start('learner', 'launch.learner', to, root_dir, bindings=limit)
    processes.start('actor', 'launch.actor', to, '--task=0', bindings=limit)
    processes.start('evaluator', 'launch.evaluator', to, root_dir, bindings=limit)
    until(lambda: messages.read(client).updates > 5)
    server.send_signal(signal.SIGSTOP)
    for name in ('learner', 'actor', 'evaluator'):
      processes.ends(name, 2)
      assert f'localhost:{port}: no progress for 20 s' in processes.said(name)
  finally:
    processes.kill()


def test_an_actor_leaves_on_sigterm(lived):
  """The last one: it came late, and may have left by itself."""
  actor = lived['processes'].all['actor2']
  actor.send_signal(signal.SIGTERM)
  assert actor.wait(timeout=30) in (0, 143)
