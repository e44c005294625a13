"""Tests of the transfer of weights, from checkpoints as a run leaves them."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.utils import common

from seer_tf.networks import encoders, transfer, variables


def encoder(**changes):
  values = dict(image_shape=(15, 15, 3), filters=(4, 6), features=3)
  return encoders.ControlEncoder(**{**values, **changes})


def weights(network):
  return {name: variable.numpy() for name, variable in variables.by_name(network).items()}


@pytest.fixture
def saved(tmp_path):
  """A function that saves an agent's parts as a run does, and gives its root_dir."""

  def save(**parts):
    agent = tf.Module()
    for name, part in parts.items():
      setattr(agent, name, part)
    checkpoints = str(tmp_path / 'train' / 'checkpoints')
    common.Checkpointer(checkpoints, agent=agent, train_step=tf.Variable(3)).save(3)
    return str(tmp_path)

  return save


def test_weights_are_transferred_by_name_not_by_place(saved):
  source, target_source = encoder(), encoder()
  source.convolutions[0].trainable = False  # reorders its variables
  root_dir = saved(target_encoder=target_source, encoder=source)
  lower = encoder()
  transfer.load(lower, root_dir)
  expected, loaded = weights(source), weights(lower)
  assert loaded.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(loaded[name], value)


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(features=5), r'projection/\w+ has shape \([0-9, ]*3,?\) in .*5,?\) in this run'),
    (dict(image_shape=(15, 15, 9)), r'conv1/kernel has shape \(3, 3, 3, 4\).*\(3, 3, 9, 4\)'),
    (dict(filters=(4, 6, 6)), r"another one: .* only this run \['conv3/bias', 'conv3/kernel'\]"),
    (dict(filters=(4,)), r"another one: only it has \['conv2/bias', 'conv2/kernel'\]"),
  ],
)
def test_another_encoder_is_refused_and_nothing_loaded(saved, changes, message):
  root_dir = saved(encoder=encoder())
  lower = encoder(**changes)
  before = weights(lower)
  with pytest.raises(ValueError, match=message) as error:
    transfer.load(lower, root_dir)
  assert '\n' not in str(error.value)
  for name, value in weights(lower).items():
    np.testing.assert_array_equal(value, before[name])


def test_a_missing_run_is_refused(tmp_path):
  with pytest.raises(ValueError, match='no weights to transfer in .*nowhere: it has no checkpoint'):
    transfer.load(encoder(), str(tmp_path / 'nowhere'))


def test_a_foreign_run_is_refused(saved):
  root_dir = saved(network=encoder())
  with pytest.raises(ValueError, match='is not of a run of this project'):
    transfer.load(encoder(), root_dir)
