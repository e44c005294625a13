"""The contrastive loss of CURL (Laskin, Srinivas, Abbeel 2020)."""

import gin
import tensorflow as tf

from seer_tf.agents import auxiliary


def normalised(latents):
  """Layer norm of latents [B, F] without gain and bias."""
  mean, variance = tf.nn.moments(latents, axes=[-1], keepdims=True)
  return (latents - mean) * tf.math.rsqrt(variance + 1e-5)


def contrastive_loss(queries, keys, bilinear):
  """Mean cross-entropy of q_i W k_j over j against j = i (van den Oord et al. 2018).

  Args:
    queries: float32 [B, F].
    keys: float32 [B, F]; the key of query i is number i, all others are its negatives.
    bilinear: W, float32 [F, F].
  """
  logits = tf.matmul(tf.matmul(queries, bilinear), keys, transpose_b=True)
  labels = tf.range(tf.shape(logits)[0])
  return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


@gin.configurable
class Contrastive(auxiliary.Auxiliary):
  """CURL's: tells an observation's two views from other ones.

  Query: the crop that the critic's loss saw, by the online encoder. Key: another crop of the same
  observation, by the target encoder. Published code norms both by the critic's layer norm; here
  they are normed without gain and bias, which keeps the heads to themselves: W absorbs the gains,
  and the biases come to one number per key.
  """

  views = 1

  def __init__(self, lower):
    """Makes W, uniform in [0, 1) as published."""
    super().__init__(lower)
    self.bilinear = tf.Variable(tf.random.uniform([lower.features] * 2), name='bilinear')

  def loss(self, latents, seen):
    """See `contrastive_loss`."""
    (keys,) = seen.keys
    return contrastive_loss(normalised(latents), normalised(keys), self.bilinear)

  def macs(self, batch_size):
    """Of z W with the gradients of both, and of its products with the keys, which have none."""
    features = self.bilinear.shape[0]
    return 3 * features**2 + 2 * features * batch_size
