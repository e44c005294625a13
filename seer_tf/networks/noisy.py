"""Noisy dense layers: exploration by perturbed weights (Fortunato et al. 2018)."""

from typing import NamedTuple

import tensorflow as tf


class Weights(NamedTuple):
  """What a dense layer computes with: its mean weights, or one draw of noisy ones."""

  kernel: tf.Tensor  # [inputs, units]
  bias: tf.Tensor  # [units]


class NoisyDense(tf.keras.layers.Layer):
  """A dense layer whose weights can be drawn anew, with factorised Gaussian noise (equation 10).

      kernel = mean + sigma * f(e_in) f(e_out)^T,   bias = mean + sigma * f(e_out)

  with independent standard normal e and f(e) = sign(e) sqrt(|e|). Sigmas are learned; they begin at
  `sigma` / sqrt(inputs) in the kernel and, as in the published code, `sigma` / sqrt(units) in the
  bias. Means begin uniform within 1 / sqrt(inputs). The layer holds no noise: who draws weights
  decides how long they are used.
  """

  def __init__(self, units: int, sigma: float = 0.0, name: str = None):
    """A layer of `units`; with `sigma` 0 it has no sigmas, and is a plain dense layer."""
    super().__init__(name=name)
    self.units = units
    self.sigma = sigma

  def build(self, input_shape):
    """Makes the variables for inputs [B, inputs]."""
    inputs = input_shape[-1]
    bound = inputs**-0.5
    uniform = lambda: tf.keras.initializers.RandomUniform(-bound, bound)
    constant = lambda value: tf.keras.initializers.Constant(self.sigma * value)
    self.kernel = self.add_weight('kernel', [inputs, self.units], initializer=uniform())
    self.bias = self.add_weight('bias', [self.units], initializer=uniform())
    if self.sigma:
      self.kernel_sigma = self.add_weight(
        'kernel_sigma', self.kernel.shape, initializer=constant(bound)
      )
      self.bias_sigma = self.add_weight(
        'bias_sigma', self.bias.shape, initializer=constant(self.units**-0.5)
      )
    super().build(input_shape)

  def mean(self) -> Weights:
    """The weights without noise."""
    return Weights(tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.bias))

  def draw(self) -> Weights:
    """Weights with new noise, the same for a whole batch; the mean if there are no sigmas."""
    if not self.sigma:
      return self.mean()
    noise_in, noise_out = (_scaled_noise(size) for size in self.kernel.shape)
    noise = noise_in[:, tf.newaxis] * noise_out
    return Weights(self.kernel + self.kernel_sigma * noise, self.bias + self.bias_sigma * noise_out)


def _scaled_noise(size: int):
  noise = tf.random.normal([size])
  return tf.sign(noise) * tf.sqrt(tf.abs(noise))
