"""Lower encoders: the part of a network below the cut, from pixels to one flat latent vector.

A lower encoder is the only thing that the freeze switch freezes, and the only thing whose output
replay stores. Everything above it (layer norms, critics, actor) is a head and lives in `heads.py`.
"""

from typing import Dict, List, Sequence, Tuple

import gin
import tensorflow as tf


class DeltaOrthogonal(tf.keras.initializers.Initializer):
  """Zero kernel but for an orthogonal matrix at its centre (Xiao et al. 2018, section 4).

  The convolution then starts as one orthogonal map of the channels, which is how the published
  control encoders are initialised.
  """

  def __init__(self, gain=2.0**0.5):
    self._orthogonal = tf.keras.initializers.Orthogonal(gain)

  def __call__(self, shape, dtype=None, **kwargs):
    """Returns a kernel of `shape`, [height, width, channels in, channels out]."""
    height, width, channels_in, channels_out = shape
    centre = self._orthogonal((channels_in, channels_out), dtype=dtype)
    top, left = height // 2, width // 2
    padding = ((top, height - top - 1), (left, width - left - 1), (0, 0), (0, 0))
    return tf.pad(centre[tf.newaxis, tf.newaxis], padding)


def chain(layers: Sequence[tf.keras.layers.Layer], pixels) -> List[tf.Tensor]:
  """Outputs of layers that run one after another on uint8 pixels [B, h, w, C], scaled to [0, 1]."""
  outputs = [tf.cast(pixels, tf.float32) * (1.0 / 255.0)]
  for layer in layers:
    outputs.append(layer(outputs[-1]))
  return outputs[1:]


@gin.configurable
class ControlEncoder(tf.keras.Model):
  """The encoder of the published control agents, with both of its projections.

  Convolutions 3x3 without padding (the first with stride 2, the others with stride 1) are shared.
  Two dense projections of their flattened output follow, one for the critic and one for the actor;
  the latent is `critic | actor`. The actor's projection reads the convolutions through a
  `stop_gradient`, so that only the critic's loss ever reaches them, whatever is computed above.

  With the defaults an 84x84 image gives 41, 39, 37 and 35 wide feature maps and 2 x 50 latents.
  """

  def __init__(
    self,
    image_shape: Tuple[int, int, int],
    filters: Sequence[int] = (32, 32, 32, 32),
    features: int = 50,
    name: str = 'lower',
  ):
    """Builds the encoder's variables.

    Args:
      image_shape: height, width and channels of the (cropped, stacked) image.
      filters: filters of each convolution.
      features: width of each of the two projections.
      name: Keras name; online and target copies carry the same.

    Raises:
      ValueError: when a convolution would have nothing left to look at.
    """
    super().__init__(name=name)
    self.image_shape = tuple(image_shape)
    self.features = features
    self.latent_size = 2 * features
    side = min(image_shape[:2])
    smallest = 4 * len(filters) - 1
    if side < smallest:
      raise ValueError(
        f'image size {side} is too small for {len(filters)} convolutions of 3x3, the first with '
        f'stride 2: they need at least {smallest} pixels. Render and crop larger images, or bind '
        f'fewer ControlEncoder.filters.'
      )
    self.convolutions = [
      tf.keras.layers.Conv2D(
        count,
        3,
        strides=1 if i else 2,
        activation='relu',
        kernel_initializer=DeltaOrthogonal(),
        name=f'conv{i + 1}',
      )
      for i, count in enumerate(filters)
    ]
    self._flatten = tf.keras.layers.Flatten()
    dense = lambda name: tf.keras.layers.Dense(
      features, kernel_initializer=tf.keras.initializers.Orthogonal(), name=name
    )
    self.critic_projection = dense('critic_projection')
    self.actor_projection = dense('actor_projection')
    self(tf.zeros([1, *image_shape], tf.uint8))

  @property
  def critic_variables(self):
    """Trainable variables that the critic's loss reaches: convolutions and critic projection."""
    layers = [*self.convolutions, self.critic_projection]
    return [variable for layer in layers for variable in layer.trainable_variables]

  @property
  def actor_variables(self):
    """Trainable variables that the actor's loss reaches: its projection."""
    return self.actor_projection.trainable_variables

  def convolve(self, pixels):
    """Flattened convolution features, float32 [B, F], of uint8 pixels [B, h, w, C]."""
    return self._flatten(chain(self.convolutions, pixels)[-1])

  def activations(self, pixels) -> Dict[str, tf.Tensor]:
    """What each layer puts out for uint8 pixels [B, h, w, C]: float32 [B, ...] by layer name."""
    outputs = chain(self.convolutions, pixels)
    hidden = self._flatten(outputs[-1])
    layers = [*self.convolutions, self.critic_projection, self.actor_projection]
    outputs += [self.critic_latents(hidden), self.actor_latents(hidden)]
    return {layer.name: output for layer, output in zip(layers, outputs)}

  def critic_latents(self, hidden):
    """The critic's half of the latent, float32 [B, features], of `convolve`'s output."""
    return self.critic_projection(hidden)

  def actor_latents(self, hidden):
    """The actor's half of the latent, float32 [B, features], of `convolve`'s output."""
    return self.actor_projection(tf.stop_gradient(hidden))

  def call(self, pixels):
    """Latents float32 [B, 2 * features], `critic | actor`, of uint8 pixels [B, h, w, C]."""
    hidden = self.convolve(pixels)
    return tf.concat([self.critic_latents(hidden), self.actor_latents(hidden)], axis=-1)
