"""Encoders of the published Atari agents: convolutions, and above them no projection for DQN."""

from typing import Optional, Sequence, Tuple

import gin
import tensorflow as tf

from seer_tf.networks import encoders


def torch_uniform() -> tf.keras.initializers.Initializer:
  """Uniform within 1/sqrt(inputs), the default of the framework of the published code.

  Biases start at zero, where that framework draws them, too.
  """
  return tf.keras.initializers.VarianceScaling(1.0 / 3.0, 'fan_in', 'uniform')


def _convolutions(layers: Sequence[Tuple[int, int, int]]):
  """Convolutions conv1, conv2, … of (filters, kernel size, stride), unpadded, each with a ReLU."""
  return [
    tf.keras.layers.Conv2D(
      filters,
      kernel,
      stride,
      activation='relu',
      kernel_initializer=torch_uniform(),
      name=f'conv{i + 1}',
    )
    for i, (filters, kernel, stride) in enumerate(layers)
  ]


@gin.configurable
class DataEfficientEncoder(encoders.Encoder):
  """Two convolutions of data-efficient Rainbow (van Hasselt et al. 2019): 84x84 -> 576 latents."""

  def __init__(
    self,
    image_shape: Tuple[int, int, int],
    layers: Sequence[Tuple[int, int, int]] = ((32, 5, 5), (64, 5, 5)),
    features: Optional[int] = None,
    name: str = 'encoder',
  ):
    """See `encoders.Encoder`; layers are (filters, kernel size, stride) of each convolution."""
    super().__init__(image_shape, _convolutions(layers), features, name)


@gin.configurable
class NatureEncoder(encoders.Encoder):
  """Three convolutions of DQN (Mnih et al. 2015) and Rainbow: 84x84 -> 3136 latents."""

  def __init__(
    self,
    image_shape: Tuple[int, int, int],
    layers: Sequence[Tuple[int, int, int]] = ((32, 8, 4), (64, 4, 2), (64, 3, 1)),
    features: Optional[int] = None,
    name: str = 'encoder',
  ):
    """See `encoders.Encoder`; layers are (filters, kernel size, stride) of each convolution."""
    super().__init__(image_shape, _convolutions(layers), features, name)
