"""Tests of pairing variables by name."""

import numpy as np
import pytest
import tensorflow as tf

from seer_tf.networks import encoders, variables


def _encoder(features=3):
  return encoders.ControlEncoder((15, 15, 3), filters=(4, 4), features=features)


def _values(encoder):
  return {name: v.numpy() for name, v in variables.by_name(encoder).items()}


def test_copy_matches_layers_although_freezing_reorders_variables():
  source, target = _encoder(), _encoder()
  for i, variable in enumerate(source.variables):
    variable.assign(tf.fill(variable.shape, float(i)))
  expected = _values(source)
  source.convolutions[0].trainable = False
  assert [v.name for v in source.variables] != [v.name for v in target.variables]
  variables.copy(source, target)
  for name, value in _values(target).items():
    np.testing.assert_array_equal(value, expected[name])


def test_track_moves_by_the_fraction():
  source, target = _encoder(), _encoder()
  before, goal = _values(target), _values(source)
  variables.track(source, target, 0.25)
  for name, value in _values(target).items():
    np.testing.assert_allclose(value, 0.75 * before[name] + 0.25 * goal[name], rtol=1e-6, atol=1e-7)


def test_mismatches_are_named():
  with pytest.raises(ValueError, match=r'critic_projection/kernel.*\(\d+, 3\).*\(\d+, 5\)'):
    variables.copy(_encoder(3), _encoder(5))
  shallow = encoders.ControlEncoder((15, 15, 3), filters=(4,), features=3)
  with pytest.raises(ValueError, match='only one of them has .*conv2/bias'):
    variables.copy(_encoder(), shallow)


def test_ambiguous_names_are_refused():
  layers = [tf.keras.layers.Dense(1, name='same') for _ in range(2)]
  model = tf.keras.Model(name='model')
  model.first, model.second = layers
  for layer in layers:
    layer.build((None, 1))
  with pytest.raises(ValueError, match="called 'same/kernel'|called 'kernel'"):
    variables.by_name(model)
