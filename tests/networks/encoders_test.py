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
  assert [shape[0] for shape in encoder.shapes] == [84, 41, 39, 37, 35, 100]
  assert encoder(pixels).shape == (2, 100)
  assert encoder.latent_size == 100


def test_latents_are_the_two_halves():
  encoder = encoders.ControlEncoder((15, 15, 3), features=5)
  pixels = tf.cast(tf.random.uniform([4, 15, 15, 3], 0, 256, tf.int32), tf.uint8)
  halves = encoder.halves(encoder.encode_frozen(pixels))
  projections, hidden = encoder.stages[-1], encoders.joined(encoder.activations(pixels)['conv4'])
  np.testing.assert_array_equal(halves.critic, projections.critic_projection(hidden))
  np.testing.assert_array_equal(halves.actor, projections.actor_projection(hidden))
  np.testing.assert_array_equal(encoder(pixels), tf.concat(halves, axis=1))


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


def test_convolutions_start_as_asked():
  encoder = encoders.ControlEncoder(
    (15, 15, 3), filters=(4, 6), initializer_fn=lambda: tf.keras.initializers.Orthogonal(2.0**0.5)
  )
  for convolution in encoder.convolutions:
    flat = tf.reshape(convolution.kernel, [-1, convolution.filters])
    np.testing.assert_allclose(
      tf.matmul(flat, flat, transpose_a=True), 2 * np.eye(convolution.filters), atol=1e-5
    )
  assert not encoder.convolutions[0].bias.numpy().any()


def test_smallest_image():
  assert encoders.ControlEncoder((15, 15, 3))(tf.zeros([1, 15, 15, 3], tf.uint8)).shape == (1, 100)
  with pytest.raises(ValueError, match='image size 14 is too small .* at least 15 pixels'):
    encoders.ControlEncoder((14, 14, 3))


def test_smallest_image_of_an_own_encoder_that_pools():
  layers = lambda: [tf.keras.layers.Conv2D(4, 3), tf.keras.layers.MaxPool2D(3)]
  assert encoders.Encoder((5, 5, 3), layers(), None)(tf.zeros([1, 5, 5, 3])).shape == (1, 4)
  with pytest.raises(ValueError, match='image size 4 is too small .* at least 5 pixels'):
    encoders.Encoder((4, 4, 3), layers(), None)


def test_activations_are_what_the_layers_put_out():
  encoder = encoders.ControlEncoder((17, 17, 3), filters=(4, 6), features=5)
  pixels = tf.cast(tf.random.uniform([2, 17, 17, 3], 0, 256, tf.int32), tf.uint8)
  seen = encoder.activations(pixels)
  names = ['conv1', 'conv2', 'dense/critic', 'dense/actor']
  assert list(seen) == names
  assert [tuple(seen[name].shape) for name in names[:2]] == [(2, 8, 8, 4), (2, 6, 6, 6)]
  np.testing.assert_array_equal(seen['conv2'], encoder.convolutions[1](seen['conv1']))
  np.testing.assert_array_equal(
    tf.concat([seen['dense/critic'], seen['dense/actor']], axis=1), encoder(pixels)
  )


def test_no_projections_without_features():
  encoder = encoders.ControlEncoder((15, 15, 3), filters=(4, 6), features=None)
  pixels = tf.cast(tf.random.uniform([2, 15, 15, 3], 0, 256, tf.int32), tf.uint8)
  assert [stage.name for stage in encoder.stages] == ['conv1', 'conv2']
  assert encoder.latent_size == 5 * 5 * 6
  last = tf.reshape(encoder.activations(pixels)['conv2'], [2, -1])
  np.testing.assert_array_equal(encoder(pixels), last)


@pytest.mark.parametrize('frozen', range(4))
def test_frozen_and_learning_stages_make_the_whole(frozen):
  encoder = encoders.ControlEncoder((15, 15, 3), filters=(4, 6), features=5)
  for stage in encoder.stages[:frozen]:
    stage.trainable = False
  pixels = tf.cast(tf.random.uniform([2, 15, 15, 3], 0, 256, tf.int32), tf.uint8)
  assert encoder.frozen == frozen
  hidden = encoder.encode_frozen(pixels)
  assert hidden.shape == (2, [675, 196, 150, 10][frozen])
  np.testing.assert_array_equal(encoders.joined(encoder.encode_learning(hidden)), encoder(pixels))
  np.testing.assert_array_equal(encoder.halves(hidden).actor, encoder(pixels)[:, 5:])


@pytest.mark.parametrize('name', ['conv3', 'critic', 'pixels', '', 2])
def test_a_cut_elsewhere_is_refused_with_the_layers_that_would_do(name):
  encoder = encoders.ControlEncoder((15, 15, 3), filters=(4, 6))
  with pytest.raises(ValueError, match=rf'is {name!r}, .*only above conv1, conv2, dense: name one'):
    encoder.cut(name)


def test_no_convolutions_are_refused():
  with pytest.raises(ValueError, match='ControlEncoder has no convolutions'):
    encoders.ControlEncoder((15, 15, 3), filters=())
