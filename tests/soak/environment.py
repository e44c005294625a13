"""An environment whose observations say which they are: of what start, and the how manieth of it.

Observation number `count` of the start with identity `identity` is an image of one colour, so that
every crop of it has the same latents. From both follows all of a row but the action: see `row`.
"""

import secrets
from typing import NamedTuple

import gin
import numpy as np
from tf_agents.environments import py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from seer_tf.environments import wrappers

EPISODE = 7  # observations of an episode; the first one of a stream may be shorter
FRAME_STACK = 3
# Rewards are exact in float32, and small. More observations than that are not told apart.
_REWARD_SCALE, _IDENTITIES, COUNTS = 1024, 256, 2**15


def colour(identity, count):
  """RGB of observations, uint8 [..., 3], of arrays [...] of whole numbers."""
  return np.stack([identity, count // 256 * 37 % 256, count * 5 % 256], axis=-1).astype(np.uint8)


def reward(identity, count):
  """Of the agent step taken at an observation: it tells both numbers."""
  return np.float32((count + identity / _IDENTITIES) / _REWARD_SCALE)


def told(rewards):
  """(identity, count) of the observations where these rewards were earned, int64."""
  both = np.round(np.asarray(rewards, np.float64) * _REWARD_SCALE * _IDENTITIES).astype(np.int64)
  return both % _IDENTITIES, both // _IDENTITIES


def discount(count):
  """Of the agent step taken at an observation: every second episode ends by a time limit."""
  ends = (count % EPISODE == EPISODE - 2) & (count // EPISODE % 2 == 0)
  return np.where(ends, 0, 1).astype(np.float32)


class Rows(NamedTuple):
  """What rows must be; arrays [N]. Those of a LAST row but `stack` and `step_type` mean nothing."""

  stack: np.ndarray  # uint8 [N, 3 * FRAME_STACK], oldest frame first
  step_type: np.ndarray
  reward: np.ndarray
  discount: np.ndarray


def rows(identity, base, index) -> Rows:
  """Rows of a stream.

  Args:
    identity: of the environment that made it.
    base: count of its first observation.
    index: of the rows in the stream, int64 [N].
  """
  count = base + index
  age = np.minimum(index, count % EPISODE)
  back = np.minimum(age[:, None], np.arange(FRAME_STACK - 1, -1, -1))
  stack = colour(np.broadcast_to(identity, back.shape), count[:, None] - back)
  last = (count % EPISODE == EPISODE - 1).astype(np.int32)
  step_type = np.where(age == 0, 0, 1 + last)
  return Rows(stack.reshape(len(index), -1), step_type, reward(identity, count), discount(count))


class Telling(py_environment.PyEnvironment):
  """Counts its observations, those after resets included."""

  def __init__(self, size=18):
    super().__init__()
    self._size = size
    self._identity = secrets.randbelow(_IDENTITIES)
    self._count = -1
    self.env_frames = 0
    self.frames_per_agent_step = 1

  def observation_spec(self):
    return array_spec.BoundedArraySpec((self._size, self._size, 3), np.uint8, 0, 255)

  def action_spec(self):
    return array_spec.BoundedArraySpec((1,), np.float32, -1, 1)

  def _frame(self):
    shown = colour(np.int64(self._identity), np.int64(self._count % COUNTS))
    return np.broadcast_to(shown, (self._size, self._size, 3)).copy()

  def _reset(self):
    self._count += 1
    if self._count % EPISODE == EPISODE - 1:  # no episode is one observation long
      self._count += 1
    return ts.restart(self._frame())

  def _step(self, action):
    if self._current_time_step.is_last():
      return self.reset()
    earned, left = reward(self._identity, self._count), discount(np.int64(self._count))
    self._count += 1
    self.env_frames += 1
    if self._count % EPISODE < EPISODE - 1:
      return ts.transition(self._frame(), reward=earned)
    if left:
      return ts.truncation(self._frame(), reward=earned)
    return ts.termination(self._frame(), reward=earned)


@gin.configurable
def telling(seed=None, size=18):
  """The environment, stacked."""
  del seed
  return wrappers.FrameStack(Telling(size), FRAME_STACK)
