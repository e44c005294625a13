"""Any Gymnasium environment that shows pixels, as a TF-Agents environment.

    env = gymnasium.load('CartPole-v1', image_size=48, frame_stack=4)
    time_step = env.reset()     # observation: uint8 [48, 48, 12], four renderings
    time_step = env.step(1)
    env.close()

Pixels are the environment's own image observation where it has one, else what it renders. This
module shares its name, not its code, with the package that it adapts.
"""

import importlib
import os
from typing import Any, Mapping, Optional, Sequence, Tuple

from absl import logging
import cv2
import gin
import gymnasium
import numpy as np
from tf_agents.environments import py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from seer_tf.environments import wrappers

# Some environments start pygame's sound as well; where there is none, libraries complain at length.
os.environ.setdefault('SDL_AUDIODRIVER', 'dummy')

# Parts of Gymnasium -> the extra of setup.py that installs what their environments need.
_EXTRAS = {'gymnasium.envs.box2d': 'box2d', 'gymnasium.envs.mujoco': 'mujoco'}


@gin.configurable(module='gymnasium')
def load(
  id: str,
  register_modules: Sequence[str] = (),
  kwargs: Optional[Mapping[str, Any]] = None,
  image_key: Optional[str] = None,
  image_size: Optional[int] = None,
  frame_stack: int = 4,
  action_repeat: int = 1,
  seed: Optional[int] = None,
) -> py_environment.PyEnvironment:
  """Makes a registered environment; every call returns one that shares nothing.

  Args:
    id: a registered id, such as 'CarRacing-v3'.
    register_modules: modules to import first, because importing them registers environments.
    kwargs: arguments of the environment's constructor.
    image_key: which entry of a Dict observation is the image; not needed if only one is.
    image_size: height and width to which frames are scaled (square, whatever their shape was);
      None leaves them as they are.
    frame_stack: frames in an observation.
    action_repeat: environment steps for which each action is held.
    seed: of the first reset, from which Gymnasium derives all later ones.

  Returns:
    See `from_gymnasium`.

  Raises:
    ValueError: unknown id (with near matches), a package that is missing (with the extra that
      installs it), arguments that the constructor does not take, and what `from_gymnasium` raises.
  """
  for module in register_modules:
    try:
      importlib.import_module(module)
    except ImportError as error:
      raise ValueError(
        f'register_modules names {module!r}, which cannot be imported: {error}'
      ) from error
  env = _make(id, kwargs)
  renders = 'rgb_array' in env.metadata.get('render_modes', ())
  if renders and image_key is None and not _image_keys(env.observation_space):
    env.close()
    env = _make(id, {**(kwargs or {}), 'render_mode': 'rgb_array'})
  return from_gymnasium(env, image_key, image_size, frame_stack, action_repeat, seed)


def from_gymnasium(
  env: gymnasium.Env,
  image_key: Optional[str] = None,
  image_size: Optional[int] = None,
  frame_stack: int = 4,
  action_repeat: int = 1,
  seed: Optional[int] = None,
) -> py_environment.PyEnvironment:
  """Wraps any Gymnasium environment; `load` says what the arguments mean.

  Observations are uint8 [height, width, channels * frame_stack] with 1 or 3 channels, oldest frame
  first. A Discrete action is an int64 scalar from 0, a Box action float32 in [-1, 1] whatever the
  environment's own bounds. A reward is the sum over the repeated steps. Termination ends an episode
  with discount 0, truncation with discount 1.

  `env.env_frames` counts steps of the Gymnasium environment, resets not among them, and
  `env.frames_per_agent_step` is the action repeat.

  Raises:
    ValueError: no pixels, more images than one and no `image_key`, an action space that is neither
      Discrete nor a Box with finite bounds, or a size that is not positive.
  """
  env = GymnasiumEnvironment(env, image_key, image_size, seed)
  height, width, channels = env.image_shape
  env = wrappers.ActionRepeat(env, action_repeat)
  env = wrappers.PixelObservation(env, height, width, channels)
  return wrappers.FrameStack(env, frame_stack)


class GymnasiumEnvironment(py_environment.PyEnvironment):
  """A Gymnasium environment whose time steps have no observation: `render` shows what there is.

  So a frame is scaled or drawn when it is wanted, not for every repetition of an action.

  Attributes:
    image_shape: height, width and channels of a frame.
    pixels_from: what `render` shows, in words.
  """

  def __init__(
    self,
    env: gymnasium.Env,
    image_key: Optional[str] = None,
    image_size: Optional[int] = None,
    seed: Optional[int] = None,
  ):
    super().__init__(handle_auto_reset=True)
    self._env = env
    self._name = env.spec.id if env.spec else str(env)
    self._seed = seed
    self._image_key = image_key
    self._observation = None
    self._action_spec = _action_spec(env.action_space, self._name)
    self._rendered = False
    space = self._image_space()
    if space is None:
      self._rendered = True
      self.pixels_from = 'what it renders'
      shape = self._rendered_shape() if image_size is None else (0, 0, 3)
    else:
      key = self._image_key
      self.pixels_from = 'its observation' + ('' if key is None else f', entry {key!r}')
      shape = space.shape
    if image_size is not None:
      image_size = wrappers.check_positive('image_size', image_size, 'pixels')
      shape = (image_size, image_size, shape[-1])
    self.image_shape: Tuple[int, int, int] = shape
    logging.info('%s: pixels %s are %s.', self._name, self.image_shape, self.pixels_from)

  def observation_spec(self) -> Tuple[()]:
    """Returns an empty nest."""
    return ()

  def action_spec(self) -> array_spec.BoundedArraySpec:
    """Returns int64 [] from 0 for Discrete actions, float32 in [-1, 1] for those of a Box."""
    return self._action_spec

  def render(self, mode: str = 'rgb_array') -> np.ndarray:
    """Returns the newest frame, uint8 of `image_shape`; it may be a view of a buffer in use."""
    if mode != 'rgb_array':
      raise ValueError(f"the only rendering mode is 'rgb_array', got {mode!r}")
    if self._rendered:
      frame = self._rendering()
    elif self._image_key is None:
      frame = self._observation
    else:
      frame = self._observation[self._image_key]
    height, width, _ = self.image_shape
    if frame.shape[:2] != (height, width):
      frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    return frame.reshape(self.image_shape)  # OpenCV drops the channel of grey images

  def close(self) -> None:
    """Frees the environment; may be called twice."""
    self._env.close()

  def _reset(self):
    self._observation, _ = self._env.reset(seed=self._seed)
    self._seed = None
    return _time_step(ts.StepType.FIRST, 0.0, 1.0)

  def _step(self, action):
    step = self._env.step(self._translated(action))
    self._observation, reward, terminated, truncated, _ = step
    step_type = ts.StepType.LAST if terminated or truncated else ts.StepType.MID
    return _time_step(step_type, reward, 0.0 if terminated else 1.0)

  def _translated(self, action: np.ndarray):
    """The environment's own action."""
    space = self._env.action_space
    if isinstance(space, gymnasium.spaces.Discrete):
      return space.start + space.dtype.type(action)
    share = (np.asarray(action, np.float64) + 1) / 2
    action = space.low + share * (space.high.astype(np.float64) - space.low)
    return np.clip(action.astype(space.dtype), space.low, space.high)

  def _image_space(self) -> Optional[gymnasium.spaces.Box]:
    """The space of the image observation; None if pixels have to be rendered."""
    space, wanted = self._env.observation_space, self._image_key
    keys = _image_keys(space)
    if wanted is not None and wanted not in keys:
      names = [key for key in keys if key is not None]
      raise ValueError(
        f'{self._name} has no image {wanted!r} among its observations; '
        f'{wrappers.did_you_mean(wanted, names)}images by name: {", ".join(names) or "none"}'
      )
    if len(keys) > 1 and wanted is None:
      raise ValueError(
        f'{self._name} has several image observations; choose one by image_key: {", ".join(keys)}'
      )
    if keys:
      self._image_key = wanted or keys[0]
      return space if self._image_key is None else space[self._image_key]
    if self._env.render_mode != 'rgb_array':
      raise ValueError(
        f'{self._name} shows no pixels: its observation is {_words(space)}, where an image would '
        'be uint8 [height, width, 1 or 3], and it was not made with render_mode "rgb_array" or has '
        f'none (render modes: {self._env.metadata.get("render_modes")})'
      )
    return None

  def _rendered_shape(self) -> Tuple[int, int, int]:
    # The seed is kept for the first real reset: this one leaves no trace.
    self._env.reset(seed=self._seed)
    return self._rendering().shape

  def _rendering(self) -> np.ndarray:
    frame = self._env.render()
    if not (isinstance(frame, np.ndarray) and _is_image(frame.shape, frame.dtype, channels=(3,))):
      shown = f'{frame.dtype} {frame.shape}' if isinstance(frame, np.ndarray) else type(frame)
      raise ValueError(f'{self._name} should render uint8 [height, width, 3], got {shown}')
    return frame


def _make(id: str, kwargs: Optional[Mapping[str, Any]]) -> gymnasium.Env:
  """Calls `gymnasium.make`; whatever a user may have missed is a ValueError of one line."""
  try:
    return gymnasium.make(id, disable_env_checker=True, **(kwargs or {}))
  except gymnasium.error.UnregisteredEnv as error:
    raise ValueError(
      f'unknown Gymnasium id: {id!r}; {wrappers.did_you_mean(id, gymnasium.registry)}'
      'Name the module that registers it in register_modules'
    ) from error
  except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
    spec = gymnasium.registry.get(id)
    entry = str(spec and spec.entry_point)
    extras = [extra for part, extra in _EXTRAS.items() if entry.startswith(part)]
    if extras:
      remedy = f'install the extra seer_tf[{extras[0]}]: pip install -e ".[{extras[0]}]"'
    else:
      remedy = f'install what is missing: {_words(error)}'
    raise ValueError(f'{id} needs a package that is not installed; {remedy}') from error
  except (gymnasium.error.Error, TypeError) as error:
    raise ValueError(f'cannot make {id!r}: {_words(error)}') from error


def _time_step(step_type: np.ndarray, reward: float, discount: float) -> ts.TimeStep:
  return ts.TimeStep(step_type, np.float32(reward), np.float32(discount), ())


def _is_image(shape: Sequence[int], dtype: np.dtype, channels: Sequence[int] = (1, 3)) -> bool:
  return len(shape) == 3 and shape[-1] in channels and dtype == np.uint8


def _image_keys(space: gymnasium.Space) -> Sequence[Optional[str]]:
  """Entries of `space` that are images; [None] if it is one itself."""
  if isinstance(space, gymnasium.spaces.Dict):
    return [key for key, entry in space.items() if None in _image_keys(entry)]
  is_box = isinstance(space, gymnasium.spaces.Box)
  return [None] if is_box and _is_image(space.shape, space.dtype) else []


def _action_spec(space: gymnasium.Space, name: str) -> array_spec.BoundedArraySpec:
  """The spec of an agent's actions.

  Raises:
    ValueError: no agent acts in such a space.
  """
  if isinstance(space, gymnasium.spaces.Discrete):
    return array_spec.BoundedArraySpec((), np.int64, 0, int(space.n) - 1, name='action')
  if isinstance(space, gymnasium.spaces.Box) and np.issubdtype(space.dtype, np.floating):
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
      raise ValueError(
        f'the actions of {name} need finite bounds, got {_words(space)}; wrap the environment so '
        'that its action space has them'
      )
    return array_spec.BoundedArraySpec(space.shape, np.float32, -1.0, 1.0, name='action')
  raise ValueError(
    f'the actions of {name} must be Discrete or a Box of floats, got {_words(space)}'
  )


def _words(subject: object) -> str:
  """A description in one line."""
  return ' '.join(str(subject).split())
