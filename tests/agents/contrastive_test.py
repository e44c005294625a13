"""Tests of the contrastive loss against numpy."""

import numpy as np
import tensorflow as tf

from seer_tf.agents import auxiliary, contrastive
from seer_tf.networks import encoders


def reference(queries, keys, bilinear):
  """The cross-entropy as a sum over pairs."""
  losses = []
  for i, query in enumerate(queries):
    similarity = np.array([query @ bilinear @ key for key in keys], np.float64)
    losses.append(np.log(np.exp(similarity - similarity[i]).sum()))
  return np.mean(losses)


def test_loss_against_numpy():
  rng = np.random.default_rng(0)
  queries, keys = rng.normal(size=[2, 7, 5]).astype(np.float32)
  bilinear = rng.uniform(size=[5, 5]).astype(np.float32)
  loss = float(contrastive.contrastive_loss(queries, keys, bilinear))
  np.testing.assert_allclose(loss, reference(queries, keys, bilinear), rtol=1e-5)
  assert abs(loss - float(contrastive.contrastive_loss(keys, queries, bilinear))) > 0.01


def test_large_similarities_do_not_overflow():
  features = 300.0 * np.eye(4, dtype=np.float32)
  assert float(contrastive.contrastive_loss(features, features, np.eye(4, dtype=np.float32))) == 0
  wrong = contrastive.contrastive_loss(features, features[::-1], np.eye(4, dtype=np.float32))
  np.testing.assert_allclose(wrong, 9e4, rtol=1e-5)


def test_part_norms_queries_and_keys():
  rng = np.random.default_rng(0)
  part = contrastive.Contrastive(encoders.ControlEncoder((15, 15, 3), filters=(4,), features=6))
  bilinear = part.bilinear.numpy()
  assert bilinear.shape == (6, 6) and 0 <= bilinear.min() < 0.3 and 0.7 < bilinear.max() < 1
  latents, keys = 5 + 3 * rng.normal(size=[2, 8, 6]).astype(np.float32)
  norm = lambda x: (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
  seen = auxiliary.Seen(None, (tf.constant(keys),), None, None)
  expected = reference(norm(latents), norm(keys), bilinear)
  np.testing.assert_allclose(part.loss(tf.constant(latents), seen), expected, rtol=1e-4)
  assert part.costs(batch_size=8) == (1, 3 * 36 + 2 * 8 * 6, 1.0)
