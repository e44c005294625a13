"""Importing this registers seer/Rooms-v0, a tiny task that shows pixels and whose values are known.

Three rooms in a row: action 0 leaves for good, action 1 goes on and, from the last, leaves. Going
on is best though it pays nothing, and only who bootstraps correctly over two steps can know.
"""

import gymnasium
from gymnasium import spaces
import numpy as np

SIZE = 12
GAMMA = 0.9
# Of each action in each room.
PAYS = np.array([[0.2, 0.0], [1.0, 0.0], [-0.5, 1.5]], np.float32)
OPTIMAL = np.array([[0.2, GAMMA**2 * 1.5], [1.0, GAMMA * 1.5], [-0.5, 1.5]])
FRAMES = np.zeros([3, SIZE, SIZE, 1], np.uint8)
for _room in range(3):
  FRAMES[_room, _room * 4 : _room * 4 + 4] = 255


def is_left(room: int, action: int) -> bool:
  """Whether an action in a room ends the episode."""
  return action == 0 or room == 2


class Rooms(gymnasium.Env):
  """Begins in the first room; shows the last one when left."""

  def __init__(self, render_mode=None):
    self.observation_space = spaces.Box(0, 255, FRAMES.shape[1:], np.uint8)
    self.action_space = spaces.Discrete(2)
    self.render_mode = render_mode
    self._room = 0

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self._room = 0
    return FRAMES[0], {}

  def step(self, action):
    pay, left = float(PAYS[self._room, action]), is_left(self._room, action)
    self._room = min(2, self._room + 1)
    return FRAMES[self._room], pay, left, False, {}


gymnasium.register('seer/Rooms-v0', Rooms)
