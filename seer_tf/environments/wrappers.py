"""Wrappers that turn a simulator into an environment of stacked pixels, whatever the simulator.

Their order is fixed by what a frame costs: the action is repeated below the renderer, so that one
frame is drawn per agent step, and frames are stacked above it.

    env = FrameStack(PixelObservation(ActionRepeat(simulator, 4), 84, 84), 3)
"""

import collections
import difflib
import numbers
from typing import Iterable

import numpy as np
from tf_agents.environments import py_environment, wrappers
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts


def check_positive(name: str, value: int, unit: str) -> int:
  """Returns `value`, or raises ValueError unless it is a whole number of at least 1."""
  if not isinstance(value, numbers.Integral) or value < 1:
    raise ValueError(f'{name} must be a whole number of {unit}, at least 1, got {value!r}')
  return int(value)


def did_you_mean(name: str, known: Iterable[str]) -> str:
  """Words that suggest the names most like `name`, whatever their case; empty if none is."""
  by_lower_case = {str(other).lower(): str(other) for other in known}
  near = difflib.get_close_matches(str(name).lower(), by_lower_case, n=3)
  return f'did you mean {" or ".join(by_lower_case[key] for key in near)}? ' if near else ''


class ActionRepeat(wrappers.PyEnvironmentBaseWrapper):
  """Repeats each action, sums the rewards and counts simulator frames.

  An agent step ends early with its episode. Unlike TF-Agents' wrapper of this name it counts, and
  it takes an action repeat of 1.

  Attributes:
    frames_per_agent_step: simulator frames of a full agent step.
    env_frames: simulator frames since this wrapper was made (resets are not frames).
  """

  def __init__(self, env: py_environment.PyEnvironment, action_repeat: int):
    super().__init__(env)
    self.frames_per_agent_step = check_positive('action_repeat', action_repeat, 'simulator frames')
    self.env_frames = 0

  def _step(self, action):
    rewards = []
    for _ in range(self.frames_per_agent_step):
      time_step = self._env.step(action)
      if time_step.is_first():  # The episode was over: this call began the next one.
        return time_step
      rewards.append(time_step.reward)
      if time_step.is_last():
        break
    self.env_frames += len(rewards)
    return time_step._replace(reward=np.asarray(sum(rewards), np.float32))


class PixelObservation(wrappers.PyEnvironmentBaseWrapper):
  """Replaces the observation by what `env.render()` shows: uint8 [height, width, channels].

  Renders once for each `reset` and `step`, and not before the first of them.
  """

  def __init__(self, env: py_environment.PyEnvironment, height: int, width: int, channels: int = 3):
    super().__init__(env)
    self._observation_spec = array_spec.BoundedArraySpec(
      (height, width, channels), np.uint8, minimum=0, maximum=255, name='pixels'
    )

  def observation_spec(self) -> array_spec.BoundedArraySpec:
    """Returns the spec of one frame."""
    return self._observation_spec

  def _reset(self):
    return self._show(self._env.reset())

  def _step(self, action):
    return self._show(self._env.step(action))

  def _show(self, time_step: ts.TimeStep) -> ts.TimeStep:
    # A renderer may hand out a view of a buffer that it draws the next frame into.
    frame = np.array(self._env.render('rgb_array'), np.uint8, order='C')
    return time_step._replace(observation=frame)


class FrameStack(wrappers.PyEnvironmentBaseWrapper):
  """Stacks the newest frames along the channels, oldest first.

  [height, width, channels] becomes [height, width, channels * frame_stack], of the same dtype; the
  newest frame is the last `channels` of it. At the start of an episode its first frame is repeated,
  so a stack never shows two episodes. Every time step has an array of its own.

  Attributes:
    frame_stack: frames in an observation.
  """

  def __init__(self, env: py_environment.PyEnvironment, frame_stack: int):
    super().__init__(env)
    self.frame_stack = check_positive('frame_stack', frame_stack, 'frames')
    self._frames = collections.deque(maxlen=self.frame_stack)
    frame = env.observation_spec()
    if not isinstance(frame, array_spec.BoundedArraySpec) or len(frame.shape) != 3:
      raise ValueError(f'FrameStack needs frames of [height, width, channels], got {frame}')
    height, width, channels = frame.shape
    self._observation_spec = frame.replace(
      shape=(height, width, channels * self.frame_stack),
      minimum=np.min(frame.minimum),
      maximum=np.max(frame.maximum),
    )

  def observation_spec(self) -> array_spec.BoundedArraySpec:
    """Returns the spec of a stack of frames."""
    return self._observation_spec

  def _reset(self):
    return self._stack(self._env.reset())

  def _step(self, action):
    return self._stack(self._env.step(action))

  def _stack(self, time_step: ts.TimeStep) -> ts.TimeStep:
    copies = self.frame_stack if time_step.is_first() else 1
    self._frames.extend([time_step.observation] * copies)
    return time_step._replace(observation=np.concatenate(self._frames, axis=-1))
