"""DeepMind Control tasks seen through a camera, as TF-Agents environments.

    env = dm_control.load('cartpole', 'swingup', image_size=84, action_repeat=8)
    time_step = env.reset()                            # observation: uint8 [84, 84, 9]
    time_step = env.step(env.action_spec().minimum)    # 8 simulator frames later
    env.close()

Nothing is drawn before the first `reset`: the specs of an environment need no OpenGL library.
"""

from typing import Iterable, Optional, Union

from dm_control import mujoco, suite
from dm_control.rl import control
import gin
import mujoco as mujoco_bindings
import numpy as np
from tf_agents.environments import dm_control_wrapper, py_environment

from seer_tf.environments import opengl, wrappers


@gin.configurable(module='dm_control')
def load(
  domain: str,
  task: str,
  image_size: int = 100,
  frame_stack: int = 3,
  action_repeat: int = 4,
  camera_id: Union[int, str] = 0,
  shadows: bool = False,
  seed: Optional[int] = None,
) -> py_environment.PyEnvironment:
  """Loads a task of the control suite; every call returns an environment that shares nothing.

  Args:
    domain: a domain of `dm_control.suite`, such as 'cartpole'.
    task: a task of that domain, such as 'swingup'.
    image_size: height and width of a frame, pixels.
    frame_stack: frames in an observation.
    action_repeat: simulator frames for which each action is held.
    camera_id: number or name of the camera; -1 is the free camera.
    shadows: whether to draw shadows and smooth edges, as published work does, at more than ten
      times the cost; `CameraEnvironment` says what it changes.
    seed: seeds the task's initial states. Two environments with one seed and the same actions give
      the same observations (on one machine: OpenGL libraries differ in the last bit) and rewards.

  Returns:
    See `from_simulator`.

  Raises:
    ValueError: unknown domain, task or camera (with near matches), or a size that is not positive.
  """
  _check_known('domain', domain, suite.TASKS_BY_DOMAIN)
  _check_known(f'task of domain {domain!r}', task, suite.TASKS_BY_DOMAIN[domain])
  simulator = suite.load(domain, task, task_kwargs={'random': seed})
  return from_simulator(simulator, image_size, frame_stack, action_repeat, camera_id, shadows)


def from_simulator(
  simulator: control.Environment,
  image_size: int,
  frame_stack: int,
  action_repeat: int,
  camera_id: Union[int, str] = 0,
  shadows: bool = False,
) -> py_environment.PyEnvironment:
  """Wraps any environment with a dm_control physics; `load` says what the arguments mean.

  Observations are uint8 [image_size, image_size, 3 * frame_stack], oldest frame first; actions are
  float32 with the task's bounds. A reward is the sum over the repeated frames. A time limit ends an
  episode with discount 1, a terminal state with the task's discount, which is 0.

  `env.env_frames` counts simulator frames and `env.frames_per_agent_step` is the action repeat.
  Use an environment from one thread only, which is where its OpenGL context lives, and close it.
  """
  image_size = wrappers.check_positive('image_size', image_size, 'pixels')
  env = CameraEnvironment(simulator, image_size, camera_id, shadows)
  env = wrappers.ActionRepeat(env, action_repeat)
  env = wrappers.PixelObservation(env, image_size, image_size)
  return wrappers.FrameStack(env, frame_stack)


class CameraEnvironment(dm_control_wrapper.DmControlWrapper):
  """A dm_control environment whose `render` draws one square frame, cheaply.

  MuJoCo fixes what costs most when the OpenGL context is made: shadow maps, and multisampling,
  which smooths edges. Without them, bodies cast no shadow, edges are stepped, and floors that lie
  under a shadow-casting light are darker. How much of an 84 pixel frame differs by more than 8 of
  256 levels depends on the task: 5 % in cartpole and quadruped, 30 to 40 % in finger and walker,
  90 % in reacher. A frame of 48 to 100 pixels takes Mesa's software renderer 0.6 to 1.2 ms instead
  of 11 to 15 ms (cartpole, 2 cores).
  """

  def __init__(
    self,
    simulator: control.Environment,
    image_size: int,
    camera_id: Union[int, str],
    shadows: bool,
  ):
    super().__init__(simulator)
    self._image_size = image_size
    self._camera_id = camera_id
    self._shadows = shadows
    self._camera = None
    self._camera_model = None
    _check_camera(camera_id, self.physics.model)

  def render(self, mode: str = 'rgb_array') -> np.ndarray:
    """Returns what the camera sees now, uint8 [image_size, image_size, 3].

    Raises:
      opengl.RenderingError: when there is no working OpenGL library.
    """
    if mode != 'rgb_array':
      raise ValueError(f"the only rendering mode is 'rgb_array', got {mode!r}")
    # A task may compile its model anew between episodes, which drops the OpenGL context.
    if self._camera_model is not self.physics.model:
      self._camera = self._make_camera()
      self._camera_model = self.physics.model
    return self._camera.render()

  def close(self) -> None:
    """Frees the simulator and its OpenGL context; may be called twice."""
    self._camera = None
    self._camera_model = None
    self.physics.free()

  def _make_camera(self) -> mujoco.Camera:
    visual = self.physics.model.vis
    # All of these are read once, when the context is made.
    visual.global_.offwidth = self._image_size
    visual.global_.offheight = self._image_size
    if not self._shadows:
      visual.quality.shadowsize = 0
      visual.quality.offsamples = 0
    try:
      self.physics.contexts  # noqa: B018 - makes the context
    except (RuntimeError, mujoco_bindings.FatalError) as error:
      raise opengl.RenderingError(error) from error
    # `Physics.render` would make a scene anew for every frame, which takes as long as drawing it.
    return mujoco.Camera(self.physics, self._image_size, self._image_size, self._camera_id)


def _check_known(kind: str, name: str, known: Iterable[str]) -> None:
  if name not in known:
    hint = wrappers.did_you_mean(name, known)
    raise ValueError(f'unknown {kind}: {name!r}; {hint}There are {", ".join(known)}')


def _check_camera(camera_id: Union[int, str], model: mujoco.wrapper.MjModel) -> None:
  names = [name for name in (model.id2name(i, 'camera') for i in range(model.ncam)) if name]
  if camera_id not in names and camera_id not in range(-1, model.ncam):
    raise ValueError(
      f'unknown camera_id: {camera_id!r}; there are -1 (the free camera) to {model.ncam - 1}, '
      f'and the names {", ".join(names)}'
    )
