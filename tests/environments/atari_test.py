"""Games against consoles that are played by hand: ale-py and OpenCV, without any wrapper."""

import collections
import sys

import ale_py
from ale_py import roms
import cv2
import gin
import numpy as np
import pytest
from tf_agents.environments import utils

from seer_tf.environments import atari


class Console:
  """A console played by hand, seeded as `AtariEnv.reset(seed=)` says that it seeds."""

  def __init__(self, rom, seed, sticky_actions=0.0, max_noops=30):
    numpy_seed, console_seed = np.random.SeedSequence(seed).generate_state(2)
    self.rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(int(numpy_seed))))
    self.ale = ale_py.ALEInterface()
    self.ale.setFloat('repeat_action_probability', sticky_actions)
    self.ale.setInt('random_seed', np.int32(console_seed))
    self.ale.loadROM(roms.get_rom_path(rom))
    self.max_noops = max_noops
    self.frames = 0

  def start(self):
    """Begins a game; returns its first picture."""
    self.ale.reset_game()
    for _ in range(self.rng.integers(1, self.max_noops + 1) if self.max_noops else 0):
      self.ale.act(ale_py.Action.NOOP)
    return self.picture([self.ale.getScreenGrayscale()])

  def step(self, action):
    """Holds an action for four frames; returns the picture and the score."""
    score, screens = 0, []
    for _ in range(4):
      score += self.ale.act(action)
      self.frames += 1
      if self.ale.game_over():
        break
      screens.append(self.ale.getScreenGrayscale())
    return self.picture(screens[-2:]) if len(screens) == 4 else None, score

  def picture(self, screens):
    return cv2.resize(np.max(screens, axis=0), (84, 84), interpolation=cv2.INTER_AREA)


def compare(game, rom, training, agent_steps, seed, frame_stack=4, **kwargs):
  """Plays both in parallel; returns how often each kind of end came, and the rewards."""
  builder = atari.load if training else atari.load_evaluation
  env = builder(game, seed=seed, frame_stack=frame_stack, **kwargs)
  console = Console(rom, seed, kwargs.get('sticky_actions', 0.0), kwargs.get('max_noops', 30))
  meanings = console.ale.getMinimalActionSet()
  assert env.action_spec().maximum == len(meanings) - 1
  rng = np.random.default_rng(seed)
  ends = collections.Counter()
  rewards = []
  pictures = [console.start()] * frame_stack
  lives = console.ale.lives()
  next_first = True  # the very first call resets, whatever the action
  for _ in range(agent_steps):
    action = rng.integers(len(meanings))
    time_step = env.step(action)
    if next_first:
      assert time_step.is_first()
      assert (time_step.reward, time_step.discount) == (0, 1)
      next_first = False
    else:
      picture, score = console.step(meanings[action])
      pictures = [*pictures[1:], picture]
      over = console.ale.game_over()
      life_lost = not over and 0 < console.ale.lives() < lives
      lives = console.ale.lives()
      ended = over or (training and life_lost)
      ends.update(games=over, lives=life_lost)
      rewards.append(score)
      assert time_step.is_last() == ended
      assert time_step.discount == (0 if ended else 1)
      assert time_step.reward == (np.clip(score, -1, 1) if training else score)
      next_first = ended
    assert time_step.observation.dtype == np.uint8
    for channel, picture in enumerate(pictures):
      if picture is not None:
        np.testing.assert_array_equal(time_step.observation[..., channel], picture)
    assert env.env_frames == console.frames
    if next_first:
      if ends and over:
        pictures = [console.start()]
        lives = console.ale.lives()
      pictures = pictures[-1:] * frame_stack  # after a life: the picture at hand
  env.close()
  return ends, rewards


@pytest.mark.parametrize(
  'game, rom, agent_steps',
  [
    ('Breakout', 'breakout', 500),
    ('SpaceInvaders', 'space_invaders', 700),
    ('Qbert', 'qbert', 600),
  ],
)
def test_training_and_evaluation_equal_a_console_played_by_hand(game, rom, agent_steps):
  ends, rewards = compare(game, rom, True, agent_steps, seed=5)
  assert ends['games'] >= 1
  assert ends['lives'] >= 2
  if game != 'Breakout':
    assert max(rewards) > 1  # clipping mattered
  ends, _ = compare(game, rom, False, agent_steps, seed=5)
  assert ends['games'] >= 1
  assert ends['lives'] >= 2


def test_sticky_actions_no_noops_and_other_stacks_equal_a_console_played_by_hand():
  ends, _ = compare('Breakout', 'breakout', True, 300, seed=2, sticky_actions=0.25)
  assert ends['lives']
  compare('Pong', 'pong', True, 60, seed=2, max_noops=0, frame_stack=1)
  compare('Pong', 'pong', False, 60, seed=3, frame_stack=2)


def play(env, count, seed=0):
  rng = np.random.default_rng(seed)
  actions = rng.integers(env.action_spec().maximum + 1, size=count)
  time_steps = [env.reset(), *(env.step(action) for action in actions)]
  env.close()
  return time_steps


def same(run, other):
  return all(
    np.array_equal(value, value_other)
    for time_step, time_step_other in zip(run, other)
    for value, value_other in zip(time_step, time_step_other)
  )


def test_one_seed_one_run():
  sticky = dict(sticky_actions=0.25)
  run = play(atari.load('Seaquest', seed=1, **sticky), 150)
  assert same(run, play(atari.load('Seaquest', seed=1, **sticky), 150))
  assert not same(run, play(atari.load('Seaquest', seed=2, **sticky), 150))
  assert not same(run, play(atari.load('Seaquest', **sticky), 150))


def test_noops_differ_between_games_of_one_environment():
  env = atari.load('SpaceInvaders', seed=1)
  assert len({env.reset().observation.tobytes() for _ in range(6)}) > 1
  assert env.env_frames == 0
  env.close()
  env = atari.load('SpaceInvaders', seed=1, max_noops=0)
  assert len({env.reset().observation.tobytes() for _ in range(3)}) == 1
  env.close()


def test_a_reset_in_the_middle_of_a_life_begins_a_new_game():
  env = atari.load('Breakout', max_noops=0, seed=0)
  start = env.reset().observation
  while not env.step(1).is_last():
    pass
  first = env.reset().observation
  assert not np.array_equal(first, start)  # the game goes on, with one life less
  env.step(1)
  np.testing.assert_array_equal(env.reset().observation, start)
  env.close()


def test_a_long_game_is_truncated_with_discount_one():
  env = atari.load('Pong', max_noops=0, max_agent_steps_per_game=5, seed=0)
  start = env.reset().observation
  for agent_steps in range(1, 6):
    time_step = env.step(2)
    assert time_step.is_last() == (agent_steps == 5)
    assert time_step.discount == 1
  assert not np.array_equal(time_step.observation[..., 2], time_step.observation[..., 3])
  time_step = env.step(2)
  assert time_step.is_first()
  np.testing.assert_array_equal(time_step.observation, start)
  assert env.env_frames == 20
  env.close()


def test_specs_and_contract():
  env = atari.load('Pong', seed=0)
  observation, action = env.observation_spec(), env.action_spec()
  assert (observation.shape, observation.dtype) == ((84, 84, 4), np.uint8)
  assert (action.shape, action.dtype, action.maximum) == ((), np.int64, 5)
  assert (env.frame_stack, env.frames_per_agent_step) == (4, 4)
  env.close()
  env = atari.load('ALE/Pong-v5', full_action_set=True, image_size=42, action_repeat=2)
  assert env.observation_spec().shape == (42, 42, 4)
  assert env.action_spec().maximum == 17
  env.reset()
  env.step(17)
  assert env.env_frames == env.frames_per_agent_step == 2
  env.close()
  env = atari.load('Breakout', seed=0, max_agent_steps_per_game=40)
  utils.validate_py_environment(env, episodes=3)
  env.close()


def test_every_game_can_be_named():
  assert len(atari.games()) > 60
  assert {'Pong', 'Seaquest', 'MsPacman', 'Qbert', 'Kangaroo', 'Freeway'} <= set(atari.games())


@pytest.mark.parametrize(
  'arguments, words',
  [
    ({'game': 'Pnog'}, ["unknown game: 'Pnog'", 'did you mean Pong']),
    ({'game': 'space_invaders'}, ['did you mean SpaceInvaders']),
    ({'game': 'PongNoFrameskip-v4'}, ['unknown game', 'Pong']),
    ({'game': 'Go9x9'}, ['unknown game', 'Pong']),
    ({'image_size': 0}, ['image_size', 'got 0']),
    ({'frame_stack': 0}, ['frame_stack', 'got 0']),
    ({'action_repeat': 0}, ['action_repeat', 'got 0']),
    ({'max_noops': -1}, ['max_noops', 'got -1']),
    ({'sticky_actions': 1.5}, ['sticky_actions', 'got 1.5']),
    ({'max_agent_steps_per_game': 0}, ['max_agent_steps_per_game', 'got 0']),
  ],
)
def test_bad_input_is_one_clear_line(arguments, words):
  with pytest.raises(ValueError) as raised:
    atari.load(**{'game': 'Pong', **arguments})
  message = str(raised.value).split("\n  In call to configurable 'load'")[0]  # added by gin
  assert '\n' not in message
  for word in words:
    assert word in message


def test_prints_nothing(run):
  code = (
    "from seer_tf.environments import atari\nenv = atari.load('Pong')\nenv.reset()\nenv.step(2)\n"
  )
  result = run([sys.executable, '-c', code], env={'TF_CPP_MIN_LOG_LEVEL': '3'})
  assert (result.returncode, result.stdout, result.stderr) == (0, '', '')


def test_evaluation_takes_the_games_bindings_but_not_the_training():
  gin.parse_config("""
    atari.load.game = 'Breakout'
    atari.load.image_size = 42
    atari.load.sticky_actions = 0.25
    atari.load.life_loss_ends_episode = True
  """)
  try:
    env, evaluation = atari.load(seed=1), atari.load_evaluation(seed=1)
    assert evaluation.observation_spec().shape == (42, 42, 4)
    ends, ends_evaluation = (
      sum(time_step.is_last() for time_step in play(env, 400)) for env in (env, evaluation)
    )
    assert ends > ends_evaluation >= 1
  finally:
    gin.clear_config()
