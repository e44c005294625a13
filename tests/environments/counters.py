"""Importing this registers small Gymnasium environments, one for each kind of observation.

A frame shows how many steps its episode has taken, a reward is the action that was taken.
"""

import importlib
from typing import Optional

import gymnasium
from gymnasium import spaces
import numpy as np

HEIGHT, WIDTH = 4, 6
ACTIONS = {
  'discrete': spaces.Discrete(3, start=5),
  'box': spaces.Box(np.array([-2, 0, 3], np.float32), np.array([2, 1, 7], np.float32)),
  'box64': spaces.Box(0.0, 10.0, (1,), np.float64),
  'unbounded': spaces.Box(-np.inf, np.inf, (2,), np.float32),
  'half-bounded': spaces.Box(0.0, np.inf, (2,), np.float32),
  'whole-numbers': spaces.Box(0, 7, (2,), np.int32),
  'several': spaces.MultiDiscrete([2, 3]),
}


def drawing(count: int, channels: int) -> np.ndarray:
  """uint8 [HEIGHT, WIDTH, channels], another one for each count below 20."""
  pixels = np.arange(HEIGHT * WIDTH * channels, dtype=np.uint8).reshape(HEIGHT, WIDTH, channels)
  return pixels + np.uint8(count * 9)


class Counter(gymnasium.Env):
  """Ends after `length` steps; what it observes is a constructor's argument."""

  metadata = {'render_modes': ['human', 'rgb_array'], 'render_fps': 1}

  def __init__(
    self,
    observed: str = 'rgb',
    actions: str = 'discrete',
    length: int = 5,
    truncated: bool = False,
    random_start: bool = False,
    render_mode: Optional[str] = None,
  ):
    rgb = spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    grey = spaces.Box(0, 255, (HEIGHT, WIDTH, 1), np.uint8)
    vector = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    self.observation_space = {
      'rgb': rgb,
      'grey': grey,
      'vector': vector,
      'one image': spaces.Dict(camera=rgb, speed=vector),
      'two images': spaces.Dict(camera=rgb, depth=grey, speed=vector),
      'planar': spaces.Box(0, 255, (3, HEIGHT, WIDTH), np.uint8),
      'floats': spaces.Box(0.0, 1.0, (HEIGHT, WIDTH, 3), np.float32),
    }[observed]
    self.action_space = ACTIONS[actions]
    self.render_mode = render_mode
    self._length = length
    self._truncated = truncated
    self._random_start = random_start
    self._count = 0
    self._steps = 0

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self._steps = 0
    self._count = int(self.np_random.integers(20)) if self._random_start else 0
    return self._observe(self.observation_space), {}

  def step(self, action):
    assert self.action_space.contains(action), action
    self._count += 1
    self._steps += 1
    ended = self._steps == self._length
    reward = float(np.dot(np.ravel(action), 10.0 ** np.arange(np.size(action))))
    return self._observe(self.observation_space), reward, ended, ended and self._truncated, {}

  def render(self):
    return drawing(self._count, 3)

  def _observe(self, space):
    if isinstance(space, spaces.Dict):
      return {key: self._observe(entry) for key, entry in space.items()}
    if space.dtype == np.uint8:
      return drawing(self._count, space.shape[-1])
    return np.full(space.shape, self._count, space.dtype)


class Unseen(Counter):
  """Cannot render."""

  metadata = {'render_modes': []}


class Unpainted(Counter):
  """Renders something else than it should."""

  def render(self):
    return None


class Unequipped(Counter):
  """Lacks a package."""

  def __init__(self, **kwargs):
    super().__init__(**kwargs)
    importlib.import_module('no_such_package')


for _kind in (Counter, Unseen, Unpainted, Unequipped):
  gymnasium.register(f'seer/{_kind.__name__}-v0', _kind)
gymnasium.register('seer/ShortCounter-v0', Counter, max_episode_steps=3)
