"""Lower encoders of the published Atari agents: convolutions alone, no projection above them."""

from typing import Dict, Sequence, Tuple

import gin
import tensorflow as tf

from seer_tf.networks import encoders


class FlatConvolutions(tf.keras.Model):
  """Convolutions without padding, each with a ReLU; the latent is their flattened output.

  Attributes:
    image_shape: height, width and channels of the stacked image.
    convolutions: the layers, in their order.
    latent_size: D, numbers in one latent.
  """

  def __init__(
    self,
    image_shape: Tuple[int, int, int],
    layers: Sequence[Tuple[int, int, int]],
    name: str = 'lower',
  ):
    """Builds the encoder's variables.

    Args:
      image_shape: height, width and channels of the stacked image.
      layers: (filters, kernel size, stride) of each convolution.
      name: Keras name; online and target copies carry the same.

    Raises:
      ValueError: when a convolution would have nothing left to look at.
    """
    super().__init__(name=name)
    self.image_shape = tuple(image_shape)
    side = min(image_shape[:2])
    smallest = 1
    for _, kernel, stride in reversed(layers):
      smallest = (smallest - 1) * stride + kernel
    if side < smallest:
      raise ValueError(
        f'image size {side} is too small for the convolutions of {type(self).__name__}: they need '
        f'at least {smallest} pixels. Render larger images, or bind another encoder.'
      )
    self.convolutions = [
      tf.keras.layers.Conv2D(
        filters,
        kernel,
        stride,
        activation='relu',
        # Uniform within 1/sqrt(inputs), the default of the framework of the published code.
        kernel_initializer=tf.keras.initializers.VarianceScaling(1.0 / 3.0, 'fan_in', 'uniform'),
        name=f'conv{i + 1}',
      )
      for i, (filters, kernel, stride) in enumerate(layers)
    ]
    self._flatten = tf.keras.layers.Flatten()
    self.latent_size = self(tf.zeros([1, *image_shape], tf.uint8)).shape[-1]

  def call(self, pixels):
    """Latents float32 [B, D], none negative, of uint8 pixels [B, h, w, C]."""
    return self._flatten(encoders.chain(self.convolutions, pixels)[-1])

  def activations(self, pixels) -> Dict[str, tf.Tensor]:
    """What each layer puts out for uint8 pixels [B, h, w, C]: float32 [B, ...] by layer name."""
    outputs = encoders.chain(self.convolutions, pixels)
    return {layer.name: output for layer, output in zip(self.convolutions, outputs)}


@gin.configurable
class DataEfficientEncoder(FlatConvolutions):
  """Two convolutions of data-efficient Rainbow (van Hasselt et al. 2019): 84x84 -> 576 latents."""

  def __init__(
    self,
    image_shape: Tuple[int, int, int],
    layers: Sequence[Tuple[int, int, int]] = ((32, 5, 5), (64, 5, 5)),
    name: str = 'lower',
  ):
    """See `FlatConvolutions`."""
    super().__init__(image_shape, layers, name)


@gin.configurable
class NatureEncoder(FlatConvolutions):
  """Three convolutions of DQN (Mnih et al. 2015) and Rainbow: 84x84 -> 3136 latents."""

  def __init__(
    self,
    image_shape: Tuple[int, int, int],
    layers: Sequence[Tuple[int, int, int]] = ((32, 8, 4), (64, 4, 2), (64, 3, 1)),
    name: str = 'lower',
  ):
    """See `FlatConvolutions`."""
    super().__init__(image_shape, layers, name)
