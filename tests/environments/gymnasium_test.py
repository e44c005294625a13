"""Gymnasium environments of each kind of observation, action and end, against what they drew."""

import importlib.util
import sys

from absl import logging
import cv2
import gin
import gymnasium as upstream
import numpy as np
import pytest
from tf_agents.environments import utils

from seer_tf.environments import gymnasium
from tests.environments import counters

COUNTERS = ('tests.environments.counters',)
HAS_BOX2D = importlib.util.find_spec('Box2D') is not None
HAS_IMAGEIO = importlib.util.find_spec('imageio') is not None


@pytest.fixture(name='load')
def fixture_load():
  """`gymnasium.load` of a counter, closing whatever it loaded."""
  loaded = []

  def load(id='seer/Counter-v0', frame_stack=3, seed=None, **arguments):
    names = ('register_modules', 'image_key', 'image_size', 'action_repeat')
    ours = {name: arguments.pop(name) for name in names if name in arguments}
    ours.setdefault('register_modules', COUNTERS)
    loaded.append(gymnasium.load(id, kwargs=arguments, frame_stack=frame_stack, seed=seed, **ours))
    return loaded[-1]

  yield load
  for env in loaded:
    env.close()


def stack(counts, channels):
  return np.concatenate([counters.drawing(count, channels) for count in counts], axis=-1)


def one_line(raised):
  message = str(raised.value).split("\n  In call to configurable 'load'")[0]  # added by gin
  assert '\n' not in message
  return message


@pytest.mark.parametrize(
  'observed, image_key, channels, shown',
  [
    ('rgb', None, 3, 'its observation'),
    ('grey', None, 1, 'its observation'),
    ('one image', None, 3, "its observation, entry 'camera'"),
    ('one image', 'camera', 3, "its observation, entry 'camera'"),
    ('two images', 'camera', 3, "its observation, entry 'camera'"),
    ('two images', 'depth', 1, "its observation, entry 'depth'"),
    ('vector', None, 3, 'what it renders'),
    ('planar', None, 3, 'what it renders'),
    ('floats', None, 3, 'what it renders'),
  ],
)
def test_each_kind_of_observation_shows_every_frame(
  load, caplog, observed, image_key, channels, shown
):
  logging.set_verbosity(logging.INFO)
  try:
    env = load(observed=observed, image_key=image_key)
  finally:
    logging.set_verbosity(logging.WARNING)
  said = f'pixels ({counters.HEIGHT}, {counters.WIDTH}, {channels}) are {shown}.'
  assert said in caplog.text

  spec = env.observation_spec()
  assert spec.shape == (counters.HEIGHT, counters.WIDTH, 3 * channels)
  assert spec.dtype == np.uint8
  time_steps = [env.reset(), *(env.step(0) for _ in range(7))]
  for time_step, counts in zip(
    time_steps,
    [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [0, 0, 0], [0, 0, 1]],
  ):
    assert time_step.observation.dtype == np.uint8
    np.testing.assert_array_equal(time_step.observation, stack(counts, channels))
  assert [int(time_step.step_type) for time_step in time_steps] == [0, 1, 1, 1, 1, 2, 0, 1]


@pytest.mark.parametrize('observed', ['rgb', 'two images', 'vector'])
@pytest.mark.parametrize('actions', ['discrete', 'box', 'box64'])
def test_keeps_the_contract_of_tf_agents(load, observed, actions):
  image_key = 'depth' if observed == 'two images' else None
  env = load(observed=observed, actions=actions, image_key=image_key)
  utils.validate_py_environment(env, episodes=2)


@pytest.mark.parametrize(
  'id, truncated, end, discount',
  [
    ('seer/Counter-v0', False, 5, 0),
    ('seer/Counter-v0', True, 5, 0),  # terminated in the very step of its limit
    ('seer/ShortCounter-v0', False, 3, 1),
  ],
)
def test_termination_and_truncation(load, id, truncated, end, discount):
  env = load(id, truncated=truncated)
  env.reset()
  for steps in range(1, end + 1):
    time_step = env.step(0)
    assert time_step.is_last() == (steps == end)
    assert time_step.discount == (discount if steps == end else 1)
    assert time_step.reward == 5
  assert env.step(0).is_first()
  assert env.env_frames == end


def test_discrete_actions_count_from_zero(load):
  env = load(actions='discrete')
  spec = env.action_spec()
  assert (spec.shape, spec.dtype, spec.minimum, spec.maximum) == ((), np.int64, 0, 2)
  env.reset()
  assert [env.step(np.int32(action)).reward for action in range(3)] == [5, 6, 7]


def test_box_actions_are_rescaled_to_the_bounds(load):
  env = load(actions='box')
  spec = env.action_spec()
  assert (spec.shape, spec.dtype) == ((3,), np.float32)
  assert (spec.minimum == -1).all() and (spec.maximum == 1).all()
  env.reset()
  # Bounds are [-2, 2], [0, 1] and [3, 7]; a reward is their sum with the weights 1, 10 and 100.
  for action, reward in [
    ([-1, -1, -1], 298),
    ([1, 1, 1], 712),
    ([0, 0, 0], 505),
    ([0.5, -0.5, 0], 1 + 2.5 + 500),
    ([1 + 1e-6] * 3, 712),  # a squashed action may round to beyond its bound
  ]:
    np.testing.assert_allclose(env.step(np.float32(action)).reward, reward)


def test_action_repeat_sums_counts_and_stops_at_the_end(load):
  env = load(action_repeat=3)
  env.reset()
  time_step = env.step(1)
  assert (env.frames_per_agent_step, env.env_frames, time_step.reward) == (3, 3, 18)
  np.testing.assert_array_equal(time_step.observation, stack([0, 0, 3], 3))
  time_step = env.step(1)
  assert time_step.is_last()
  assert (env.env_frames, time_step.reward) == (5, 12)
  np.testing.assert_array_equal(time_step.observation, stack([0, 3, 5], 3))
  env.reset()
  assert env.env_frames == 5


@pytest.mark.parametrize('observed, channels', [('rgb', 3), ('grey', 1), ('vector', 3)])
def test_frames_are_scaled_by_area(load, observed, channels):
  env = load(observed=observed, image_size=2, frame_stack=1)
  assert env.observation_spec().shape == (2, 2, channels)
  frame = counters.drawing(0, channels).astype(np.float64)
  means = frame.reshape(2, counters.HEIGHT // 2, 2, counters.WIDTH // 2, channels).mean((1, 3))
  observation = env.reset().observation
  assert observation.shape == (2, 2, channels)
  np.testing.assert_allclose(observation, means, atol=0.5)


@pytest.mark.parametrize('observed', ['rgb', 'vector'])
def test_seeds(load, observed):
  def starts(seed):
    env = load(observed=observed, random_start=True, seed=seed)
    return [env.reset().observation.tobytes() for _ in range(6)]

  assert starts(3) == starts(3)
  assert starts(3) != starts(4)
  assert len(set(starts(3))) > 1  # only the first reset is seeded
  assert starts(None) != starts(None)


def test_specs_render_nothing_when_the_size_is_given(load):
  env = load('seer/Unpainted-v0', observed='vector', image_size=7)
  assert env.observation_spec().shape == (7, 7, 9)
  with pytest.raises(ValueError, match='should render uint8'):
    env.reset()


@pytest.mark.filterwarnings('ignore:.*is out of date:DeprecationWarning')
@pytest.mark.parametrize(
  'arguments, words',
  [
    ({'id': 'seer/Countr-v0'}, ["'seer/Countr-v0'", 'did you mean seer/Counter-v0', 'register_']),
    ({'id': 'cartpole-v1'}, ['did you mean CartPole-v1']),
    ({'id': 'CarRacing-v1'}, ['CarRacing-v3']),
    ({'id': 'no id'}, ["'no id'", 'Malformed']),
    ({'register_modules': ('no_such_module',)}, ['register_modules', "'no_such_module'"]),
    ({'id': 'seer/Unequipped-v0'}, ['seer/Unequipped-v0', 'not installed', 'no_such_package']),
    ({'colour': 'red'}, ["cannot make 'seer/Counter-v0'", "'colour'"]),
    ({'id': 'seer/Unseen-v0', 'observed': 'vector'}, ['shows no pixels', '(2,)', 'rgb_array']),
    ({'id': 'seer/Unseen-v0', 'observed': 'planar'}, ['shows no pixels', '(3, 4, 6)']),
    ({'id': 'seer/Unpainted-v0', 'observed': 'vector'}, ['should render uint8', 'NoneType']),
    ({'observed': 'two images'}, ['several', 'image_key', 'camera, depth']),
    ({'observed': 'two images', 'image_key': 'dept'}, ["'dept'", 'did you mean depth']),
    ({'observed': 'two images', 'image_key': 'speed'}, ["'speed'", 'camera, depth']),
    ({'observed': 'rgb', 'image_key': 'camera'}, ["no image 'camera'", 'none']),
    ({'actions': 'unbounded'}, ['seer/Counter-v0', 'finite bounds', '-inf']),
    ({'actions': 'half-bounded'}, ['finite bounds']),
    ({'actions': 'whole-numbers'}, ['Discrete or a Box of floats', 'int32']),
    ({'actions': 'several'}, ['Discrete or a Box of floats', 'MultiDiscrete']),
    ({'image_size': 0}, ['image_size', 'got 0']),
    ({'frame_stack': 0}, ['frame_stack', 'got 0']),
    ({'action_repeat': 1.5}, ['action_repeat', 'got 1.5']),
  ],
)
def test_bad_input_is_one_clear_line(load, arguments, words):
  with pytest.raises(ValueError) as raised:
    load(**arguments)
  for word in words:
    assert word in one_line(raised)


@pytest.mark.parametrize(
  'id, extra, installed',
  [('CarRacing-v3', 'box2d', HAS_BOX2D), ('HalfCheetah-v5', 'mujoco', HAS_IMAGEIO)],
)
def test_missing_extra_is_named_and_an_installed_one_plays(id, extra, installed):
  if installed:
    env = gymnasium.load(id, image_size=32, seed=1)
    assert env.reset().observation.std() > 5
    assert env.step(env.action_spec().maximum + np.zeros(env.action_spec().shape)).is_mid()
    env.close()
  else:
    with pytest.raises(ValueError) as raised:
      gymnasium.load(id)
    assert f'seer_tf[{extra}]' in one_line(raised)


@pytest.mark.filterwarnings('ignore:pkg_resources is deprecated:DeprecationWarning')
def test_a_real_environment_of_vectors_is_rendered():
  env = gymnasium.load('CartPole-v1', image_size=48, frame_stack=2, seed=7)
  raw = upstream.make('CartPole-v1', render_mode='rgb_array')
  raw.reset(seed=7)
  observation = env.reset().observation
  assert observation.shape == (48, 48, 6)
  np.testing.assert_array_equal(observation[..., :3], observation[..., 3:])
  for _ in range(5):
    time_step = env.step(1)
    raw.step(1)
  before, now = np.split(time_step.observation, 2, axis=-1)
  assert not np.array_equal(before, now)
  expected = cv2.resize(raw.render(), (48, 48), interpolation=cv2.INTER_AREA)
  np.testing.assert_array_equal(now, expected)
  env.close()
  raw.close()


def test_prints_nothing(run):
  code = (
    'from seer_tf.environments import gymnasium\n'
    "env = gymnasium.load('CartPole-v1', image_size=48)\n"
    'env.reset()\n'
  )
  # This process has SDL_AUDIODRIVER from the import above; the child must do without.
  command = ['env', '-u', 'SDL_AUDIODRIVER', sys.executable, '-c', code]
  result = run(command, env={'TF_CPP_MIN_LOG_LEVEL': '3'})
  assert (result.returncode, result.stdout, result.stderr) == (0, '', '')


def test_gin_binds_every_parameter():
  gin.parse_config("""
    gymnasium.load.id = 'seer/Counter-v0'
    gymnasium.load.register_modules = ('tests.environments.counters',)
    gymnasium.load.kwargs = {'observed': 'two images'}
    gymnasium.load.image_key = 'depth'
    gymnasium.load.image_size = 5
    gymnasium.load.frame_stack = 2
    gymnasium.load.action_repeat = 4
  """)
  try:
    env = gymnasium.load(seed=1)
    assert env.observation_spec().shape == (5, 5, 2)
    assert (env.frame_stack, env.frames_per_agent_step) == (2, 4)
    env.close()
  finally:
    gin.clear_config()
