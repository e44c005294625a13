"""Auxiliary losses: what trains the lower encoder besides the critic's loss, until the freeze.

A part sees the critic's half of the latents, as the critic's loss of the same update saw them: no
observation is encoded for it again. Like every loss it owns an Adam state for the encoder. It ends
with the lower encoder's training by itself, as the agent then has the null part in its place.

A part of one's own is an `Auxiliary` with variables made in `__init__` and a `loss`, bound by
`SeerSacAgent.auxiliary_fn = @MyPart`.
"""

from typing import Callable, NamedTuple, Sequence

import gin
import tensorflow as tf
from tf_agents.trajectories import trajectory

from seer_tf.costs import flops
from seer_tf.networks import encoders


class Seen(NamedTuple):
  """What an auxiliary loss may look at besides the latents of o_t. None of it has a gradient."""

  images: tf.Tensor  # uint8 [B, h, w, C]: o_t, augmented, as the lower encoder saw it
  keys: Sequence[tf.Tensor]  # `views` times float32 [B, F]: further views, by the target encoder
  next_latents: tf.Tensor  # float32 [B, F]: of o_{t+n}, augmented, by the target encoder
  transition: trajectory.Transition  # the batch as it was sampled


class Auxiliary(tf.Module):
  """What every auxiliary part answers to; its variables are those that a `tf.Module` finds.

  Attributes:
    views: further augmented views of o_t that the target encoder is to encode for `Seen.keys`.
    update_period: updates of the critic per update of this part.
  """

  views = 0
  update_period = 1

  def __init__(self, lower: encoders.Encoder):
    """Builds the part's variables.

    Args:
      lower: the online encoder, for its shapes; not to be kept.
    """
    super().__init__()

  def loss(self, latents, seen: Seen):
    """The loss, a scalar, of the critic's latents float32 [B, F] of o_t."""
    raise NotImplementedError

  def train(self, updates, descend: Callable) -> tf.Tensor:
    """Descends the loss where it is due.

    Args:
      updates: int64, updates made so far.
      descend: (loss, variables) -> the loss; descends it on these and on the lower encoder.

    Returns:
      The loss, zero where it is not due.
    """
    return tf.cond(
      tf.equal(updates % self.update_period, 0),
      lambda: descend(self.loss, self.trainable_variables),
      lambda: tf.constant(0.0),
    )

  def macs(self, batch_size: int) -> int:
    """MAC per transition of the loss's own layers, forward and backward; here its dense ones."""
    return 3 * sum(flops.dense_macs(self))

  def costs(self, batch_size: int) -> flops.Auxiliary:
    """What this part adds to an update."""
    return flops.Auxiliary(self.views, self.macs(batch_size), 1.0 / self.update_period)


@gin.configurable
class NoAuxiliary(Auxiliary):
  """No auxiliary loss."""

  def train(self, updates, descend):
    """Zero; nothing is computed."""
    return tf.constant(0.0)

  def costs(self, batch_size):
    """Nothing."""
    return flops.NO_AUXILIARY
