"""What every agent of this project shares: one lower encoder, heads above it, and the switch.

A split agent is a TF-Agents agent whose networks see latents. Its losses are written once, over
latents; whether these come out of the lower encoder inside the gradient tape or out of replay is
decided by `latents` alone, from the shape of what it is given.
"""

from typing import Callable, Optional, Sequence

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.policies import greedy_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from seer_tf.agents import policies
from seer_tf.freezing import freeze
from seer_tf.networks import variables


class SplitAgent:
  """Mixed into a `TFAgent` over latents, in front of it; holds the part below the cut.

  Attributes:
    lower: the online lower encoder.
    target_lower: the target network's.
    phase: int32 variable, a `freeze.Phase`.
    agent_steps: int64 variable, actions taken so far. Whoever collects keeps it; schedules of
      exploration read it.
    has_td_errors: whether an update's `LossInfo.extra` has a `td_error` of each transition, which
      prioritised replay needs.
  """

  has_td_errors = False

  def _split(self, time_step_spec, lower_fn: Callable[[], tf.keras.Model], augmentation):
    """Builds both lower encoders; call it before the TF-Agents constructor.

    Args:
      time_step_spec: spec of the environment's time steps, with pixels uint8 [H, W, C].
      lower_fn: builds a lower encoder of the augmented image; called twice (online and target).
      augmentation: see `augmentation.RandomCrop`.

    Returns:
      The spec of time steps with latents float32 [D], for the TF-Agents constructor.
    """
    self.lower = lower_fn()
    self.target_lower = lower_fn()
    variables.copy(self.lower, self.target_lower)
    self.augmentation = augmentation
    self.phase = tf.Variable(int(freeze.Phase.PIXELS), trainable=False, name='phase')
    self.agent_steps = tf.Variable(0, trainable=False, dtype=tf.int64, name='agent_steps')
    self._pixel_time_step_spec = tensor_spec.from_spec(time_step_spec)
    latent_spec = tf.TensorSpec([self.lower.latent_size], tf.float32, name='observation')
    return self._pixel_time_step_spec._replace(observation=latent_spec)

  def _on_pixels(self, head_policy, stored_crops: int = 0):
    return policies.EncodingPolicy(
      self._pixel_time_step_spec, self.lower, self.augmentation, head_policy, stored_crops
    )

  @property
  def policy(self):
    """The greedy policy, on pixels."""
    return greedy_policy.GreedyPolicy(self._on_pixels(self._policy))

  @property
  def collect_policy(self):
    """The exploring policy, on pixels."""
    return self._on_pixels(self._collect_policy)

  def storing_policy(self, stored_crops: int):
    """The exploring policy, whose info is the latents [B, K, D] that replay stores."""
    return self._on_pixels(self._collect_policy, stored_crops)

  @tf.function(reduce_retracing=True)
  def encode_crops(self, pixels, stored_crops: int):
    """Latents float32 [B, K, D] of K random crops of each of uint8 pixels [B, H, W, C]."""
    latents = self.lower(self._views(pixels, stored_crops))
    return tf.stack(tf.split(latents, stored_crops), axis=1)

  @tf.function(reduce_retracing=True)
  def activations(self, pixels):
    """What each layer of the lower encoder puts out for the centre of uint8 pixels [B, H, W, C].

    Returns:
      Layer name -> float32 [B, ...].
    """
    return self.lower.activations(self.augmentation.centre(pixels))

  def _views(self, observations, count: int = 1):
    """Augmented pixels uint8 [count * B, h, w, C], one batch of views behind the other.

    What is latents [B, D] already is left alone: replay has made its views.
    """
    if observations.shape.rank == 2:
      return observations
    return tf.concat([self.augmentation.augment(observations) for _ in range(count)], axis=0)

  def _encoded(self, views):
    """Latents [M * B, D] of augmented pixels; what is latents already is left alone."""
    return views if views.shape.rank == 2 else self.lower(views)

  def _latents(self, observations):
    """Latents [B, D] of pixels, augmented; what is latents already is left alone."""
    return self._encoded(self._views(observations))

  def _descend(
    self,
    loss_fn: Callable[[tf.Tensor], tf_agent.LossInfo],
    latents,
    tape: tf.GradientTape,
    head: Sequence[tf.Variable],
    head_optimizer: tf.keras.optimizers.Optimizer,
    lower: Sequence[tf.Variable],
    lower_optimizer: tf.keras.optimizers.Optimizer,
    clip_norm: Optional[float] = None,
  ) -> tf_agent.LossInfo:
    """One descent of a loss: on its head and, through the latents, on its part of the encoder.

    Args:
      loss_fn: latents -> `LossInfo`.
      latents: [B, D].
      tape: persistent, has recorded how `latents` came out of the lower encoder.
      head: variables of the loss's own networks.
      head_optimizer: theirs.
      lower: variables of the lower encoder that this loss trains; none once it is frozen.
      lower_optimizer: theirs.
      clip_norm: largest norm of all these gradients together; longer ones are scaled down to it.

    Returns:
      What `loss_fn` returned.
    """
    with tf.GradientTape(watch_accessed_variables=False) as loss_tape:
      loss_tape.watch([latents, *head])
      loss_info = loss_fn(latents)
    tf.debugging.check_numerics(loss_info.loss, 'A loss is infinite or not a number.')
    gradients, latent_gradient = loss_tape.gradient(loss_info.loss, (list(head), latents))
    if lower:
      gradients = gradients + tape.gradient(latents, lower, output_gradients=latent_gradient)
    if clip_norm is not None:
      gradients, _ = tf.clip_by_global_norm(gradients, clip_norm)
    head_optimizer.apply_gradients(zip(gradients[: len(head)], head))
    if lower:
      lower_optimizer.apply_gradients(zip(gradients[len(head) :], lower))
    return loss_info

  def freeze(self) -> str:
    """Freezes the lower encoders and enters the draining phase; returns the fingerprint."""
    fingerprint = freeze.freeze(self.lower, self.target_lower)
    self.phase.assign(int(freeze.Phase.DRAINING))
    return fingerprint


def repeated(values, views: int):
  """Values [B, ...], once for each of `views` batches behind one another: [views * B, ...]."""
  return tf.tile(values, [views, *[1] * (values.shape.rank - 1)])


def on_latents(time_steps: ts.TimeStep, latents, views: int = 1) -> ts.TimeStep:
  """The same time steps [B], each `views` times, seen as latents [views * B, D]."""
  others = time_steps._replace(observation=())
  others = tf.nest.map_structure(lambda values: repeated(values, views), others)
  return others._replace(observation=latents)
