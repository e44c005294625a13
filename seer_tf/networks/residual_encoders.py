"""The residual encoder of IMPALA (Espeholt et al. 2018, figure 3, right)."""

from typing import Optional, Sequence, Tuple

import gin
import tensorflow as tf

from seer_tf.networks import encoders


class ResidualStage(tf.keras.layers.Layer):
  """A convolution, a max pooling that halves the sides, then residual blocks.

  A block adds to its input two convolutions of it, each behind a ReLU. All are 3x3, padded.
  """

  def __init__(self, filters: int, blocks: int, final_relu: bool, name: str):
    """Builds layers of `filters` channels; `final_relu`: the output goes through a ReLU as well."""
    super().__init__(name=name)
    convolution = lambda name: tf.keras.layers.Conv2D(filters, 3, padding='same', name=name)
    self._convolution = convolution('conv')
    self._pooling = tf.keras.layers.MaxPool2D(3, 2, 'same', name='pool')
    self._blocks = [
      [convolution(f'block{i + 1}_conv{j + 1}') for j in range(2)] for i in range(blocks)
    ]
    self._final = tf.nn.relu if final_relu else tf.identity

  @property
  def parts(self) -> Sequence[tf.keras.layers.Layer]:
    """See `encoders.parts`."""
    return [self._convolution, self._pooling, *(layer for block in self._blocks for layer in block)]

  def call(self, x):
    """[B, h, w, C] -> [B, ceil(h / 2), ceil(w / 2), filters]."""
    x = self._pooling(self._convolution(x))
    for block in self._blocks:
      hidden = x
      for layer in block:
        hidden = layer(tf.nn.relu(hidden))
      x += hidden
    return self._final(x)


@gin.configurable
class ImpalaEncoder(encoders.Encoder):
  """Residual stages stage1, stage2, …; a ReLU ends the last: 84x84 -> 11 x 11 x 32 = 3872 latents.

  The dense layer of 256 and the LSTM above them are no part of it: heads have layers of their own.
  """

  def __init__(
    self,
    image_shape: Tuple[int, int, int],
    filters: Sequence[int] = (16, 32, 32),
    blocks: int = 2,
    features: Optional[int] = None,
    name: str = 'encoder',
  ):
    """See `encoders.Encoder`.

    Args:
      image_shape: see `encoders.Encoder`.
      filters: channels of each stage.
      blocks: residual blocks per stage.
      features: see `encoders.Encoder`.
      name: see `encoders.Encoder`.
    """
    stages = [
      ResidualStage(count, blocks, i == len(filters), f'stage{i}')
      for i, count in enumerate(filters, 1)
    ]
    super().__init__(image_shape, stages, features, name)
