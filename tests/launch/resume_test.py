"""Runs that are stopped and killed go on by the same command, and nothing is lost or doubled."""

import contextlib
import csv
import re
import signal
import time

import numpy as np
import pytest
import reverb

from seer_tf.freezing import freeze
from seer_tf.networks import encoders, transfer, variables
from seer_tf.replay import messages, tables, writers
from tests.launch import counting_runs, forks

BINDINGS = [
  'Experiment.total_agent_steps = 240',
  'AtStep.freeze_at_agent_steps = 120',
  'Experiment.evaluation_period = 40',
  'Experiment.checkpoint_period = 30',
  'Experiment.conversion_batch_size = 8',
  'Experiment.variables_period_seconds = 0.2',
  'Checkpoints.period_seconds = 1',
]
# In the order in which a run comes by them. Before the first batch table `pixels` has been emptied.
PLACES_OF_A_SWITCH = [
  'announced:1',
  'checkpoint ordered:1',
  'draining:1',
  'batch:1',
  'batch:3',
  'drained:1',
  'latents published:1',
]
PLACES = ['publication:1', 'checkpoint:2', 'frozen:1', *PLACES_OF_A_SWITCH]


@contextlib.contextmanager
def serving(root_dir, bindings=()):
  """Yields the address of a server of its own process."""
  line = counting_runs.command(
    'launch.replay_server', [*BINDINGS, *bindings], f'--root_dir={root_dir}', '--port=0'
  )
  with forks.Process(line) as server:
    yield server.address


def results(root_dir):
  return [int(row['agent_steps']) for row in csv.DictReader((root_dir / 'results.csv').open())]


def acting(address, bindings=()):
  """An actor in a process of its own, if there is an address for it; None if not."""
  if not address:
    return contextlib.nullcontext()
  line = counting_runs.command(
    'launch.actor', [*BINDINGS, *bindings], f'--replay_server={address}', '--task=0'
  )
  return forks.Process(line)


LEFT = 77  # a stream of latents that nobody in a run has written


def leave_latents(client, config):
  """Writes rows as a writer does that is lost together with its learner, but comes late."""
  zeros = tables.padding_row(config.latents_row)
  row = zeros._replace(step_type=np.asarray(1, np.int32), number=None)
  writer = writers.RowWriter.of_table(
    client, config, 'latents', first_number=tables.first_number(LEFT)
  )
  for _ in range(9):
    writer.append(row)
  writer.close()


@pytest.mark.parametrize(
  'module, places', [('launch.train', PLACES), ('launch.learner', PLACES_OF_A_SWITCH)]
)
def test_killed_at_every_place_of_the_switch(tmp_path, module, places):
  """Every row of pixels is in latents once, and of a stream all are, from its first to its last."""
  root_dir, killed = tmp_path / 'run', []
  has_actor = module == 'launch.learner'
  with serving(tmp_path / 'server') as address, acting(has_actor and address) as actor:
    line = counting_runs.command(
      module, BINDINGS, f'--root_dir={root_dir}', f'--replay_server={address}'
    )
    client, config = reverb.Client(address), counting_runs.replay_config(BINDINGS)
    for place in places:
      process = forks.run(line, SEER_TF_TEST_KILL_AT=place)
      assert process.returncode in (-signal.SIGKILL, 0), (place, process.stderr[-3000:])
      if process.returncode:
        killed.append(place)
      if place == 'announced:1':
        time.sleep(5 * has_actor)  # it reads that, a few times a second, and closes its stream
        held = counting_runs.streams(client, config.pixels_layout, config.pixels_row, 'pixels')
        leave_latents(client, config)
    process = forks.run(line)
    assert process.returncode == 0, process.stderr[-3000:]
    if actor:  # it delivers its last rows once it reads that the run is over
      assert actor.wait() == 0, actor.stderr[-3000:]
    found = counting_runs.streams(client, config.latents_layout, config.latents_row)
    said = messages.read(client)
    info = client.server_info(timeout=20)
  assert killed == places and LEFT not in found
  assert said.phase == freeze.Phase.LATENTS and said.is_over and not said.draining
  assert info['pixels'].current_size == info['drain'].current_size == 0
  assert len(held) >= (1 if has_actor else 2)
  block = config.drain_layout.block_length  # a stream that was not closed lacks its last, open one
  for stream, rows in held.items():
    assert set(rows[: len(rows) // block * block]) <= set(found[stream])
  for stream, rows in found.items():
    numbers = [number for number, *_ in rows]
    assert numbers == list(range(tables.first_number(stream), numbers[-1] + 1))
    rewards = [reward for _, step_type, reward in rows if step_type != 2]
    np.testing.assert_array_equal(rewards, rewards[0] + np.arange(len(rewards)))
  if not has_actor:
    steps = results(root_dir)
    assert steps == sorted(set(steps)) and steps[-1] == 240


@pytest.mark.parametrize(
  'bindings',
  [
    [
      'Experiment.schedule_fn = @Progressive',
      'Progressive.freeze_at_agent_steps = {"conv1": 60, "conv2": 90, "dense": 160}',
    ],
    ['Experiment.store_latents = False', 'AtStep.freeze_at_agent_steps = 60'],
  ],
)
def test_layers_stay_frozen_in_a_run_that_goes_on(tmp_path, bindings):
  """Killed after its third checkpoint, of update 90: agent step 100."""
  root_dir = tmp_path / 'run'
  line = counting_runs.command('launch.train', [*BINDINGS, *bindings], f'--root_dir={root_dir}')
  process = forks.run(line, SEER_TF_TEST_KILL_AT='checkpointed:3')
  assert process.returncode == -signal.SIGKILL, process.stderr[-3000:]
  before = encoder_of(root_dir)
  process = forks.run(line)
  assert process.returncode == 0, process.stderr[-3000:]
  after = encoder_of(root_dir)
  later = 'dense' if 'Progressive' in bindings[0] else ''
  for name in before:
    is_same = np.array_equal(before[name], after[name])
    assert is_same != bool(later and name.startswith(('critic', 'actor', later))), name
  assert 'freezing conv1' not in process.stderr
  assert ('freezing the encoder' in process.stderr) == bool(later)


@pytest.mark.parametrize('module', ['launch.train', 'launch.learner'])
def test_what_a_schedule_saw_counts_in_a_run_that_goes_on(tmp_path, module):
  """Killed after its third checkpoint, with the last of four comparisons still to come."""
  root_dir = tmp_path / 'run'
  looking = [
    'Experiment.schedule_fn = @WhenConverged',
    'WhenConverged.earliest_agent_steps = 20',
    'WhenConverged.latest_agent_steps = 230',
    'WhenConverged.threshold = 1e-9',
    'WhenConverged.patience = 4',
    'WhenConverged.period_agent_steps = 30',
    'WhenConverged.probe_observations = 8',
    'ControlEncoder.filters = (16, 16)',  # so many that no layer is dead on nearly black frames
  ]
  has_actor = module == 'launch.learner'
  with (
    serving(tmp_path / 'server', looking) as address,
    acting(has_actor and address, looking),
  ):
    arguments = f'--root_dir={root_dir}', f'--replay_server={address}'
    line = counting_runs.command(module, [*BINDINGS, *looking], *arguments)
    process = forks.run(line, SEER_TF_TEST_KILL_AT='checkpointed:3')
    assert process.returncode == -signal.SIGKILL, process.stderr[-3000:]
    assert 'freezing' not in process.stderr
    process = forks.run(line)
    assert process.returncode == 0, process.stderr[-3000:]
  [(at, times)] = re.findall(
    r'freezing the encoder at agent step (\d+): converged: .*, (\d) times in a row', process.stderr
  )
  updates = int(re.search(r'going on from agent step .*, update (\d+),', process.stderr)[1])
  resumed_at = 10 + updates  # agent steps, of which the first ten were random
  assert int(times) == 4 and resumed_at < int(at) < resumed_at + 4 * 30


def encoder_of(root_dir):
  """Name -> weights of the encoder in a run's newest checkpoint."""
  encoder = encoders.ControlEncoder((15, 15, 9), filters=(4, 4), features=5)
  transfer.load(encoder, str(root_dir))
  return {name: variable.numpy() for name, variable in variables.by_name(encoder).items()}


def test_a_full_disk_ends_a_run_with_a_line_and_room_lets_it_go_on(small_disk):
  root_dir = small_disk.path / 'run'
  line = counting_runs.command('launch.train', BINDINGS, f'--root_dir={root_dir}')
  process = forks.run(line)
  [error] = [text for text in process.stderr.splitlines() if text.startswith('error: ')]
  assert process.returncode == 2
  assert str(root_dir) in error and 'No space left on device' in error
  assert error.endswith('Make room there; the same command then goes on from the last checkpoint.')
  small_disk.remount('size=100m')
  process = forks.run(line)
  assert process.returncode == 0, process.stderr[-3000:]
  steps = results(root_dir)
  assert steps == sorted(set(steps)) and steps[-1] == 240


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGKILL])
def test_an_embedded_server_goes_on_with_its_run(tmp_path, number):
  root_dir = tmp_path / 'run'
  bindings = [*BINDINGS, 'AtStep.freeze_at_agent_steps = 200']
  line = counting_runs.command('launch.train', bindings, f'--root_dir={root_dir}')
  with forks.Process(line) as process:
    process.prints(r'pixels .* (8\d|9\d|10\d)/240 agent_steps')
    process.send_signal(number)
    start = time.monotonic()
    expected = 143 if number == signal.SIGTERM else -number
    assert process.wait(timeout=60) == expected, process.stderr[-3000:]
    assert time.monotonic() - start < 30
  process = forks.run(line)
  assert process.returncode == 0, process.stderr[-3000:]
  [step] = re.findall(r'going on from agent step (\d+)', process.stderr)
  # What SIGKILL leaves is the last checkpoint of 30 updates.
  assert int(step) >= (80 if number == signal.SIGTERM else 70)
  held = re.findall(r'converting replay: 100%.* (\d+)/\1', process.stderr.replace('\r', '\n'))
  # Rows from before and after; it freezes at 200. Two blocks of table `drain` were full before.
  assert int(held[-1]) >= 200 - int(step) + 64
  steps = results(root_dir)
  assert steps == sorted(set(steps)) and steps[0] == 40 and steps[-1] == 240
