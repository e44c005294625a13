"""Tests of augmentations against plain slicing of arrays."""

import collections
import functools
import itertools

import numpy as np
import pytest
from scipy import stats
import tensorflow as tf

from seer_tf.agents import augmentation


def test_crop_is_slicing():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, [6, 9, 11, 3], dtype=np.uint8)
  tops, lefts = rng.integers(0, 5, 6), rng.integers(0, 7, 6)
  crops = augmentation.crop(images, tf.constant(tops, tf.int32), tf.constant(lefts, tf.int32), 5)
  for image, top, left, cropped in zip(images, tops, lefts, crops.numpy()):
    np.testing.assert_array_equal(cropped, image[top : top + 5, left : left + 5])


def pixels_that_tell_their_place(height, width):
  """uint8 [height, width, 2], none black: row + 1 and column + 1."""
  places = np.meshgrid(np.arange(height), np.arange(width), indexing='ij')
  return np.stack(places, axis=-1).astype(np.uint8) + 1


def assert_uniform(seen, possible):
  """Of all possible values each is seen, about equally often."""
  counts = collections.Counter(seen)
  assert set(counts) == set(possible)
  assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def edges(image, shift):
  """The image moved by (rows, columns), its border repeated."""
  padded = np.pad(image, [(3, 3), (3, 3), (0, 0)], mode='edge')
  return padded[3 + shift[0] :, 3 + shift[1] :][: image.shape[0], : image.shape[1]]


def blackened(image, box):
  (top, height), (left, width) = box
  image = image.copy()
  image[top : top + height, left : left + width] = 0
  return image


def in_black(image, top, left, side):
  black = np.zeros((side, side, 2), np.uint8)
  black[top : top + image.shape[0], left : left + image.shape[1]] = image
  return black


IMAGE = pixels_that_tell_their_place(7, 6)
SPANS = lambda length: [(first, side) for side in (2, 3) for first in range(length - side + 1)]
# Augmentation -> all images that it may make of IMAGE, and whether each is equally likely.
POSSIBLE = {
  'crop': (
    augmentation.RandomCrop(4),
    [IMAGE[top : top + 4, left : left + 4] for top in range(4) for left in range(3)],
    True,
  ),
  'translate': (
    augmentation.RandomTranslate(9),
    [in_black(IMAGE, top, left, 9) for top in range(3) for left in range(4)],
    True,
  ),
  'shift': (
    augmentation.RandomShift(2),
    [edges(IMAGE, shift) for shift in itertools.product(range(-2, 3), repeat=2)],
    True,
  ),
  'flip': (augmentation.RandomFlip(0.5), [IMAGE, IMAGE[:, ::-1]], True),
  'cutout': (
    augmentation.Cutout(2, 3),
    [blackened(IMAGE, box) for box in itertools.product(SPANS(7), SPANS(6))],
    False,
  ),
  'chain': (
    augmentation.Chain(
      [functools.partial(augmentation.RandomCrop, 6), lambda: augmentation.RandomTranslate(7)]
    ),
    [
      in_black(IMAGE[top : top + 6], *place, 7)
      for top in range(2)
      for place in itertools.product(range(2), repeat=2)
    ],
    True,
  ),
}


@pytest.mark.parametrize('name', POSSIBLE)
def test_exactly_the_possible_images_come_and_uniformly(name):
  tf.random.set_seed(0)
  augment, possible, equally = POSSIBLE[name]
  images = tf.tile(IMAGE[np.newaxis], [12000, 1, 1, 1])
  seen = augment.augment(images)
  assert seen.shape[1:] == augment.output_shape(IMAGE.shape) and seen.dtype == images.dtype
  seen = [image.tobytes() for image in seen.numpy()]
  possible = [image.tobytes() for image in possible]
  assert len(set(possible)) == len(possible)
  if equally:
    assert_uniform(seen, possible)
  else:
    assert set(seen) == set(possible)


def test_cutout_is_uniform_over_sides_and_then_places():
  tf.random.set_seed(0)
  images = tf.tile(IMAGE[np.newaxis], [12000, 1, 1, 1])
  black = augmentation.Cutout(2, 3).augment(images).numpy()[..., 0] == 0
  for axis, length in ((2, 7), (1, 6)):
    spans = black.any(axis=axis)
    spans = [(int(first), int(side)) for first, side in zip(spans.argmax(1), spans.sum(1))]
    assert_uniform([side for _, side in spans], (2, 3))
    for side in (2, 3):
      assert_uniform([first for first, s in spans if s == side], range(length - side + 1))


def test_flips_as_often_as_asked():
  tf.random.set_seed(0)
  images = tf.tile(IMAGE[np.newaxis], [8000, 1, 1, 1])
  flipped = np.sum(augmentation.RandomFlip(0.2).augment(images).numpy()[:, 0, 0, 1] != 1)
  assert stats.binomtest(int(flipped), 8000, 0.2).pvalue > 1e-4


def test_what_acting_sees():
  images = tf.constant(IMAGE[np.newaxis])
  centre = lambda augment: augment.centre(images).numpy()[0]
  np.testing.assert_array_equal(centre(augmentation.RandomTranslate(10)), in_black(IMAGE, 1, 2, 10))
  for augment in (augmentation.RandomShift(), augmentation.RandomFlip(), augmentation.Cutout()):
    np.testing.assert_array_equal(centre(augment), IMAGE)
  np.testing.assert_array_equal(centre(POSSIBLE['chain'][0]), in_black(IMAGE[:6], 0, 0, 7))


def test_chain_is_random_if_a_part_is():
  assert not augmentation.Chain([augmentation.NoAugmentation]).random
  assert augmentation.Chain([augmentation.NoAugmentation, augmentation.RandomFlip]).random


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: augmentation.RandomShift(0), 'RandomShift.padding is 0; give at least 1'),
    (lambda: augmentation.RandomFlip(1.5), 'RandomFlip.probability is 1.5; give a value'),
    (lambda: augmentation.Cutout(5, 4), 'Cutout.smallest is 5 and largest 4; give 1 <= smallest'),
    (lambda: augmentation.Cutout().output_shape((28, 40, 9)), 'larger than the image of 28x40'),
    (
      lambda: augmentation.RandomTranslate(84).output_shape((100, 100, 9)),
      'RandomTranslate.image_size is 84, smaller than the rendered image of 100x100',
    ),
    (
      lambda: augmentation.Chain(
        [functools.partial(augmentation.RandomCrop, 25), augmentation.Cutout]
      ).output_shape((40, 40, 3)),
      'larger than the image of 25x25',
    ),
  ],
)
def test_bad_numbers(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_crops_of_a_batch_differ():
  images = tf.tile(tf.reshape(tf.range(100), [1, 10, 10, 1]), [64, 1, 1, 1])
  crops = augmentation.RandomCrop(3).augment(images).numpy()
  assert len({cropped.tobytes() for cropped in crops}) > 20


def test_centre():
  image = np.arange(81).reshape(1, 9, 9, 1)
  crop = augmentation.RandomCrop(5)
  np.testing.assert_array_equal(crop.centre(tf.constant(image)), image[:, 2:7, 2:7])
  np.testing.assert_array_equal(augmentation.RandomCrop(9).centre(tf.constant(image)), image)


def test_output_shape():
  assert augmentation.RandomCrop(84).output_shape((100, 100, 9)) == (84, 84, 9)
  with pytest.raises(ValueError, match='image_size is 84, larger than the rendered image of 64x64'):
    augmentation.RandomCrop(84).output_shape((64, 64, 9))


def test_no_augmentation():
  images = tf.random.uniform([2, 5, 4, 3])
  none = augmentation.NoAugmentation()
  assert none.augment(images) is images and none.centre(images) is images
  assert none.output_shape([5, 4, 3]) == (5, 4, 3)
