"""The wrappers against a replay of each episode in plain Python."""

from typing import List

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
from tf_agents.environments import py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from seer_tf.environments import wrappers

HEIGHT, WIDTH = 2, 3


class Flipbook(py_environment.PyEnvironment):
  """Episodes of given lengths; frame number f of the whole run is drawn as f, f + 1, f + 2.

  The reward of a frame is its number and the discount at the end of an episode is 0.5. Like a
  fast renderer it draws every frame into the same buffer.
  """

  def __init__(self, lengths: List[int]):
    super().__init__()
    self._lengths = iter(lengths)
    self._left = None
    self._buffer = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    self.frame = -1
    self.renders = 0

  def observation_spec(self):
    return array_spec.ArraySpec((), np.float32)

  def action_spec(self):
    return array_spec.BoundedArraySpec((), np.float32, 0.0, 1.0)

  def _reset(self):
    self._left = next(self._lengths)
    self.frame += 1
    return ts.restart(np.float32(self.frame))

  def _step(self, action):
    if self._left == 0:
      return self.reset()
    self._left -= 1
    self.frame += 1
    observation = np.float32(self.frame)
    if self._left == 0:
      time_step = ts.termination(observation, self.frame)
      return time_step._replace(discount=np.float32(0.5))
    return ts.transition(observation, self.frame)

  def render(self, mode='rgb_array'):
    self.renders += 1
    self._buffer[:] = self.frame + np.arange(3)
    return self._buffer


def drawing(frame: int) -> np.ndarray:
  return np.broadcast_to(np.arange(frame, frame + 3, dtype=np.uint8), (HEIGHT, WIDTH, 3))


def wrap(simulator: Flipbook, action_repeat: int, frame_stack: int) -> wrappers.FrameStack:
  env = wrappers.ActionRepeat(simulator, action_repeat)
  env = wrappers.PixelObservation(env, HEIGHT, WIDTH)
  return wrappers.FrameStack(env, frame_stack)


@hypothesis.given(
  lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
  action_repeat=st.integers(1, 4),
  frame_stack=st.integers(1, 4),
)
def test_whole_run_equals_reference(lengths, action_repeat, frame_stack):
  simulator = Flipbook(lengths)
  env = wrap(simulator, action_repeat, frame_stack)
  assert simulator.renders == 0

  time_steps = 0
  env_frames = 0
  first = 0  # number of the episode's first frame
  kept = []
  for length in lengths:
    shown = [first] * frame_stack
    done = held = 0  # frames of this episode, of the agent step just taken
    while True:
      # The very first call resets whatever the action, later ones at the end of an episode.
      time_step = env.step(np.float32(0))
      kept.append((time_step.observation, [*shown[-frame_stack:]]))
      time_steps += 1
      assert time_step.observation.dtype == np.uint8
      assert time_step.reward.dtype == np.float32
      if done == 0:
        assert time_step.is_first()
        assert (time_step.reward, time_step.discount) == (0, 1)
      else:
        assert time_step.is_last() == (done == length)
        assert time_step.reward == sum(range(shown[-1] - held + 1, shown[-1] + 1))
        assert time_step.discount == (0.5 if done == length else 1)
      assert env.env_frames == env_frames
      if done == length:
        break
      held = min(action_repeat, length - done)
      done += held
      env_frames += held
      shown.append(first + done)
    first += length + 1

  assert simulator.renders == time_steps
  # Compared at the end: a later frame must not be drawn into an observation already handed out.
  for observation, frames in kept:
    expected = np.concatenate([drawing(frame) for frame in frames], axis=-1)
    np.testing.assert_array_equal(observation, expected)


def test_reset_in_mid_episode_forgets_older_frames():
  env = wrap(Flipbook([5, 5]), action_repeat=2, frame_stack=3)
  env.reset()
  env.step(np.float32(0))
  time_step = env.reset()
  assert time_step.is_first()
  np.testing.assert_array_equal(time_step.observation, np.concatenate([drawing(3)] * 3, axis=-1))
  assert env.env_frames == 2


def test_specs():
  env = wrap(Flipbook([5]), action_repeat=2, frame_stack=4)
  spec = env.observation_spec()
  assert spec.shape == (HEIGHT, WIDTH, 12)
  assert spec.dtype == np.uint8
  assert (spec.minimum, spec.maximum) == (0, 255)
  assert array_spec.check_arrays_nest(env.reset().observation, spec)
  assert env.frames_per_agent_step == 2
  assert env.frame_stack == 4


@pytest.mark.parametrize('value', [0, -1, 2.0, '3', None])
def test_counts_must_be_positive_whole_numbers(value):
  with pytest.raises(ValueError, match=f'action_repeat .*at least 1, got {value!r}'):
    wrappers.ActionRepeat(Flipbook([1]), value)
  env = wrappers.PixelObservation(Flipbook([1]), HEIGHT, WIDTH)
  with pytest.raises(ValueError, match=f'frame_stack .*at least 1, got {value!r}'):
    wrappers.FrameStack(env, value)


def test_only_frames_are_stacked():
  with pytest.raises(ValueError, match=r'\[height, width, channels\]'):
    wrappers.FrameStack(Flipbook([1]), 3)
