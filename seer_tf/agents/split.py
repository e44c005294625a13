"""What every agent of this project shares: an encoder with a cut, heads above it, and the switch.

A split agent is a TF-Agents agent whose networks see the encoder's latents. Its losses are written
once, over those. How much of the encoder is run, and how much of that is learned, is decided by
`_frozen` alone: what the frozen stages put out is computed from pixels or comes out of replay.
"""

from typing import Callable, Optional, Sequence, Tuple

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.policies import greedy_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from seer_tf.agents import policies
from seer_tf.freezing import freeze
from seer_tf.networks import encoders, variables


class SplitAgent:
  """Mixed into a `TFAgent` over latents, in front of it; holds the encoders.

  Attributes:
    encoder: the online network's.
    lower: its stages below the cut.
    upper: its stages above the cut.
    target_encoder: the target network's.
    target_lower: its stages below the cut.
    phase: int32 variable, a `freeze.Phase`.
    frozen_layers: int32 variable, stages that are frozen, from the first on.
    agent_steps: int64 variable, actions taken so far. Whoever collects keeps it; schedules of
      exploration read it.
    acting_networks: name -> network, of all that acting takes.
    has_td_errors: whether an update's `LossInfo.extra` has a `td_error` of each transition, which
      prioritised replay needs.
  """

  has_td_errors = False

  def _split(
    self,
    time_step_spec,
    lower_fn: Callable[[], encoders.Encoder],
    freeze_up_to: Optional[str],
    augmentation,
  ):
    """Builds both encoders; call it before the TF-Agents constructor.

    Args:
      time_step_spec: spec of the environment's time steps, with pixels uint8 [H, W, C].
      lower_fn: builds an encoder of the augmented image; called twice (online and target).
      freeze_up_to: name of the last stage below the cut; None for the encoder's last.
      augmentation: see `augmentation.RandomCrop`.

    Returns:
      The spec of time steps with latents float32 [D], for the TF-Agents constructor.

    Raises:
      ValueError: if the encoder has no stage of that name.
    """
    self.encoder, self.target_encoder = lower_fn(), lower_fn()
    self.lower, self.upper = self.encoder.cut(freeze_up_to)
    self.target_lower, _ = self.target_encoder.cut(freeze_up_to)
    variables.copy(self.encoder, self.target_encoder)
    self.augmentation = augmentation
    self.phase = tf.Variable(int(freeze.Phase.PIXELS), trainable=False, name='phase')
    self.frozen_layers = tf.Variable(0, trainable=False, name='frozen_layers')
    self.agent_steps = tf.Variable(0, trainable=False, dtype=tf.int64, name='agent_steps')
    self._pixel_time_step_spec = tensor_spec.from_spec(time_step_spec)
    latent_spec = tf.TensorSpec([self.encoder.latent_size], tf.float32, name='observation')
    return self._pixel_time_step_spec._replace(observation=latent_spec)

  def _on_pixels(self, head_policy, stored_crops: int = 0):
    return policies.EncodingPolicy(
      self._pixel_time_step_spec,
      self.lower,
      self.upper,
      self.augmentation,
      head_policy,
      stored_crops,
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
      See `encoders.Stages.activations`.
    """
    return self.lower.activations(self.augmentation.centre(pixels))

  def _views(self, observations, count: int = 1):
    """Augmented pixels uint8 [count * B, h, w, C], one batch of views behind the other.

    What is latents [B, D] already is left alone: replay has made its views.
    """
    if observations.shape.rank == 2:
      return observations
    return tf.concat([self.augmentation.augment(observations) for _ in range(count)], axis=0)

  def _frozen(self, views):
    """What the frozen stages, which both networks share, make of augmented pixels; no gradient.

    Latents [B, D] of replay are what the frozen stages made.
    """
    if views.shape.rank == 2:
      return views
    return tf.stop_gradient(self.encoder.encode_frozen(views))

  def _encoded(self, views):
    """Latents [M * B, D], for the heads, of augmented pixels or of replayed latents."""
    return encoders.joined(self.encoder.encode_learning(self._frozen(views)))

  def _latents(self, observations):
    """Latents [B, D], for the heads, of observations: pixels or replayed latents."""
    return self._encoded(self._views(observations))

  def _learning_stages(self) -> Sequence[Tuple[tf.keras.layers.Layer, tf.keras.layers.Layer]]:
    """Stages of the encoder that still learn: (online, target) each."""
    pairs = list(zip(self.encoder.stages, self.target_encoder.stages))
    return pairs[self.encoder.frozen :]

  @property
  def optimizers(self) -> Sequence[Tuple[tf.keras.optimizers.Optimizer, Sequence[tf.Variable]]]:
    """Every optimiser of the agent and what it trains, while nothing is frozen."""
    raise NotImplementedError

  def create_optimizer_variables(self):
    """Makes every optimiser's state, as its first update would: a checkpoint knows it from then on.

    Adam's first moments of gradients that are zero are zero, and nothing moves.
    """
    for optimizer, trained in self.optimizers:
      if trained:
        optimizer.apply_gradients([(tf.zeros_like(variable), variable) for variable in trained])
        optimizer.iterations.assign(0)

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
      lower: variables of the encoder that this loss trains; none once all of it is frozen.
      lower_optimizer: theirs.
      clip_norm: largest norm of all these gradients together; longer ones are scaled down to it.

    Returns:
      What `loss_fn` returned.
    """
    with tf.GradientTape(watch_accessed_variables=False) as loss_tape:
      loss_tape.watch([latents, *head])
      loss_info = loss_fn(latents)
    tf.debugging.check_numerics(loss_info.loss, 'A loss is infinite or not a number.')
    gradients, latent_gradient = loss_tape.gradient(
      loss_info.loss,
      (list(head), latents),
      unconnected_gradients=tf.UnconnectedGradients.ZERO,  # None would stand for ones, below
    )
    if lower:
      gradients = gradients + tape.gradient(latents, lower, output_gradients=latent_gradient)
    if clip_norm is not None:
      gradients, _ = tf.clip_by_global_norm(gradients, clip_norm)
    head_optimizer.apply_gradients(zip(gradients[: len(head)], head))
    if lower:
      lower_optimizer.apply_gradients(zip(gradients[len(head) :], lower))
    return loss_info

  def freeze_layers(self, count: int):
    """Freezes the first `count` stages of both encoders, below the cut, as `freeze` does all.

    Their weights are as `freeze.freeze` leaves them. A train function traced before still trains
    them: trace a new one. The optimisers' states of all others stay.
    """
    for stage, target in list(zip(self.lower.stages, self.target_lower.stages))[:count]:
      freeze.freeze(stage, target)
    self.frozen_layers.assign(self.encoder.frozen)

  def freeze_again(self):
    """Freezes what was frozen in a checkpoint just read, which holds weights but not that."""
    self.freeze_layers(int(self.frozen_layers))

  def freeze(self) -> str:
    """Freezes the lower encoders and enters the draining phase; returns the fingerprint."""
    fingerprint = freeze.freeze(self.lower, self.target_lower)
    self.frozen_layers.assign(self.encoder.frozen)
    self.phase.assign(int(freeze.Phase.DRAINING))
    return fingerprint


def check_counts(name: str, **counts: int):
  """Raises a `ValueError` that names the first of an agent's parameters that counts nothing."""
  for parameter, count in counts.items():
    if not isinstance(count, int) or count < 1:
      raise ValueError(f'{name}.{parameter} is {count!r}; give a whole number, at least 1.')


def repeated(values, views: int):
  """Values [B, ...], once for each of `views` batches behind one another: [views * B, ...]."""
  return tf.tile(values, [views, *[1] * (values.shape.rank - 1)])


def on_latents(time_steps: ts.TimeStep, latents, views: int = 1) -> ts.TimeStep:
  """The same time steps [B], each `views` times, seen as latents [views * B, D]."""
  others = time_steps._replace(observation=())
  others = tf.nest.map_structure(lambda values: repeated(values, views), others)
  return others._replace(observation=latents)
