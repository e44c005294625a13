"""Tests of evaluation: whole episodes, every return, and again."""

import numpy as np
import tensorflow as tf
from tf_agents.policies import random_tf_policy
from tf_agents.train.utils import spec_utils

from seer_tf.training import evaluation
from tests.training import counting_environment


def test_returns_of_whole_episodes():
  environment = counting_environment.counting()
  _, action_spec, time_step_spec = spec_utils.get_tensor_specs(environment)
  policy = random_tf_policy.RandomTFPolicy(time_step_spec, action_spec)
  evaluate = evaluation.Evaluator(environment, policy, tf.Variable(0, dtype=tf.int64), episodes=4)
  # Episodes are 3, 4, 5, 6, 7, 8, 3, ... agent steps long and step i pays i.
  lengths = [3, 4, 5, 6, 7, 8, 3, 4]
  ends = np.cumsum([0, *lengths])
  expected = [sum(range(a + 1, b + 1)) for a, b in zip(ends[:-1], ends[1:])]
  assert evaluate() == expected[:4]
  assert evaluate() == expected[4:]
