"""Tests of random crops against plain slicing."""

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


def test_offsets_are_uniform_over_all():
  side, size, count = 7, 4, 16000
  rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing='ij')
  image = np.stack([rows, columns], axis=-1).astype(np.uint8)
  images = tf.tile(image[np.newaxis], [count, 1, 1, 1])
  corners = augmentation.RandomCrop(size).augment(images).numpy()[:, 0, 0].astype(int)
  offsets = side - size + 1
  counts = np.bincount(corners[:, 0] * offsets + corners[:, 1], minlength=offsets**2)
  assert len(counts) == offsets**2 and counts.min() > 0
  assert stats.chisquare(counts).pvalue > 1e-4


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
