r"""Returns of uniformly random actions, the floor under every other return: one row per episode.

    python -m studies.random_policy > studies/cartpole_swingup_cpu/random_seed0.csv
    python -m studies.random_policy --game=Krull > studies/rainbow_atari_cpu/random_krull.csv

Without --game the task is cartpole-swingup. A game is played as in evaluation: whole games, raw
score. Mean and standard error go to standard error. With --action the same one of a game's actions
is taken throughout: what a game gives away to whoever never looks.
"""

import sys

from absl import app, flags
import numpy as np
from tf_agents.policies import random_py_policy

from seer_tf.environments import atari, dm_control

_GAME = flags.DEFINE_string('game', None, 'Full name of an Atari game.')
_ACTION = flags.DEFINE_integer('action', None, 'Always take this action, of those of the game.')
_EPISODES = flags.DEFINE_integer('episodes', 20, 'Episodes to play.', lower_bound=2)
_SEED = flags.DEFINE_integer('seed', 0, 'Seeds the environment and the actions.')


def main(argv):
  """Prints one return per line."""
  if len(argv) > 1:
    raise app.UsageError(f'expected no arguments besides flags, got {argv[1:]}')
  if _ACTION.value is not None and _GAME.value is None:
    raise app.UsageError('--action needs a --game, whose actions are numbers')
  if _GAME.value is None:
    environment = dm_control.load(
      'cartpole', 'swingup', image_size=8, action_repeat=8, seed=_SEED.value
    )
  else:
    environment = atari.load_evaluation(_GAME.value, seed=_SEED.value)
  policy = random_py_policy.RandomPyPolicy(
    environment.time_step_spec(), environment.action_spec(), seed=_SEED.value
  )
  print('return', flush=True)
  returns = []
  for _ in range(_EPISODES.value):
    time_step, total = environment.reset(), 0.0
    while not time_step.is_last():
      action = policy.action(time_step).action if _ACTION.value is None else _ACTION.value
      time_step = environment.step(action)
      total += float(time_step.reward)
    returns.append(total)
    print(round(total, 3), flush=True)
  environment.close()
  standard_error = np.std(returns, ddof=1) / np.sqrt(len(returns))
  print(f'mean {np.mean(returns):.1f}, standard error {standard_error:.1f}', file=sys.stderr)


if __name__ == '__main__':
  app.run(main)
