"""Tests of the collector: one running episode, whatever acts and observes."""

from tf_agents.policies import random_py_policy

from seer_tf.training import collector as collector_lib
from tests.training import counting_environment


def test_a_new_policy_goes_on_in_the_running_episode():
  environment = counting_environment.counting()
  collector = collector_lib.Collector(environment)
  policy = random_py_policy.RandomPyPolicy(environment.time_step_spec(), environment.action_spec())
  seen = [[], []]
  for observer, agent_steps in zip(seen, (5, 10)):
    collector.act_with(policy, [observer.append])
    while collector.agent_steps < agent_steps:
      collector.run()
  acted = [[t for t in part if not t.is_boundary()] for part in seen]
  assert [len(part) for part in acted] == [5, 5]
  rewards = [float(t.reward) for part in acted for t in part]
  assert rewards == list(range(1, 11))
  boundaries = [t for part in seen for t in part if t.is_boundary()]
  assert len(boundaries) == 2  # after 3 and after 3 + 4 agent steps
  assert collector.last_return == 4 + 5 + 6 + 7
  assert collector.env_frames == 10
