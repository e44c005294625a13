"""Tests of `launch.train` as a process: a whole run, and what stops one early."""

import csv
import os
import pathlib
import signal
import socket
import sys
import time

import pytest
import tensorflow as tf
from tf_agents.policies import py_tf_eager_policy

from seer_tf.environments import dm_control
from seer_tf.training import records
from tests.launch import forks

TINY = 'tests/tiny.gin'
ACTS = r'[1-9][0-9]*/400 agent_steps'


def command(root_dir, *arguments, module='launch.train'):
  line = [sys.executable, '-m', module, f'--gin_file={TINY}']
  return [*line, *([f'--root_dir={root_dir}'] if root_dir else []), *arguments]


def run(*arguments):
  return forks.run(command(*arguments))


def servers(root_dir):
  """Process ids of the replay servers that run now for a run in `root_dir`."""
  found = set()
  for entry in pathlib.Path('/proc').iterdir():
    try:
      words = (entry / 'cmdline').read_bytes().split(b'\0')
      if b'launch.replay_server' in words and f'--root_dir={root_dir}'.encode() in words:
        found.add(entry.name)
    except OSError:
      pass
  return found


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  root_dir = tmp_path_factory.mktemp('runs') / 'run'
  process = run(root_dir, '--seed=3')
  assert process.returncode == 0, process.stderr[-3000:]
  assert not servers(root_dir)
  return root_dir, process


def test_results_go_through_the_phases(finished):
  root_dir, _ = finished
  rows = list(csv.DictReader((root_dir / 'results.csv').open()))
  assert [(row['phase'], int(row['agent_steps'])) for row in rows] == [
    ('pixels', 130),
    ('pixels', 250),
    ('latents', 260),
    ('latents', 390),
    ('latents', 400),
  ]
  for row in rows:
    assert int(row['env_frames']) == 8 * int(row['agent_steps'])
    assert int(row['updates']) == int(row['agent_steps']) - 100
    returns = [float(value) for value in row['returns'].split()]
    assert len(returns) == 2 and abs(sum(returns) / 2 - float(row['mean_return'])) < 0.01
    assert all(0 <= value <= 1000 for value in returns)
  for column in ('flops', 'seconds', 'env_frames'):
    values = [float(row[column]) for row in rows]
    assert values == sorted(values) and values[0] > 0
  per_update = lambda a, b: (
    (int(b['flops']) - int(a['flops'])) / (int(b['updates']) - int(a['updates']))
  )
  assert per_update(rows[0], rows[1]) > 3 * per_update(rows[2], rows[3])


def test_output_ends_with_the_table(finished):
  output = finished[1].stdout
  assert 'mean return' in output and 'milliseconds per update' in output
  for label in ('seconds per 1,000 agent_steps', 'replay bytes per step (measured)'):
    figures = [float(word.replace(',', '')) for word in output.split(label)[1].split()[:3]]
    assert all(figure > 0 for figure in figures), (label, figures)


def test_progress_shows_phase_return_rate_and_bytes(finished):
  progress = finished[1].stderr
  assert 'converting replay' in progress and '251/251' in progress
  last = progress.replace('\r', '\n').strip().splitlines()[-1]
  for word in ('latents', '400/400 agent_steps', 'return=', 'updates/s=', 'replay='):
    assert word in last, last


def test_operative_configuration_is_saved(finished):
  text = (finished[0] / 'config.gin').read_text()
  for binding in ('load.task = %TASK', 'batch_size = 8', 'gamma = 0.99', 'target_tau = 0.01'):
    assert binding in text


def test_tensorboard_has_curves_by_clock(finished):
  shown = records.scalars(finished[0])
  tags = {tag: [step for step, _ in values] for tag, values in shown.items()}
  assert tags['Evaluation by agent_steps/mean_return'] == [130, 250, 260, 390, 400]
  assert tags['Evaluation by updates/mean_return'] == [30, 150, 160, 290, 300]
  for name in ('flops', 'seconds', 'replay_bytes', 'updates_per_second'):
    assert max(tags[f'Costs by agent_steps/{name}']) == 400
  assert max(tags['Losses by updates/critic_loss']) == 300


def test_saved_policy_acts_on_pixels(finished):
  environment = dm_control.load('cartpole', 'swingup', image_size=18, action_repeat=8, seed=0)
  policy = py_tf_eager_policy.SavedModelPyTFEagerPolicy(
    str(finished[0] / 'policies' / 'greedy_policy'),
    environment.time_step_spec(),
    environment.action_spec(),
  )
  time_step = environment.reset()
  environment.close()
  untrained = policy.action(time_step).action
  [last] = (finished[0] / 'policies' / 'checkpoints').glob('*_0000000300')  # updates, at the end
  policy.update_from_checkpoint(str(last))
  assert policy.get_train_step() == 300
  assert policy.action(time_step).action != untrained
  first, again = (policy.action(time_step).action for _ in range(2))
  assert first == again and -1 <= first <= 1


def test_the_same_command_shows_a_run_that_has_ended_and_another_is_refused(finished):
  same = run(finished[0], '--seed=3')
  assert same.returncode == 0 and 'has ended' in same.stdout
  assert finished[1].stdout in same.stdout
  other = run(finished[0], '--gin_bindings=Experiment.batch_size = 9')
  assert other.returncode == 2
  assert 'Experiment.batch_size was 8, now 9' in other.stderr


def one_line(process):
  lines = [line for line in process.stderr.splitlines() if line.startswith('error: ')]
  assert process.returncode == 2 and len(lines) == 1, process.stderr[-2000:]
  assert 'Traceback' not in process.stderr
  return lines[0]


@pytest.mark.parametrize(
  'bindings, message',
  [
    (['DOMAIN = "cartpol"'], 'did you mean cartpole'),
    (['TASK = "swingupp"'], 'did you mean swingup'),
    (['Experiment.batch_sise = 3'], 'batch_sise'),
    (['Nothing.at_all = 3'], 'Nothing'),
    (
      ['Experiment.schedule_fn = @WhenConverged', 'WhenConverged.patience = 2'],
      "'WhenConverged.earliest_agent_steps = ...' "
      "--gin_bindings='WhenConverged.latest_agent_steps = ...'",
    ),
    (
      ['Experiment.augmentation_fn = @RandomTranslate'],
      "nothing binds: give --gin_bindings='RandomTranslate.image_size = ...'",
    ),
    (['import my_partz'], "No module named 'my_partz'"),
    (['Chain.parts = (@RandomCrop'], 'gin configuration'),
    (['Experiment.schedule_fn = "AtStep"'], "Experiment.schedule_fn is 'AtStep'; bind what makes"),
    (['Experiment.schedule_fn = @AtStep()'], 'no () behind'),
    (['Experiment.lower_fn = @ControlEncoder()'], 'or leave out the () of @ControlEncoder()'),
    (['AtStep.freeze_at_agent_steps = "250"'], "is '250'; give a whole number"),
    (['Experiment.transfer_from = "/nowhere"'], 'no weights to transfer in /nowhere'),
    (['RandomCrop.image_size = 5'], 'image size 5 is too small'),
    (['RandomCrop.image_size = 50'], 'larger than the rendered image'),
    (['AtStep.freeze_at_agent_steps = 400'], 'freeze_at_agent_steps is 400'),
    (['AtStep.freeze_at_agent_steps = 50'], 'freeze_at_agent_steps is 50'),
    (['Experiment.batch_size = 0'], 'Experiment.batch_size is 0'),
    (['replay_budget = "9KB"'], 'give at least that'),
  ],
)
def test_bad_configuration_is_one_line(tmp_path, bindings, message):
  process = run(tmp_path / 'run', *(f'--gin_bindings={binding}' for binding in bindings))
  assert message in one_line(process)
  assert not (tmp_path / 'run').exists()


def test_missing_gin_file_is_one_line(tmp_path):
  assert 'nowhere.gin' in one_line(run(tmp_path / 'run', '--gin_file=nowhere.gin'))


def test_root_dir_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  assert 'cannot be written' in one_line(run(tmp_path / 'file' / 'run'))


def test_server_that_does_not_answer(tmp_path):
  with socket.create_server(('localhost', 0)) as silent:
    address = f'localhost:{silent.getsockname()[1]}'
    process = run(tmp_path / 'run', f'--replay_server={address}')
  assert f'No replay server answers at {address}' in one_line(process)


def test_external_server(tmp_path):
  """A run at a server that someone else started, one configured otherwise, and one too many."""
  with forks.Process(command(None, module='launch.replay_server')) as server:
    address = f'--replay_server={server.address}'
    other = run(tmp_path / 'other', address, '--gin_bindings=ReplayConfig.block_length = 4')
    assert 'table latents: max_size is' in one_line(other)
    with forks.Process(command(tmp_path / 'run', address)) as process:
      process.prints(ACTS)
      assert 'Another learner publishes' in one_line(run(tmp_path / 'second', address))
      assert process.wait() == 0, process.stderr[-2000:]
    assert server.returncode is None


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_no_server(tmp_path, number):
  root_dir = tmp_path / 'run'
  with forks.Process(command(root_dir)) as process:
    process.prints(ACTS)
    assert len(servers(root_dir)) == 1
    process.send_signal(number)
    assert process.wait(timeout=60) != 0
  deadline = tf.timestamp() + 20
  while servers(root_dir):
    assert tf.timestamp() < deadline
    time.sleep(0.1)


def test_a_dead_server_ends_the_run(tmp_path):
  root_dir = tmp_path / 'run'
  with forks.Process(command(root_dir)) as process:
    process.prints(ACTS)
    [pid] = servers(root_dir)
    os.kill(int(pid), signal.SIGKILL)
    assert process.wait(timeout=120) == 2
    assert 'replay server' in process.stderr.lower() and 'SIGKILL' in process.stderr


@pytest.mark.parametrize(
  'preset, further',
  [
    ('cartpole_swingup_paper', []),
    ('drq_dmc_cpu', []),
    ('sac_ae_dmc_cpu', []),
    ('rad_translate_dmc_cpu', []),
    (
      'rainbow_atari_impala_cpu',
      ['GAME = "Pong"', 'atari.load.max_agent_steps_per_game = 30', 'ReplayConfig.n_step = 8'],
    ),
  ],
)
def test_a_preset_lives_through_its_freeze(tmp_path, preset, further):
  """As it is, but for the number of steps, episodes and the batch."""
  bindings = [
    'Experiment.total_agent_steps = 80',
    'Experiment.initial_random_agent_steps = 64',
    'Experiment.batch_size = 4',
    'Experiment.evaluation_episodes = 1',
    'AtStep.freeze_at_agent_steps = 70',
  ]
  line = [sys.executable, '-m', 'launch.train', f'--root_dir={tmp_path / "run"}']
  line += [f'--gin_file=gin_configs/{preset}.gin']
  line += [f'--gin_bindings={binding}' for binding in [*bindings, *further]]
  process = forks.run(line)
  assert process.returncode == 0, process.stderr[-2000:]
  rows = list(csv.DictReader((tmp_path / 'run' / 'results.csv').open()))
  assert [(row['phase'], row['agent_steps']) for row in rows] == [
    ('pixels', '70'),
    ('latents', '80'),
  ]
