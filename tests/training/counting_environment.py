"""An environment that counts: the reward of agent step i is i, and frames show it, or noise."""

import gin
import numpy as np
from tf_agents.environments import py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from seer_tf.environments import wrappers


class Counting(py_environment.PyEnvironment):
  """Episodes of 3 to 8 agent steps, ending in turn by a time limit and by a terminal."""

  def __init__(self, size=18, noise=False):
    super().__init__()
    self._size = size
    random = np.random.default_rng(0)
    shape = (size, size, 3)
    count = lambda: np.full(shape, self._count % 251, np.uint8)
    self._frame = (lambda: random.integers(0, 256, shape, np.uint8)) if noise else count
    self._count = 0
    self._episodes = 0
    self._left = 0
    self.env_frames = 0
    self.frames_per_agent_step = 1

  def observation_spec(self):
    return array_spec.BoundedArraySpec((self._size, self._size, 3), np.uint8, 0, 255)

  def action_spec(self):
    return array_spec.BoundedArraySpec((1,), np.float32, -1, 1)

  def _reset(self):
    self._left = 3 + self._episodes % 6
    self._episodes += 1
    return ts.restart(self._frame())

  def _step(self, action):
    if self._left == 0:
      return self.reset()
    self._count += 1
    self.env_frames += 1
    self._left -= 1
    if self._left:
      return ts.transition(self._frame(), reward=np.float32(self._count))
    if self._episodes % 2:
      return ts.truncation(self._frame(), reward=np.float32(self._count))
    return ts.termination(self._frame(), reward=np.float32(self._count))


@gin.configurable
def counting(seed=None, size=18, noise=False):
  """The counting environment, stacked."""
  del seed
  return wrappers.FrameStack(Counting(size, noise), 3)
