"""Returns of a uniformly random policy on cartpole-swingup, the floor under every other return.

python -m studies.random_policy > studies/cartpole_swingup_cpu/random_seed0.csv
"""

from tf_agents.policies import random_py_policy

from seer_tf.environments import dm_control

EPISODES = 20


def main():
  """Prints one return per line."""
  environment = dm_control.load('cartpole', 'swingup', image_size=8, action_repeat=8, seed=0)
  policy = random_py_policy.RandomPyPolicy(
    environment.time_step_spec(), environment.action_spec(), seed=0
  )
  print('return')
  for _ in range(EPISODES):
    time_step, total = environment.reset(), 0.0
    while not time_step.is_last():
      time_step = environment.step(policy.action(time_step).action)
      total += float(time_step.reward)
    print(round(total, 3))
  environment.close()


if __name__ == '__main__':
  main()
