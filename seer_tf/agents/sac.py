"""SAC on a split encoder: from pixels with random crops (RAD), then from replayed latents.

Passes of the convolutions per update from pixels: the online ones over o_t (with gradient) and over
o_{t+1}, the target ones over o_{t+1}; critic and actor loss share the first. From latents: none.

Two things differ from the published code on purpose. The actor's loss sees the latents that the
critic's loss of the same update saw, instead of encoding o_t again after the critic's step. And
each Q head has a layer norm of its own, where the published one shares it between the two and moves
its target with the encoder's tau.
"""

from typing import Callable

import gin
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.agents.sac import sac_agent
from tf_agents.trajectories import time_step as ts

from seer_tf.agents import split
from seer_tf.costs import flops
from seer_tf.networks import heads, variables


@gin.configurable
def adam(learning_rate: float, beta_1: float = 0.9) -> tf.keras.optimizers.Optimizer:
  """Adam with one fused kernel per variable, which the newer Keras optimisers lack on a CPU."""
  return tf.keras.optimizers.legacy.Adam(learning_rate, beta_1)


@gin.configurable
class SeerSacAgent(split.SplitAgent, sac_agent.SacAgent):
  """TF-Agents' SAC, its losses over latents, its lower encoder trained by the critic alone.

  Each loss owns the part of the lower encoder that it trains, and an Adam state for it: the
  critic's loss the convolutions and the critic's projection, the actor's loss the actor's.
  """

  def __init__(
    self,
    time_step_spec,
    action_spec,
    lower_fn: Callable[[], tf.keras.Model],
    augmentation,
    critic_fn: Callable = heads.critic_head,
    actor_fn: Callable = heads.actor_head,
    learning_rate: float = 1e-3,
    alpha_learning_rate: float = 1e-4,
    alpha_beta_1: float = 0.5,
    initial_alpha: float = 0.1,
    target_tau: float = 0.01,
    target_lower_tau: float = 0.05,
    actor_update_period: int = 2,
    target_update_period: int = 2,
    train_step_counter=None,
  ):
    """Builds online and target networks, optimisers and policies.

    Args:
      time_step_spec: of the environment: observations uint8 [H, W, C].
      action_spec: bounded float32 [A].
      lower_fn: builder of a lower encoder whose latent is critic | actor, each `features` wide.
      augmentation: of the images in training, e.g. `augmentation.RandomCrop`.
      critic_fn: builder (latents=, name=) of a Q head.
      actor_fn: builder (action_spec, latents=) of the actor's head.
      learning_rate: of critic, actor and lower encoder.
      alpha_learning_rate: of the temperature.
      alpha_beta_1: Adam's beta_1 for the temperature.
      initial_alpha: initial temperature.
      target_tau: Polyak factor of the Q heads.
      target_lower_tau: Polyak factor of the lower encoder.
      actor_update_period: updates between two updates of actor and temperature.
      target_update_period: updates between two moves of the targets.
      train_step_counter: int64 variable that counts updates.

    Raises:
      ValueError: if actions are not one bounded array of floats.
    """
    if not isinstance(action_spec, tf.TensorSpec) or not action_spec.dtype.is_floating:
      raise ValueError(
        f'SeerSacAgent needs continuous actions, got {action_spec}: bind Experiment.agent_fn = '
        f'@SeerDqnAgent for discrete ones.'
      )
    latent_spec = self._split(time_step_spec, lower_fn, augmentation)
    features = self.lower.features
    critic = lambda name: critic_fn(latents=slice(0, features), name=name)
    self._target_lower_tau = target_lower_tau
    self._actor_update_period = actor_update_period
    self._critic_lower_optimizer = adam(learning_rate)
    self._actor_lower_optimizer = adam(learning_rate)
    super().__init__(
      latent_spec,
      action_spec,
      critic_network=critic('critic1'),
      critic_network_2=critic('critic2'),
      target_critic_network=critic('critic1'),
      target_critic_network_2=critic('critic2'),
      actor_network=actor_fn(action_spec, latents=slice(features, 2 * features)),
      actor_optimizer=adam(learning_rate),
      critic_optimizer=adam(learning_rate),
      alpha_optimizer=adam(alpha_learning_rate, alpha_beta_1),
      critic_loss_weight=1.0,
      target_update_tau=target_tau,
      target_update_period=target_update_period,
      initial_log_alpha=float(tf.math.log(initial_alpha)),
      use_log_alpha_in_alpha_loss=False,
      target_entropy=-float(action_spec.shape.num_elements()),
      train_step_counter=train_step_counter,
    )

  def costs(self, batch_size: int, stored_crops: int) -> flops.Costs:
    """FLOPs of acting, storing and updating with this agent's networks and cadence."""
    return flops.sac(
      flops.convolution_macs(self.lower.convolutions, self.lower.image_shape),
      self.lower.critic_projection.kernel.shape.num_elements(),
      flops.dense_macs(self._actor_network),
      flops.dense_macs(self._critic_network_1),
      batch_size,
      stored_crops,
      self._actor_update_period,
    )

  def greedy_actions(self, latents):
    """The actor's most likely actions [B, A], on latents [B, D]."""
    kinds = tf.fill([tf.shape(latents)[0]], ts.StepType.MID)
    return self._actor_network(latents, kinds)[0].mode()

  def q_values(self, latents, actions):
    """The smaller of both critics' values float32 [B] of actions [B, A], on latents [B, D]."""
    critics = (self._critic_network_1, self._critic_network_2)
    return tf.minimum(*(critic((latents, actions))[0] for critic in critics))

  def _initialize(self):
    for online, target in self._online_and_target():
      variables.copy(online, target)

  def _online_and_target(self):
    return [
      (self._critic_network_1, self._target_critic_network_1),
      (self._critic_network_2, self._target_critic_network_2),
    ]

  def _get_target_updater(self, tau=1.0, period=1):
    del period  # `_train` keeps the cadence.

    def update():
      for online, target in self._online_and_target():
        variables.track(online, target, tau)
      if self.lower.trainable:
        variables.track(self.lower, self.target_lower, self._target_lower_tau)

    return update

  def _next_latents(self, observations):
    """Latents [B, D] of o_{t+n}: critic's half by the target encoder, actor's by the online one."""
    if observations.shape.rank == 2:
      return observations
    crops = self.augmentation.augment(observations)
    target, online = self.target_lower, self.lower
    critic_half = target.critic_latents(target.convolve(crops))
    actor_half = online.actor_latents(online.convolve(crops))
    return tf.stop_gradient(tf.concat([critic_half, actor_half], axis=-1))

  def _train(self, experience, weights=None):
    """One update from a `Transition` whose observations are pixels or latents.

    Args:
      experience: `trajectory.Transition` of batches; `next_time_step.reward` is the n-step return
        and `next_time_step.discount` holds gamma.
      weights: optional importance weights [B].

    Returns:
      `LossInfo`; between two updates of the actor its losses are zero.
    """
    time_steps, action_steps, next_time_steps = experience
    with tf.GradientTape(persistent=True) as tape:
      latents = self._latents(time_steps.observation)
    next_time_steps = split.on_latents(
      next_time_steps, self._next_latents(next_time_steps.observation)
    )
    features = self.lower.features

    def critic_loss(z):
      loss = self.critic_loss(
        split.on_latents(time_steps, z),
        action_steps.action,
        next_time_steps,
        td_errors_loss_fn=self._td_errors_loss_fn,
        weights=weights,
        training=True,
      )
      return tf_agent.LossInfo(loss, ())

    def actor_loss(z):
      own = tf.concat([tf.stop_gradient(z[:, :features]), z[:, features:]], axis=-1)
      loss = self.actor_loss(split.on_latents(time_steps, own), weights=weights)
      return tf_agent.LossInfo(loss, ())

    def update_actor():
      loss = self._descend(
        actor_loss,
        latents,
        tape,
        self._actor_network.trainable_variables,
        self._actor_optimizer,
        self.lower.actor_variables,
        self._actor_lower_optimizer,
      ).loss
      with tf.GradientTape() as alpha_tape:
        alpha_loss = self.alpha_loss(split.on_latents(time_steps, latents), weights=weights)
      gradient = alpha_tape.gradient(alpha_loss, self._log_alpha)
      self._alpha_optimizer.apply_gradients([(gradient, self._log_alpha)])
      return loss, alpha_loss

    critic = [self._critic_network_1, self._critic_network_2]
    critic_loss_value = self._descend(
      critic_loss,
      latents,
      tape,
      [variable for network in critic for variable in network.trainable_variables],
      self._critic_optimizer,
      self.lower.critic_variables,
      self._critic_lower_optimizer,
    ).loss
    is_due = lambda period: tf.equal(self.train_step_counter % period, 0)
    actor_loss_value, alpha_loss_value = tf.cond(
      is_due(self._actor_update_period), update_actor, lambda: (tf.constant(0.0), tf.constant(0.0))
    )
    tf.cond(is_due(self._target_update_period), self._update_target_op, tf.no_op)
    self.train_step_counter.assign_add(1)
    self._summarise(critic_loss_value, actor_loss_value, alpha_loss_value)
    return tf_agent.LossInfo(
      loss=critic_loss_value + actor_loss_value + alpha_loss_value,
      extra=sac_agent.SacLossInfo(
        critic_loss=critic_loss_value, actor_loss=actor_loss_value, alpha_loss=alpha_loss_value
      ),
    )

  def _update_target_op(self):
    self._update_target()
    return tf.no_op()

  def _summarise(self, critic_loss, actor_loss, alpha_loss):
    losses = dict(critic_loss=critic_loss, actor_loss=actor_loss, alpha_loss=alpha_loss)
    for name, loss in {**losses, 'alpha': tf.exp(self._log_alpha)}.items():
      tf.summary.scalar(f'Losses by updates/{name}', loss, step=self.train_step_counter)
