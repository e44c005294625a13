"""The autoencoder of SAC-AE (Yarats et al. 2019)."""

import gin
import tensorflow as tf

from seer_tf.agents import auxiliary
from seer_tf.networks import encoders


def quantised(images, bits: int):
  """Targets of a reconstruction, float32 in [-0.5, 0.5): `bits` kept, uniform noise below them.

  As Glow (Kingma and Dhariwal 2018) prepares images: no decoder can gain from the last bits.

  Args:
    images: uint8, any shape.
    bits: kept of the 8.
  """
  bins = 2.0**bits
  levels = tf.floor(tf.cast(images, tf.float32) / 2.0 ** (8 - bits))
  return (levels + tf.random.uniform(tf.shape(images))) / bins - 0.5


@gin.configurable
class Reconstruction(auxiliary.Auxiliary):
  """SAC-AE's: a decoder draws the observation from its latents.

  The decoder mirrors the convolutions. Its loss: the mean squared error of a pixel, and penalties
  on the size of latents and weights. The latents it sees went through a layer norm (its own here,
  the critic's in published code) and tanh.
  """

  def __init__(
    self,
    lower,
    bits: int = 5,
    latent_penalty: float = 1e-6,
    weight_penalty: float = 1e-7,
    update_period: int = 1,
  ):
    """Builds the decoder.

    Args:
      lower: whose `convolutions` are a chain without padding.
      bits: of each pixel's 8 that it has to draw.
      latent_penalty: times half the squared length of a latent.
      weight_penalty: times half the squared length of the decoder's variables.
      update_period: updates of the critic per update of decoder and encoder for this loss.

    Raises:
      ValueError: for bits, or a period, out of range, and for layers that it cannot mirror.
    """
    super().__init__(lower)
    for layer in lower.convolutions:
      if not isinstance(layer, tf.keras.layers.Conv2D) or layer.padding != 'valid':
        raise ValueError(
          f'Reconstruction mirrors convolutions without padding, which {layer.name} of the encoder '
          f'is not: bind another Experiment.lower_fn, or another SeerSacAgent.auxiliary_fn.'
        )
    if not 1 <= bits <= 8 or update_period < 1:
      raise ValueError(
        f'Reconstruction has bits = {bits}, update_period = {update_period}; give 1 to 8 bits and '
        f'a period of at least 1 update.'
      )
    self.update_period = update_period
    self._bits, self._latent_penalty, self._weight_penalty = bits, latent_penalty, weight_penalty
    shapes = [(1, *lower.image_shape)]
    for convolution in lower.convolutions:
      shapes.append(tuple(convolution.compute_output_shape(shapes[-1])))
    smallest = shapes[-1][1:]
    self._norm = tf.keras.layers.LayerNormalization(epsilon=1e-5, name='layer_norm')
    self._dense = tf.keras.layers.Dense(
      smallest[0] * smallest[1] * smallest[2],
      'relu',
      kernel_initializer=tf.keras.initializers.Orthogonal(),
      name='dense',
    )
    self._reshape = tf.keras.layers.Reshape(smallest)
    self._deconvolutions = [
      _transposed(convolution, wide, narrow, is_last=wide is shapes[0])
      for convolution, wide, narrow in reversed(list(zip(lower.convolutions, shapes, shapes[1:])))
    ]
    self._macs = 0
    self.decode(self.squash(tf.zeros([1, lower.features])))
    for layer, shape in zip(self._deconvolutions, reversed(shapes)):
      self._macs += int(shape[1] * shape[2] * tf.size(layer.kernel))

  def squash(self, latents):
    """What the decoder sees of latents [B, F]: their layer norm, in (-1, 1)."""
    return tf.tanh(self._norm(latents))

  def decode(self, squashed):
    """Images float32 [B, h, w, C] around zero, of squashed latents [B, F]."""
    images = self._reshape(self._dense(squashed))
    for layer in self._deconvolutions:
      images = layer(images)
    return images

  def loss(self, latents, seen):
    """Reconstruction error and penalties."""
    squashed = self.squash(latents)
    error = tf.reduce_mean(
      tf.math.squared_difference(self.decode(squashed), quantised(seen.images, self._bits))
    )
    half_square = lambda x: 0.5 * tf.reduce_sum(tf.square(x), axis=-1)
    latent_size = tf.reduce_mean(half_square(squashed))
    decoder = [self._dense, *self._deconvolutions]
    weight_size = tf.add_n(
      [tf.nn.l2_loss(variable) for layer in decoder for variable in layer.trainable_variables]
    )
    return error + self._latent_penalty * latent_size + self._weight_penalty * weight_size

  def macs(self, batch_size):
    """Of the dense layer and the transposed convolutions, forward and backward."""
    return super().macs(batch_size) + 3 * self._macs


def _transposed(convolution, wide, narrow, is_last: bool) -> tf.keras.layers.Layer:
  """The layer that leads back from the shape `narrow` to `wide`, both (1, h, w, C)."""
  kernel, stride = convolution.kernel_size, convolution.strides
  rest = [wide[i + 1] - ((narrow[i + 1] - 1) * stride[i] + kernel[i]) for i in range(2)]
  return tf.keras.layers.Conv2DTranspose(
    wide[3],
    kernel,
    stride,
    output_padding=rest if max(stride) > 1 else None,
    activation=None if is_last else 'relu',
    kernel_initializer=encoders.DeltaOrthogonal(),
    name=f'de{convolution.name}',
  )
