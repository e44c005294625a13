"""What every agent of this project shares: one lower encoder, heads above it, and the switch.

A split agent is a TF-Agents agent whose networks see latents. Its losses are written once, over
latents; whether these come out of the lower encoder inside the gradient tape or out of replay is
decided by `latents` alone, from the shape of what it is given.
"""

from typing import Callable

import tensorflow as tf
from tf_agents.policies import greedy_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from seer_tf.agents import policies
from seer_tf.freezing import freeze
from seer_tf.networks import variables


class SplitAgent:
  """Mixed into a `TFAgent` over latents, in front of it; holds the part below the cut."""

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
    crops = [self.augmentation.augment(pixels) for _ in range(stored_crops)]
    return tf.stack(tf.split(self.lower(tf.concat(crops, axis=0)), stored_crops), axis=1)

  def freeze(self) -> str:
    """Freezes the lower encoders and enters the draining phase; returns the fingerprint."""
    fingerprint = freeze.freeze(self.lower, self.target_lower)
    self.phase.assign(int(freeze.Phase.DRAINING))
    return fingerprint


def on_latents(time_steps: ts.TimeStep, latents) -> ts.TimeStep:
  """The same time steps, seen as latents."""
  return time_steps._replace(observation=latents)
