"""Tests of `launch.train` as a process on Gymnasium environments: a user's own, and bad input."""

import csv
import functools
import sys

import pytest

from seer_tf.training import records
from tests.launch import forks

DISCRETE, CONTINUOUS, ATARI = (
  f'gin_configs/{name}_cpu.gin' for name in ('rainbow_gymnasium', 'sac_gymnasium', 'rainbow_atari')
)
# An environment that only a module of the tests registers, of 4x6 pixels, scaled up.
OWN = [
  'ID = "seer/Counter-v0"',
  'gymnasium.load.register_modules = ("tests.environments.counters",)',
  'gymnasium.load.image_size = 27',
]
TINY = [
  'Experiment.total_agent_steps = 90',
  'Experiment.initial_random_agent_steps = 21',
  'Experiment.batch_size = 4',
  'Experiment.evaluation_period = 40',
  'Experiment.evaluation_episodes = 2',
  'AtStep.freeze_at_agent_steps = 50',
  'ReplayConfig.block_length = 8',
]


@pytest.fixture(name='train')
def fixture_train(tmp_path):
  """`launch.train` of a preset with bindings; returns its process and its root_dir."""

  def train(preset, *bindings, run=forks.run):
    root_dir = tmp_path / 'run'
    command = [sys.executable, '-m', 'launch.train', f'--gin_file={preset}']
    command += [f'--root_dir={root_dir}', *(f'--gin_bindings={line}' for line in bindings)]
    return run(command), root_dir

  return train


@pytest.mark.parametrize(
  'preset, bindings, least, most',
  [
    # Five steps an episode, of which each rewards with the action: 5, 6 or 7, or within bounds.
    (DISCRETE, ['QHead.hidden = 8'], 25, 35),
    (
      CONTINUOUS,
      [
        'gymnasium.load.kwargs = {"actions": "box", "observed": "vector"}',
        'gymnasium.load.action_repeat = 1',
        'RandomCrop.image_size = 19',
        'ControlEncoder.filters = (4, 4)',
        'critic_head.hidden = (8,)',
        'actor_head.hidden = (8,)',
      ],
      5 * 298,
      5 * 712,
    ),
  ],
)
def test_own_environment_lives_through_the_freeze(train, preset, bindings, least, most):
  process, root_dir = train(preset, *OWN, *TINY, *bindings)
  assert process.returncode == 0, process.stderr[-2000:]
  rows = list(csv.DictReader((root_dir / 'results.csv').open()))
  assert [(row['phase'], int(row['agent_steps'])) for row in rows] == [
    ('pixels', 40),
    ('pixels', 50),
    ('latents', 80),
    ('latents', 90),
  ]
  for row in rows:
    returns = [float(value) for value in row['returns'].split()]
    assert len(returns) == 2 and all(least <= value <= most for value in returns), row
    assert row['env_frames'] == row['agent_steps']
  config = (root_dir / 'config.gin').read_text()
  assert "gymnasium.load.register_modules = ('tests.environments.counters',)" in config


def test_game_leaves_scores_by_each_clock_and_costs(train):
  game = ['GAME = "Pong"', 'atari.load.max_agent_steps_per_game = 30', 'QHead.hidden = 8']
  game += ['ReplayConfig.n_step = 8']
  process, root_dir = train(ATARI, *TINY, *game)
  assert process.returncode == 0, process.stderr[-2000:]
  rows = list(csv.DictReader((root_dir / 'results.csv').open()))
  assert [row['phase'] for row in rows] == ['pixels', 'pixels', 'latents', 'latents']
  values = records.scalars(root_dir)
  for clock in ('env_frames', 'agent_steps', 'updates'):
    expected = [(int(row[clock]), float(row['mean_return'])) for row in rows]
    assert values[f'Evaluation by {clock}/mean_return'] == expected
  for name in ('flops', 'seconds', 'replay_bytes', 'updates_per_second', 'collected_return'):
    assert max(step for step, _ in values[f'Costs by agent_steps/{name}']) == 80
  assert [int(row['env_frames']) for row in rows] == [4 * int(row['agent_steps']) for row in rows]


@pytest.mark.parametrize(
  'preset, bindings, words',
  [
    (ATARI, ['GAME = "Sequest"'], ["unknown game: 'Sequest'", 'did you mean Seaquest?']),
    (ATARI, ['GAME = "seaquest"'], ['did you mean Seaquest?']),
    (DISCRETE, ['ID = "CartPol-v1"'], ["'CartPol-v1'", 'did you mean CartPole-v1']),
    (DISCRETE, [*OWN, 'ID = "seer/Countr-v0"'], ['did you mean seer/Counter-v0']),
    (DISCRETE, ['ID = "seer/Counter-v0"'], ['seer/Counter-v0', 'register_modules']),
    (
      DISCRETE,
      ['gymnasium.load.register_modules = ("my_package.nowhere",)'],
      ["register_modules names 'my_package.nowhere', which cannot be imported"],
    ),
    (
      DISCRETE,
      [*OWN, 'ID = "seer/Unseen-v0"', 'gymnasium.load.kwargs = {"observed": "vector"}'],
      ['seer/Unseen-v0 shows no pixels', 'rgb_array'],
    ),
    (
      DISCRETE,
      [*OWN, 'gymnasium.load.kwargs = {"actions": "box"}'],
      ['SeerDqnAgent needs one discrete action', '@SeerSacAgent'],
    ),
    (
      CONTINUOUS,
      [*OWN, 'RandomCrop.image_size = 19'],
      ['SeerSacAgent needs continuous actions', '@SeerDqnAgent'],
    ),
    (ATARI, ['QHead.atoms = 1'], ['QHead.atoms is 1;']),
    (ATARI, ['QHead.atoms = 10.5'], ['QHead.atoms is 10.5;']),
    (ATARI, ['QHead.v_min = 10', 'QHead.v_max = -10'], ['QHead.v_min is 10 and', 'v_max -10']),
    (
      ATARI,
      ['Experiment.initial_random_agent_steps = 20'],
      ['initial_random_agent_steps is 20', 'must hold 64 rows', 'ReplayConfig.n_step = 20'],
    ),
    (ATARI, ['QHead.v_max = 1e999'], ['QHead.v_max inf;']),
  ],
)
def test_bad_input_is_one_line_before_anything_is_started(train, preset, bindings, words):
  check_refused(*train(preset, *bindings), words)


def test_missing_extra_is_named(run, train, tmp_path):
  """Whether Box2D is installed or not: a module of its name goes before it that cannot be had."""
  (tmp_path / 'Box2D.py').write_text('raise ImportError("no Box2D here")\n')
  run_there = functools.partial(run, env={'PYTHONPATH': str(tmp_path)})
  process, root_dir = train('gin_configs/car_racing_cpu.gin', run=run_there)
  check_refused(process, root_dir, ['CarRacing-v3', 'pip install -e ".[box2d]"'])


def check_refused(process, root_dir, words):
  """Exit code 2, one line on standard error with all `words`, and no run on disk."""
  assert process.returncode == 2, process.stderr[-2000:]
  assert process.stderr.startswith('error: ') and process.stderr.count('\n') == 1, process.stderr
  for word in words:
    assert word in process.stderr
  assert process.stdout == '' and not root_dir.exists()
