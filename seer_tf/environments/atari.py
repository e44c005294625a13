"""Atari 2600 games as they are usually learned: four frames an action, grey, 84x84, four stacked.

    env = atari.load('Pong', seed=1)          # for training
    time_step = env.reset()                   # observation: uint8 [84, 84, 4]
    env = atari.load_evaluation('Pong')       # whole games, the game's own score

Gymnasium's own wrappers do most of it: `AtariPreprocessing` repeats, pools and scales frames,
`TimeLimit` ends long games, `ClipReward` clips. The ROMs come with ale-py.
"""

from typing import List, Optional

import ale_py
import gin
import gymnasium
from tf_agents.environments import py_environment
from tf_agents.environments import wrappers as tf_agents_wrappers

from seer_tf.environments import gymnasium as adapter
from seer_tf.environments import wrappers

_PREFIX, _SUFFIX = 'ALE/', '-v5'

ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # it greets on standard error otherwise
gymnasium.register_envs(ale_py)


@gin.configurable(module='atari')
def load(
  game: str,
  image_size: int = 84,
  frame_stack: int = 4,
  action_repeat: int = 4,
  max_noops: int = 30,
  sticky_actions: float = 0.0,
  full_action_set: bool = False,
  max_agent_steps_per_game: int = 27_000,
  life_loss_ends_episode: bool = True,
  clip_rewards: bool = True,
  seed: Optional[int] = None,
) -> py_environment.PyEnvironment:
  """Loads a game for training; every call returns an environment that shares nothing.

  The defaults are those of Mnih et al. 2015, `Human-level control through deep reinforcement
  learning`. Machado et al. 2018, `Revisiting the Arcade Learning Environment`, ask for
  `sticky_actions=0.25`, `full_action_set=True`, `max_noops=0` and `life_loss_ends_episode=False`.

  Args:
    game: full name, such as 'SpaceInvaders', or its id, 'ALE/SpaceInvaders-v5'.
    image_size: height and width of a frame, pixels.
    frame_stack: frames in an observation.
    action_repeat: simulator frames for which each action is held; what is seen of them is the
      brightest of the last two, pixel by pixel, because games draw some objects in every second
      frame only.
    max_noops: a game starts with 1 to so many simulator frames without an action, drawn anew for
      each; 0 for none.
    sticky_actions: probability with which, in each simulator frame, the console repeats its
      previous action instead of the one it is given.
    full_action_set: offer all 18 actions, also those that do nothing in this game.
    max_agent_steps_per_game: a game is truncated after so many; 27,000 of 4 frames are half an
      hour.
    life_loss_ends_episode: a lost life ends the episode (`LifeLossEndsEpisode` says how).
    clip_rewards: clip the reward of an agent step to [-1, 1].
    seed: of the console and the no-ops. Two environments with one seed and the same actions are the
      same, frame by frame.

  Returns:
    Observations are uint8 [image_size, image_size, frame_stack], grey, oldest frame first; actions
    are int64 scalars from 0. The end of a game (and, if asked for, of a life) has discount 0, the
    limit `max_agent_steps_per_game` discount 1. `env.env_frames` counts simulator frames, without
    those of resets and their no-ops; `env.frames_per_agent_step` is the action repeat. The
    observation that ends a game may lag by an agent step; nothing is learned from it.

  Raises:
    ValueError: unknown game (with near matches), or a number that makes no sense.
  """
  wrappers.check_positive('image_size', image_size, 'pixels')
  wrappers.check_positive('action_repeat', action_repeat, 'simulator frames')
  wrappers.check_positive('max_agent_steps_per_game', max_agent_steps_per_game, 'agent steps')
  if not isinstance(max_noops, int) or max_noops < 0:
    raise ValueError(f'max_noops must be a whole number, at least 0, got {max_noops!r}')
  if not 0 <= sticky_actions <= 1:
    raise ValueError(f'sticky_actions is a probability, from 0 to 1, got {sticky_actions!r}')
  env = gymnasium.make(
    _PREFIX + _checked_name(game) + _SUFFIX,
    frameskip=1,  # AtariPreprocessing repeats the action, once and for all
    repeat_action_probability=sticky_actions,
    full_action_space=full_action_set,
    max_num_frames_per_episode=0,  # TimeLimit below truncates after whole agent steps
    obs_type='grayscale',  # spares the console colour frames that nobody looks at
    disable_env_checker=True,
  )
  env = gymnasium.wrappers.AtariPreprocessing(
    env,
    noop_max=max_noops,
    frame_skip=action_repeat,
    screen_size=image_size,
    grayscale_newaxis=True,
  )
  ale = env.ale
  env = gymnasium.wrappers.TimeLimit(env, max_agent_steps_per_game)
  if life_loss_ends_episode:
    env = LifeLossEndsEpisode(env)
  if clip_rewards:
    env = gymnasium.wrappers.ClipReward(env, -1, 1)
  env = ConsoleFrames(adapter.GymnasiumEnvironment(env, seed=seed), ale, action_repeat)
  env = wrappers.PixelObservation(env, image_size, image_size, channels=1)
  return wrappers.FrameStack(env, frame_stack)


@gin.configurable(module='atari')
def load_evaluation(*args, **kwargs) -> py_environment.PyEnvironment:
  """Loads a game for evaluation: an episode is a whole game, its rewards sum to the raw score.

  Takes what `load` takes and, through it, what gin binds there, except `life_loss_ends_episode` and
  `clip_rewards`, which are off.
  """
  return load(*args, life_loss_ends_episode=False, clip_rewards=False, **kwargs)


def games() -> List[str]:
  """Full names of the games that can be loaded."""
  return [
    id[len(_PREFIX) : -len(_SUFFIX)]
    for id in gymnasium.registry
    if id.startswith(_PREFIX) and id.endswith(_SUFFIX)
  ]


class LifeLossEndsEpisode(gymnasium.Wrapper):
  """Ends an episode with each life, while the game goes on.

  The next episode starts with the very observation that ended the last one: `reset` gives it out
  again and the console does not advance. A game that is over, truncated or left in the middle is
  reset in earnest. The last life is no exception of its own: the game's end is. (Some games count 0
  lives for a few frames before they are over; a life lost to 0 would make an episode of those.)
  """

  def __init__(self, env: gymnasium.Env):
    super().__init__(env)
    self._lives = 0
    self._at_hand = None  # observation and info of a life that was lost, until the next episode

  def reset(self, *, seed=None, options=None):
    """Starts the next life, or the next game; see `gymnasium.Env.reset`."""
    at_hand, self._at_hand = self._at_hand, None
    if at_hand is None or seed is not None:
      at_hand = self.env.reset(seed=seed, options=options)
    self._lives = at_hand[1]['lives']
    return at_hand

  def step(self, action):
    """Takes an agent step; see `gymnasium.Env.step`."""
    observation, reward, terminated, truncated, info = self.env.step(action)
    lost = 0 < info['lives'] < self._lives and not (terminated or truncated)
    self._lives = info['lives']
    self._at_hand = (observation, info) if lost else None
    return observation, reward, terminated or lost, truncated, info


class ConsoleFrames(tf_agents_wrappers.PyEnvironmentBaseWrapper):
  """Counts simulator frames by the console's own counter.

  Attributes:
    frames_per_agent_step: simulator frames of a full agent step.
    env_frames: simulator frames since this wrapper was made, without those of resets.
  """

  def __init__(
    self, env: py_environment.PyEnvironment, ale: ale_py.ALEInterface, action_repeat: int
  ):
    super().__init__(env)
    self.frames_per_agent_step = action_repeat
    self.env_frames = 0
    self._ale = ale

  def _step(self, action):
    before = self._ale.getFrameNumber()
    time_step = self._env.step(action)
    if not time_step.is_first():  # otherwise this call began the next episode
      self.env_frames += self._ale.getFrameNumber() - before
    return time_step


def _checked_name(game: str) -> str:
  """Full name of a game given by name or id."""
  known = games()
  name = str(game)
  if name.startswith(_PREFIX) and name.endswith(_SUFFIX):
    name = name[len(_PREFIX) : -len(_SUFFIX)]
  if name not in known:
    hint = wrappers.did_you_mean(name.replace('_', ''), known)
    raise ValueError(f'unknown game: {game!r}; {hint or "there are " + ", ".join(known)}'.strip())
  return name
