"""Tests of noisy dense layers: the distribution of their weights."""

import numpy as np
import tensorflow as tf

from seer_tf.networks import noisy


def _layer(sigma, inputs=4, units=3):
  tf.random.set_seed(0)
  layer = noisy.NoisyDense(units, sigma)
  layer.build((None, inputs))
  return layer


def test_initial_values():
  layer = _layer(0.1, inputs=16, units=9)
  assert np.abs(layer.kernel).max() <= 0.25 and np.std(layer.kernel) > 0.1
  np.testing.assert_allclose(layer.kernel_sigma, np.full([16, 9], 0.1 / 4), rtol=1e-6)
  np.testing.assert_allclose(layer.bias_sigma, np.full([9], 0.1 / 3), rtol=1e-6)
  assert not np.array_equal(layer.kernel[0], layer.bias)


def test_weights_have_the_mean_and_variance_of_factorised_noise():
  """f(e) has mean 0 and variance E|e| = sqrt(2 / pi), and the factors are independent."""
  layer, count = _layer(0.5), 20000
  layer.kernel_sigma.assign(tf.random.uniform([4, 3], 0.1, 1.0))
  layer.bias_sigma.assign(tf.random.uniform([3], 0.1, 1.0))
  draw = tf.function(lambda: tf.map_fn(lambda _: tuple(layer.draw()), tf.zeros([count]),
                                       fn_output_signature=(tf.float32, tf.float32)))  # fmt: skip
  kernels, biases = (drawn.numpy() for drawn in draw())
  variance = np.sqrt(2 / np.pi)
  for drawn, mean, scale in (
    (kernels, layer.kernel, layer.kernel_sigma * variance),
    (biases, layer.bias, layer.bias_sigma * variance**0.5),
  ):
    error = np.asarray(scale).max() / np.sqrt(count)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * error)
    np.testing.assert_allclose(drawn.std(0), scale, rtol=0.05)


def test_noise_is_an_outer_product_that_shares_the_outputs_noise_with_the_bias():
  layer = _layer(0.1)
  weights = layer.draw()
  noise = ((weights.kernel - layer.kernel) / layer.kernel_sigma).numpy()
  assert np.linalg.matrix_rank(noise, tol=1e-4) == 1
  bias = ((weights.bias - layer.bias) / layer.bias_sigma).numpy()
  np.testing.assert_allclose(noise / noise[:, :1], np.tile(bias / bias[0], [4, 1]), rtol=1e-2)


def test_draws_differ_in_a_graph_too_and_the_mean_has_no_noise():
  layer = _layer(0.1)
  draw = tf.function(lambda: layer.draw().kernel)
  assert not np.array_equal(draw(), draw())
  np.testing.assert_array_equal(layer.mean().kernel, layer.kernel)
  np.testing.assert_array_equal(layer.mean().bias, layer.bias)


def test_without_sigma_it_is_a_plain_layer():
  layer = _layer(0.0)
  assert len(layer.variables) == 2
  np.testing.assert_array_equal(layer.draw().kernel, layer.kernel)
