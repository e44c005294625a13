"""Tests of IMPALA's residual encoder."""

import numpy as np
import pytest
import tensorflow as tf

from seer_tf.networks import residual_encoders, variables


def test_published_shapes():
  encoder = residual_encoders.ImpalaEncoder((84, 84, 4))
  assert encoder.shapes == ((84, 84, 4), (42, 42, 16), (21, 21, 32), (11, 11, 32))
  assert encoder.latent_size == 3872
  # A convolution and two blocks of two in each of three stages, kernel and bias each.
  assert len(encoder.trainable_variables) == 3 * (1 + 2 * 2) * 2


def test_stages_against_the_figure():
  encoder = residual_encoders.ImpalaEncoder((9, 9, 2), filters=(3, 4), blocks=2)
  pixels = tf.cast(tf.random.uniform([2, 9, 9, 2], 0, 256, tf.int32), tf.uint8)
  weights = variables.by_name(encoder)

  def convolve(x, name):
    kernel, bias = weights[f'{name}/kernel'], weights[f'{name}/bias']
    return tf.nn.conv2d(x, kernel, 1, 'SAME') + bias

  x = tf.cast(pixels, tf.float32) / 255
  for stage in ('stage1', 'stage2'):
    x = tf.nn.max_pool2d(convolve(x, f'{stage}/conv'), 3, 2, 'SAME')
    for block in ('block1', 'block2'):
      hidden = convolve(tf.nn.relu(x), f'{stage}/{block}_conv1')
      x += convolve(tf.nn.relu(hidden), f'{stage}/{block}_conv2')
    if stage == 'stage1':
      np.testing.assert_allclose(encoder.activations(pixels)[stage], x, rtol=1e-4, atol=1e-6)
  assert encoder.shapes[-1] == (3, 3, 4)
  expected = tf.reshape(tf.nn.relu(x), [2, -1])
  np.testing.assert_allclose(encoder(pixels), expected, rtol=1e-4, atol=1e-6)


def test_no_stages_are_refused():
  with pytest.raises(ValueError, match='ImpalaEncoder has no convolutions'):
    residual_encoders.ImpalaEncoder((9, 9, 2), filters=())
