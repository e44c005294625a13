"""Image augmentation, in the graph, on uint8 batches."""

from typing import Tuple

import gin
import tensorflow as tf


def crop(images, tops, lefts, size: int):
  """Crops each image at its own offset.

  Args:
    images: [B, H, W, C], any dtype.
    tops: int32 [B], first row of each crop, in [0, H - size].
    lefts: int32 [B], first column of each crop, in [0, W - size].
    size: height and width of the crops in pixels.

  Returns:
    [B, size, size, C], same dtype.
  """
  window = tf.range(size, dtype=tf.int32)
  rows = tf.gather(images, tops[:, tf.newaxis] + window, axis=1, batch_dims=1)
  columns = tf.transpose(rows, [0, 2, 1, 3])
  columns = tf.gather(columns, lefts[:, tf.newaxis] + window, axis=1, batch_dims=1)
  return tf.transpose(columns, [0, 2, 1, 3])


@gin.configurable
class RandomCrop:
  """Random crops for learning, the centre crop for acting (RAD, Laskin et al. 2020).

  Attributes:
    random: True, as two crops of an image differ.
  """

  random = True

  def __init__(self, image_size: int):
    """Crops to `image_size` x `image_size` pixels."""
    self.image_size = image_size

  def output_shape(self, image_shape: Tuple[int, int, int]) -> Tuple[int, int, int]:
    """Shape of the crops of images of shape [H, W, C].

    Raises:
      ValueError: if the crop does not fit into the image.
    """
    if min(image_shape[:2]) < self.image_size:
      raise ValueError(
        f'RandomCrop.image_size is {self.image_size}, larger than the rendered image of '
        f'{image_shape[0]}x{image_shape[1]} pixels: render larger images or crop smaller ones.'
      )
    return (self.image_size, self.image_size, image_shape[2])

  def augment(self, images):
    """Crops [B, H, W, C] at offsets uniform over all (H - s + 1)(W - s + 1) -> [B, s, s, C]."""
    shape = tf.shape(images)
    offsets = lambda length: tf.random.uniform(
      shape[:1], 0, length - self.image_size + 1, dtype=tf.int32
    )
    return crop(images, offsets(shape[1]), offsets(shape[2]), self.image_size)

  def centre(self, images):
    """The crop that acting and evaluation see: [B, H, W, C] -> [B, s, s, C]."""
    top, left = ((side - self.image_size) // 2 for side in images.shape[1:3])
    return images[:, top : top + self.image_size, left : left + self.image_size]


@gin.configurable
class NoAugmentation:
  """Leaves images as they are, as the published Atari agents do.

  Attributes:
    random: False: what acting encodes is what replay stores, so it is encoded once.
  """

  random = False

  def output_shape(self, image_shape: Tuple[int, int, int]) -> Tuple[int, int, int]:
    """The shape of images of shape [H, W, C]: the same."""
    return tuple(image_shape)

  def augment(self, images):
    """Returns `images`."""
    return images

  def centre(self, images):
    """Returns `images`."""
    return images
