"""Tests of SAC-AE's decoder, its targets and its loss."""

import numpy as np
import pytest
import tensorflow as tf

from seer_tf.agents import auxiliary, reconstruction
from seer_tf.networks import encoders, residual_encoders


def seen(images):
  return auxiliary.Seen(tf.constant(images), (), None, None)


def test_targets_keep_the_upper_bits():
  images = np.arange(256, dtype=np.uint8)
  targets = np.stack([reconstruction.quantised(images, 5).numpy() for _ in range(50)])
  lowest = np.floor(images / 8) / 32 - 0.5
  assert (targets >= lowest).all() and (targets < lowest + 1 / 32 + 1e-6).all()
  noise = (targets - lowest) * 32
  np.testing.assert_allclose([noise.mean(), noise.var()], [1 / 2, 1 / 12], atol=0.01)


@pytest.mark.parametrize('side, filters', [(15, (4, 4)), (16, (4, 6, 8)), (84, (4, 4, 4, 4))])
def test_decoder_mirrors_the_convolutions(side, filters):
  lower = encoders.ControlEncoder((side, side, 9), filters=filters, features=5)
  part = reconstruction.Reconstruction(lower)
  assert part.decode(part.squash(tf.ones([2, 5]))).shape == (2, side, side, 9)
  shapes = [layer.kernel.shape.as_list() for layer in reversed(part._deconvolutions)]
  assert shapes == [layer.kernel.shape.as_list() for layer in lower.convolutions]


def test_macs_by_hand():
  lower = encoders.ControlEncoder((15, 15, 3), filters=(4, 6), features=5)
  part = reconstruction.Reconstruction(lower, update_period=2)
  # 15 -> 7 -> 5: dense to 5x5x6; back to 7x7x4 from 5x5, and to 15x15x3 from 7x7.
  forward = 5 * (5 * 5 * 6) + 5 * 5 * (9 * 6 * 4) + 7 * 7 * (9 * 4 * 3)
  assert part.costs(batch_size=8) == (0, 3 * forward, 0.5)


def test_loss_against_numpy():
  lower = encoders.ControlEncoder((15, 15, 3), filters=(4, 4), features=5)
  part = reconstruction.Reconstruction(lower, bits=8, latent_penalty=0.1, weight_penalty=0.01)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, [4, 15, 15, 3], dtype=np.uint8)
  latents = tf.constant(rng.normal(size=[4, 5]).astype(np.float32))
  squashed = part.squash(latents).numpy()
  drawn = part.decode(squashed).numpy()
  error = np.mean((drawn - (images / 256 - 0.5)) ** 2)
  size = np.mean(np.sum(squashed**2, axis=1)) / 2
  weights = sum(np.sum(v.numpy() ** 2) for v in part.trainable_variables if 'norm' not in v.name)
  expected = error + 0.1 * size + 0.01 * weights / 2
  np.testing.assert_allclose(part.loss(latents, seen(images)), expected, rtol=2e-3)


def test_reconstructs_a_tiny_set():
  """Six images of smooth colours: what is left is less than a quarter of how they differ."""
  tf.keras.utils.set_random_seed(0)
  lower = encoders.ControlEncoder((15, 15, 3), filters=(8, 8), features=8)
  part = reconstruction.Reconstruction(lower)
  place = np.linspace(0, 1, 15)
  colours = np.random.default_rng(0).uniform(0, 120, [6, 2, 1, 1, 3])
  images = colours[:, 0] * place[:, None, None] + colours[:, 1] * place[None, :, None]
  images = tf.constant(images.astype(np.uint8))
  optimizer = tf.keras.optimizers.legacy.Adam(1e-2)
  learned = [*lower.critic_variables, *part.trainable_variables]

  @tf.function
  def update():
    with tf.GradientTape() as tape:
      loss = part.loss(lower.halves(lower.encode_frozen(images)).critic, seen(images))
    optimizer.apply_gradients(zip(tape.gradient(loss, learned), learned))

  def error():
    drawn = part.decode(part.squash(lower(images)[:, :8])).numpy()
    return np.mean((drawn - wanted) ** 2)

  wanted = images.numpy() / 256 - 0.5
  variance = np.mean((wanted - wanted.mean(axis=0)) ** 2)
  assert error() > variance
  for _ in range(600):
    update()
  assert error() < 0.25 * variance


@pytest.mark.parametrize('numbers', [dict(bits=0), dict(bits=9), dict(update_period=0)])
def test_bad_numbers(numbers):
  lower = encoders.ControlEncoder((15, 15, 3), filters=(4,), features=5)
  with pytest.raises(ValueError, match='give 1 to 8 bits and a period of at least 1'):
    reconstruction.Reconstruction(lower, **numbers)


def test_layers_that_cannot_be_mirrored():
  encoder = residual_encoders.ImpalaEncoder((15, 15, 3), filters=(4,), features=5)
  with pytest.raises(ValueError, match='which stage1 of the encoder is not'):
    reconstruction.Reconstruction(encoder)
