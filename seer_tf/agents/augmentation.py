"""Image augmentation, in the graph, on uint8 batches: of RAD (Laskin et al. 2020) and DrQ.

All frames of a stack are changed alike, each image of a batch on its own.
"""

from typing import Callable, Sequence, Tuple

import gin
import tensorflow as tf


def take(images, rows, columns):
  """Rows and columns of each image.

  Args:
    images: [B, H, W, C], any dtype.
    rows: int32 [B, h], in [0, H).
    columns: int32 [B, w], in [0, W).

  Returns:
    [B, h, w, C], same dtype.
  """
  taken = tf.gather(images, rows, axis=1, batch_dims=1)
  taken = tf.gather(tf.transpose(taken, [0, 2, 1, 3]), columns, axis=1, batch_dims=1)
  return tf.transpose(taken, [0, 2, 1, 3])


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
  return take(images, tops[:, tf.newaxis] + window, lefts[:, tf.newaxis] + window)


def random_crop(images, size: int):
  """Crops of [B, H, W, C] at offsets uniform over all (H - s + 1)(W - s + 1) -> [B, s, s, C]."""
  shape = tf.shape(images)
  offsets = lambda length: tf.random.uniform(shape[:1], 0, length - size + 1, dtype=tf.int32)
  return crop(images, offsets(shape[1]), offsets(shape[2]), size)


class Augmentation:
  """What every augmentation answers to; one that leaves images as they are.

  Attributes:
    random: whether two augmentations of an image may differ; if not, what acting encodes is what
      replay stores, so it is encoded once.
  """

  random = True

  def output_shape(self, image_shape: Tuple[int, int, int]) -> Tuple[int, int, int]:
    """Shape of augmented images of shape [H, W, C].

    Raises:
      ValueError: if such images cannot be augmented.
    """
    return tuple(image_shape)

  def augment(self, images):
    """What learning sees of images [B, H, W, C], and replay stores after the freeze."""
    return images

  def centre(self, images):
    """What acting and evaluation see of images [B, H, W, C]; not random."""
    return images


@gin.configurable
class NoAugmentation(Augmentation):
  """Leaves images as they are, as the published Atari agents do."""

  random = False


@gin.configurable
class RandomCrop(Augmentation):
  """Random crops for learning, the centre crop for acting (RAD)."""

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
    """See `random_crop`."""
    return random_crop(images, self.image_size)

  def centre(self, images):
    """The crop that acting and evaluation see: [B, H, W, C] -> [B, s, s, C]."""
    top, left = ((side - self.image_size) // 2 for side in images.shape[1:3])
    return images[:, top : top + self.image_size, left : left + self.image_size]


@gin.configurable
class RandomTranslate(Augmentation):
  """Random places in a larger black image for learning, its centre for acting (RAD)."""

  def __init__(self, image_size: int):
    """Places images in `image_size` x `image_size` pixels."""
    self.image_size = image_size

  def output_shape(self, image_shape: Tuple[int, int, int]) -> Tuple[int, int, int]:
    """Shape of the translated images of shape [H, W, C].

    Raises:
      ValueError: if the image does not fit.
    """
    if max(image_shape[:2]) > self.image_size:
      raise ValueError(
        f'RandomTranslate.image_size is {self.image_size}, smaller than the rendered image of '
        f'{image_shape[0]}x{image_shape[1]} pixels: render smaller images or give a larger size.'
      )
    return (self.image_size, self.image_size, image_shape[2])

  def _margins(self, images):
    return [self.image_size - side for side in images.shape[1:3]]

  def augment(self, images):
    """Images [B, H, W, C] at places uniform over all (s - H + 1)(s - W + 1) -> [B, s, s, C]."""
    padding = [[0, 0], *([margin, margin] for margin in self._margins(images)), [0, 0]]
    return random_crop(tf.pad(images, padding), self.image_size)

  def centre(self, images):
    """What acting and evaluation see: [B, H, W, C] -> [B, s, s, C]."""
    halves = ([margin // 2, margin - margin // 2] for margin in self._margins(images))
    return tf.pad(images, [[0, 0], *halves, [0, 0]])


@gin.configurable
class RandomShift(Augmentation):
  """Shifts by up to `padding` pixels each way, borders repeated (DrQ); acting sees the image."""

  def __init__(self, padding: int = 4):
    """Shifts by -padding to padding pixels, in each direction.

    Raises:
      ValueError: for less than one pixel.
    """
    if padding < 1:
      raise ValueError(f'RandomShift.padding is {padding}; give at least 1 pixel.')
    self.padding = padding

  def augment(self, images):
    """Images [B, H, W, C], each shifted by one of (2 padding + 1)^2 offsets, uniformly."""

    def shifted(length):
      offsets = tf.random.uniform(
        tf.shape(images)[:1], -self.padding, self.padding + 1, dtype=tf.int32
      )
      return tf.clip_by_value(offsets[:, tf.newaxis] + tf.range(length), 0, length - 1)

    return take(images, shifted(images.shape[1]), shifted(images.shape[2]))


@gin.configurable
class RandomFlip(Augmentation):
  """Mirrors left and right (RAD), in learning only.

  For tasks alone in which a mirrored image calls for the same action with the same outcome: where
  actions have a left and a right this teaches a policy nonsense.
  """

  def __init__(self, probability: float = 0.2):
    """Mirrors each image with this probability.

    Raises:
      ValueError: if it is none.
    """
    if not 0 < probability <= 1:
      raise ValueError(f'RandomFlip.probability is {probability}; give a value above 0, up to 1.')
    self.probability = probability

  def augment(self, images):
    """Images [B, H, W, C], each mirrored or not."""
    flipped = tf.random.uniform([tf.shape(images)[0], 1, 1, 1]) < self.probability
    return tf.where(flipped, images[:, :, ::-1], images)


@gin.configurable
class Cutout(Augmentation):
  """Blackens a box of random size and place (RAD), in learning only."""

  def __init__(self, smallest: int = 10, largest: int = 29):
    """Boxes have sides of `smallest` to `largest` pixels, both included; by default as published.

    Raises:
      ValueError: if there is no such box.
    """
    if not 1 <= smallest <= largest:
      raise ValueError(
        f'Cutout.smallest is {smallest} and largest {largest}; give 1 <= smallest <= largest.'
      )
    self._sides = (smallest, largest)

  def output_shape(self, image_shape: Tuple[int, int, int]) -> Tuple[int, int, int]:
    """The shape of images of shape [H, W, C]: the same.

    Raises:
      ValueError: if a box could be larger than the image.
    """
    if min(image_shape[:2]) < self._sides[1]:
      raise ValueError(
        f'Cutout.largest is {self._sides[1]}, larger than the image of {image_shape[0]}x'
        f'{image_shape[1]} pixels: give a smaller one.'
      )
    return tuple(image_shape)

  def augment(self, images):
    """Images [B, H, W, C], each with a box inside it, uniform over sizes and then over places."""
    count = tf.shape(images)[0]

    def inside(length):
      side = tf.random.uniform([count], self._sides[0], self._sides[1] + 1, dtype=tf.int32)
      first = tf.random.uniform([count]) * tf.cast(length - side + 1, tf.float32)
      first = tf.cast(first, tf.int32)[:, tf.newaxis]
      positions = tf.range(length)
      return (positions >= first) & (positions < first + side[:, tf.newaxis])

    rows, columns = inside(images.shape[1]), inside(images.shape[2])
    box = rows[:, :, tf.newaxis, tf.newaxis] & columns[:, tf.newaxis, :, tf.newaxis]
    return tf.where(box, tf.zeros([], images.dtype), images)


@gin.configurable
class Chain(Augmentation):
  """Several augmentations, one after another."""

  def __init__(self, parts: Sequence[Callable[[], Augmentation]]):
    """Builds them.

    Args:
      parts: builders, e.g. `Chain.parts = (@RandomCrop, @Cutout)`, in the order in which they run.
    """
    self._parts = [part() for part in parts]
    self.random = any(part.random for part in self._parts)

  def output_shape(self, image_shape: Tuple[int, int, int]) -> Tuple[int, int, int]:
    """Shape of augmented images of shape [H, W, C]; raises what its parts raise."""
    for part in self._parts:
      image_shape = part.output_shape(image_shape)
    return tuple(image_shape)

  def augment(self, images):
    """What learning sees."""
    for part in self._parts:
      images = part.augment(images)
    return images

  def centre(self, images):
    """What acting and evaluation see."""
    for part in self._parts:
      images = part.centre(images)
    return images
