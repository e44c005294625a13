"""Weights as bytes, by name, between agents in different states."""

import numpy as np
import pytest
import tensorflow as tf

from seer_tf.networks import variables
from seer_tf.training import weights
from tests.agents import tiny_sac


def values(agent):
  return {
    (part, name): variable.numpy()
    for part, network in agent.acting_networks.items()
    for name, variable in variables.by_name(network).items()
  }


@pytest.mark.parametrize('freezes', [False, True])
def test_another_agent_acts_alike(freezes):
  """Also where one side has frozen layers, which puts its variables into another order."""
  learner, actor = tiny_sac.make_agent(), tiny_sac.make_agent()
  for network in learner.acting_networks.values():
    for variable in network.variables:
      variable.assign(variable + 1.0)
  if freezes:
    learner.freeze()
  weights.unpack(weights.pack(learner), actor)
  expected, found = values(learner), values(actor)
  assert expected.keys() == found.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(value, found[name])


def test_weights_of_another_agent_are_refused_and_nothing_is_assigned():
  learner, actor = tiny_sac.make_agent(), tiny_sac.make_agent()
  before = values(actor)
  agent = tf.Module()
  agent.acting_networks = {'encoder': learner.encoder}
  with pytest.raises(ValueError, match='actor/.* same gin files and bindings'):
    weights.unpack(weights.pack(agent), actor)
  for name, value in values(actor).items():
    np.testing.assert_array_equal(value, before[name])
