"""Tests of the lower encoders."""

import numpy as np
import pytest
import tensorflow as tf

from seer_tf.networks import encoders


def test_published_shapes():
  encoder = encoders.ControlEncoder((84, 84, 9))
  pixels = tf.zeros([2, 84, 84, 9], tf.uint8)
  hidden, sides = tf.cast(pixels, tf.float32), []
  for convolution in encoder.convolutions:
    hidden = convolution(hidden)
    sides.append(hidden.shape[1])
  assert sides == [41, 39, 37, 35]
  assert encoder.convolve(pixels).shape == (2, 39200)
  assert encoder(pixels).shape == (2, 100)
  assert encoder.latent_size == 100


def test_latents_are_the_two_halves():
  encoder = encoders.ControlEncoder((15, 15, 3), features=5)
  pixels = tf.cast(tf.random.uniform([4, 15, 15, 3], 0, 256, tf.int32), tf.uint8)
  hidden = encoder.convolve(pixels)
  np.testing.assert_array_equal(encoder(pixels)[:, :5], encoder.critic_latents(hidden))
  np.testing.assert_array_equal(encoder(pixels)[:, 5:], encoder.actor_latents(hidden))


def test_actor_gradient_stops_above_the_convolutions():
  encoder = encoders.ControlEncoder((15, 15, 3), features=5)
  pixels = tf.cast(tf.random.uniform([4, 15, 15, 3], 0, 256, tf.int32), tf.uint8)
  variables = encoder.trainable_variables
  critic, actor = encoder.critic_variables, encoder.actor_variables
  for half, reached in ((slice(0, 5), critic), (slice(5, 10), actor)):
    with tf.GradientTape() as tape:
      loss = tf.reduce_sum(encoder(pixels)[:, half] ** 2)
    gradients = zip(variables, tape.gradient(loss, variables))
    names = {v.name for v, gradient in gradients if gradient is not None and np.any(gradient)}
    assert names == {variable.name for variable in reached}
  assert len(critic) + len(actor) == len(variables)


def test_convolutions_start_orthogonal_at_the_centre():
  kernel = encoders.DeltaOrthogonal(gain=1.0)((3, 3, 4, 6)).numpy()
  centre = kernel[1, 1].copy()
  np.testing.assert_allclose(centre @ centre.T, np.eye(4), atol=1e-5)
  kernel[1, 1] = 0
  assert not kernel.any()


def test_smallest_image():
  assert encoders.ControlEncoder((15, 15, 3))(tf.zeros([1, 15, 15, 3], tf.uint8)).shape == (1, 100)
  with pytest.raises(ValueError, match='image size 14 is too small .* at least 15 pixels'):
    encoders.ControlEncoder((14, 14, 3))


def test_activations_are_what_the_layers_put_out():
  encoder = encoders.ControlEncoder((17, 17, 3), filters=(4, 6), features=5)
  pixels = tf.cast(tf.random.uniform([2, 17, 17, 3], 0, 256, tf.int32), tf.uint8)
  seen = encoder.activations(pixels)
  names = ['conv1', 'conv2', 'critic_projection', 'actor_projection']
  assert list(seen) == names
  assert [tuple(seen[name].shape) for name in names[:2]] == [(2, 8, 8, 4), (2, 6, 6, 6)]
  np.testing.assert_array_equal(tf.reshape(seen['conv2'], [2, -1]), encoder.convolve(pixels))
  np.testing.assert_array_equal(
    tf.concat([seen['critic_projection'], seen['actor_projection']], axis=1), encoder(pixels)
  )
