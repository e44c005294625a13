"""Tests of the Atari encoders."""

import numpy as np
import pytest
import tensorflow as tf

from seer_tf.networks import atari_encoders


@pytest.mark.parametrize(
  'builder, sides, latent_size',
  [
    (atari_encoders.DataEfficientEncoder, [16, 3], 576),
    (atari_encoders.NatureEncoder, [20, 9, 7], 3136),
  ],
)
def test_published_shapes(builder, sides, latent_size):
  encoder = builder((84, 84, 4))
  pixels = tf.cast(tf.random.uniform([2, 84, 84, 4], 0, 256, tf.int32), tf.uint8)
  hidden = tf.cast(pixels, tf.float32) / 255
  for convolution, side in zip(encoder.convolutions, sides):
    hidden = convolution(hidden)
    assert hidden.shape[1:3] == (side, side)
  assert len(encoder.convolutions) == len(sides)
  assert encoder.latent_size == latent_size
  latents = encoder(pixels).numpy()
  np.testing.assert_allclose(latents, hidden.numpy().reshape(2, latent_size), rtol=1e-4, atol=1e-6)
  assert latents.min() == 0 < latents.max()


def test_smallest_image():
  assert atari_encoders.DataEfficientEncoder((25, 25, 1)).latent_size == 64
  with pytest.raises(ValueError, match='size 24 is too small .*DataEfficientEncoder.* 25 pixels'):
    atari_encoders.DataEfficientEncoder((24, 30, 1))
  assert atari_encoders.NatureEncoder((36, 36, 1)).latent_size == 64
  with pytest.raises(ValueError, match='size 35 is too small .*NatureEncoder.* 36 pixels'):
    atari_encoders.NatureEncoder((35, 36, 1))


def test_activations_are_what_the_layers_put_out():
  encoder = atari_encoders.DataEfficientEncoder((50, 50, 1))
  pixels = tf.cast(tf.random.uniform([2, 50, 50, 1], 0, 256, tf.int32), tf.uint8)
  seen = encoder.activations(pixels)
  assert list(seen) == ['conv1', 'conv2']
  np.testing.assert_array_equal(seen['conv2'], encoder.convolutions[1](seen['conv1']))
  np.testing.assert_array_equal(tf.reshape(seen['conv2'], [2, -1]), encoder(pixels))
