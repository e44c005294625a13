"""The control suite through a camera, against raw dm_control environments stepped by hand."""

import difflib
from typing import List

from dm_control import mujoco, suite
from dm_control.rl import control
from dm_control.suite import cartpole
import gin
import numpy as np
import pytest
from tf_agents.environments import utils
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from seer_tf.environments import dm_control

SIZE = 24


@pytest.fixture(name='load')
def fixture_load():
  """`dm_control.load` of small frames, closing whatever it loaded."""
  loaded = []

  def load(domain='cartpole', task='swingup', **kwargs):
    loaded.append(dm_control.load(domain, task, **{'image_size': SIZE, **kwargs}))
    return loaded[-1]

  yield load
  for env in loaded:
    env.close()


class Recompiled(cartpole.Balance):
  """Compiles its model anew for each episode, as tasks with random bodies do."""

  def initialize_episode(self, physics):
    physics.reload_from_xml_string(*cartpole.get_model_and_assets())
    super().initialize_episode(physics)


def actions(env, count: int, seed: int = 0) -> List[np.ndarray]:
  rng = np.random.default_rng(seed)
  return [array_spec.sample_spec_nest(env.action_spec(), rng) for _ in range(count)]


def play(env, count: int) -> List[ts.TimeStep]:
  return [env.reset(), *(env.step(action) for action in actions(env, count))]


def assert_same(run: List[ts.TimeStep], other: List[ts.TimeStep]) -> None:
  assert len(run) == len(other)
  for time_step, expected in zip(run, other):
    for value, value_expected in zip(time_step, expected):
      np.testing.assert_array_equal(value, value_expected)


def test_specs(load):
  env = load('walker', 'walk', image_size=40, frame_stack=2, action_repeat=3)
  observation, action = env.observation_spec(), env.action_spec()
  assert (observation.shape, observation.dtype) == ((40, 40, 6), np.uint8)
  assert (action.shape, action.dtype) == ((6,), np.float32)
  assert isinstance(action, array_spec.BoundedArraySpec)
  np.testing.assert_array_equal(action.minimum, -1)
  np.testing.assert_array_equal(action.maximum, 1)
  assert env.frames_per_agent_step == 3
  assert not env.batched


def test_bounds_are_the_tasks(load):
  action = load('quadruped', 'walk').action_spec()
  np.testing.assert_allclose(action.maximum, suite.load('quadruped', 'walk').action_spec().maximum)
  assert len(set(action.maximum)) > 1


def test_keeps_the_contract_of_tf_agents(load):
  utils.validate_py_environment(load(action_repeat=50), episodes=2)


@pytest.mark.parametrize('domain', sorted(suite.TASKS_BY_DOMAIN))
def test_every_domain(load, domain):
  run = play(load(domain, suite.TASKS_BY_DOMAIN[domain][0]), 1)
  assert run[1].observation.std() > 1


def test_frames_and_rewards_equal_a_run_by_hand(load):
  repeat = 5
  env = load('cartpole', 'balance', action_repeat=repeat, camera_id=1, seed=7)
  raw = suite.load('cartpole', 'balance', task_kwargs={'random': 7})
  raw.physics.model.vis.quality.shadowsize = 0
  raw.physics.model.vis.quality.offsamples = 0

  def by_hand():
    return raw.physics.render(SIZE, SIZE, camera_id=1)

  raw.reset()
  frames = [by_hand()] * 3
  time_step = env.reset()
  np.testing.assert_array_equal(time_step.observation, np.concatenate(frames, axis=-1))
  for action in actions(env, 6):
    time_step = env.step(action)
    reward = sum(raw.step(action).reward for _ in range(repeat))
    frames.append(by_hand())
    np.testing.assert_array_equal(time_step.observation, np.concatenate(frames[-3:], axis=-1))
    assert time_step.reward == pytest.approx(reward, rel=1e-6)
    assert 1 < time_step.reward <= repeat
  assert not np.array_equal(frames[-1], frames[-2])
  raw.physics.free()


def test_one_frame_is_drawn_per_agent_step(load, monkeypatch):
  drawn = []
  render = mujoco.Camera.render

  def counting(camera, *args, **kwargs):
    drawn.append(camera)
    return render(camera, *args, **kwargs)

  monkeypatch.setattr(mujoco.Camera, 'render', counting)
  env = load(action_repeat=8)
  assert len(drawn) == 0
  play(env, 10)
  assert len(drawn) == 11


@pytest.mark.parametrize('action_repeat, agent_steps', [(8, 125), (48, 21)])
def test_time_limit_is_last_with_discount_1(load, action_repeat, agent_steps):
  env = load(action_repeat=action_repeat)
  first, *run = play(env, agent_steps)
  assert first.is_first()
  assert not any(time_step.is_last() for time_step in run[:-1])
  assert run[-1].is_last()
  assert all(time_step.discount == 1 for time_step in run)
  # 1,000 frames of 0.01 seconds; 48 does not divide them.
  assert env.env_frames == 1000

  following = env.step(run[-1].reward.reshape(1))
  assert following.is_first()
  newest = following.observation[..., -3:]
  np.testing.assert_array_equal(following.observation, np.concatenate([newest] * 3, axis=-1))
  assert env.env_frames == 1000


def test_terminal_state_is_last_with_discount_0(load):
  env = load('lqr', 'lqr_2_1', action_repeat=4)
  env.reset()
  # The task ends where everything rests at the origin, in the first of the four frames.
  with env.physics.reset_context():
    env.physics.data.qpos[:] = 0
  time_step = env.step(np.zeros(1, np.float32))
  assert time_step.is_last()
  assert time_step.discount == 0
  assert time_step.reward == 1  # that of one frame
  assert env.env_frames == 1


def test_seeds(load):
  run = play(load(seed=3), 5)
  assert_same(run, play(load(seed=3), 5))
  assert not np.array_equal(run[0].observation, play(load(seed=4), 0)[0].observation)
  unseeded = [load('cartpole', 'balance').reset().observation for _ in range(2)]
  assert not np.array_equal(*unseeded)


def test_environments_do_not_disturb_each_other(load):
  alone = play(load(seed=1), 6)
  alone_other = play(load('walker', 'walk', seed=2, image_size=40, shadows=True), 6)

  env = load(seed=1)
  other = load('walker', 'walk', seed=2, image_size=40, shadows=True)
  run, run_other = [env.reset()], [other.reset()]
  for action, action_other in zip(actions(env, 6), actions(other, 6)):
    run.append(env.step(action))
    run_other.append(other.step(action_other))
  assert_same(run, alone)
  assert_same(run_other, alone_other)


def test_closing_one_environment_leaves_the_other(load):
  env = load(seed=1)
  other = load(seed=1)
  run, run_other = play(env, 2), play(other, 1)
  other.close()
  run += [env.step(action) for action in actions(env, 2, seed=5)]
  assert_same(run[:2], run_other)
  assert not np.array_equal(run[-1].observation, run[-2].observation)


def test_close_frees_the_context_and_may_be_repeated(load):
  env = load()
  env.reset()
  context = env.physics.contexts.gl
  assert not context.terminated
  env.close()
  assert context.terminated
  env.close()


def test_shadows_and_multisampling(load):
  plain, shadows = load(seed=0), load(seed=0, shadows=True)
  frame, frame_with_shadows = plain.reset().observation, shadows.reset().observation
  assert plain.physics.contexts.mujoco.ptr.shadowSize == 0
  assert plain.physics.contexts.mujoco.ptr.offSamples == 0
  assert shadows.physics.contexts.mujoco.ptr.shadowSize > 0
  raw = suite.load('cartpole', 'swingup', task_kwargs={'random': 0})
  raw.reset()
  as_published = raw.physics.render(SIZE, SIZE, camera_id=0)
  raw.physics.free()
  np.testing.assert_array_equal(frame_with_shadows[..., -3:], as_published)
  assert not np.array_equal(frame, frame_with_shadows)


def test_settings_hold_when_the_model_is_compiled_anew():
  simulator = control.Environment(
    cartpole.Physics.from_xml_string(*cartpole.get_model_and_assets()),
    Recompiled(swing_up=True, sparse=False, random=0),
  )
  env = dm_control.from_simulator(simulator, SIZE, frame_stack=1, action_repeat=1)
  frames = []
  for _ in range(3):
    model = env.physics.model
    frames.append(env.reset().observation)
    assert env.physics.model is not model
    context = env.physics.contexts.mujoco.ptr
    assert (context.shadowSize, context.offSamples, context.offWidth) == (0, 0, SIZE)
    np.testing.assert_array_equal(
      frames[-1], env.physics.render(SIZE, SIZE, camera_id=0), 'a stale camera'
    )
  assert not np.array_equal(frames[0], frames[1])
  env.close()


def test_frames_may_be_larger_than_the_models_buffer(load):
  env = load(image_size=700, frame_stack=1)
  assert env.reset().observation.shape == (700, 700, 3)


def test_camera_by_name(load):
  by_name, by_number = load(seed=0, camera_id='lookatcart'), load(seed=0, camera_id=1)
  np.testing.assert_array_equal(by_name.reset().observation, by_number.reset().observation)


@pytest.mark.parametrize(
  'kwargs, words',
  [
    ({'domain': 'cartpol'}, ["unknown domain: 'cartpol'", 'did you mean cartpole?', 'walker']),
    ({'domain': 'CartPole'}, ['did you mean cartpole']),
    ({'domain': 'atari'}, ["'atari'", 'acrobot']),
    ({'task': 'swing_up'}, ["'swing_up'", "'cartpole'", 'swingup', 'balance_sparse']),
    ({'camera_id': 2}, ['camera_id: 2', 'lookatcart']),
    ({'camera_id': 'side'}, ["camera_id: 'side'", 'lookatcart']),
    ({'camera_id': -2}, ['camera_id: -2']),
    ({'image_size': 0}, ['image_size', 'pixels', 'got 0']),
    ({'image_size': 84.0}, ['image_size', 'got 84.0']),
    ({'frame_stack': 0}, ['frame_stack', 'got 0']),
    ({'action_repeat': -4}, ['action_repeat', 'got -4']),
  ],
)
def test_bad_input_is_one_clear_line(load, kwargs, words):
  with pytest.raises(ValueError) as raised:
    load(**kwargs)
  message = str(raised.value).split("\n  In call to configurable 'load'")[0]  # added by gin
  assert '\n' not in message
  for word in words:
    assert word in message


def test_near_matches_come_first_for_every_typing_error(load):
  for domain, task in suite.ALL_TASKS:
    wrong = domain[:-1] + '#'
    assert difflib.get_close_matches(wrong, suite.TASKS_BY_DOMAIN)
    with pytest.raises(ValueError, match=f'did you mean .*{domain}'):
      load(wrong, task)


def test_gin_binds_every_parameter():
  gin.parse_config("""
    dm_control.load.domain = 'cartpole'
    dm_control.load.task = 'balance'
    dm_control.load.image_size = 31
    dm_control.load.frame_stack = 2
    dm_control.load.action_repeat = 6
    dm_control.load.camera_id = 1
    dm_control.load.shadows = True
  """)
  try:
    env = dm_control.load()
    assert env.observation_spec().shape == (31, 31, 6)
    assert env.frames_per_agent_step == 6
    env.reset()
    assert env.physics.contexts.mujoco.ptr.shadowSize > 0
    env.close()
  finally:
    gin.clear_config()
