"""SAC on a split encoder: RAD, DrQ, CURL and SAC-AE by configuration, then from replayed latents.

RAD is the choice of an augmentation. DrQ averages targets over K views of o_{t+n} and the critic's
loss over M views of o_t. CURL and SAC-AE are auxiliary losses (`auxiliary.py`).

Passes of the encoder's learning stages per update from pixels, each of one batch:

| agent  | online over o_t, forward · backward | online over o_{t+n} | target over o_{t+n} · o_t |
|--------|-------------------------------------|---------------------|---------------------------|
| RAD    | 1 · 1                               | 1                   | 1 · 0                     |
| DrQ    | M · M                               | K                   | K · 0                     |
| CURL   | 1 · 2                               | 1                   | 1 · 1 (keys)              |
| SAC-AE | 1 · 2, and the decoder's 1 · 1      | 1                   | 1 · 0                     |

All losses share the forward pass over o_t, whose views are one batch; so is all that the target
encodes. What cannot be shared: the online encoder has to see o_{t+n} for the next action, and a
loss with an Adam state of its own needs a gradient of its own. Frozen stages, which both networks
share, see each batch once; from latents they see none, there is one view of each, and no auxiliary
loss.

Four things differ from the published code on purpose. Actor's and auxiliary losses see the latents
that the critic's loss of the same update saw, instead of encoding o_t again after the critic's
step. Keys are by the target encoder as it stands before it moves in this update. The auxiliary loss
has one Adam state of the encoder (CURL's code steps it with two). And each Q head has a layer norm
of its own, where the published one shares it between the two and moves its target with the
encoder's tau.
"""

from typing import Callable, Optional

import gin
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.agents.sac import sac_agent
from tf_agents.trajectories import time_step as ts

from seer_tf.agents import auxiliary, split
from seer_tf.costs import flops
from seer_tf.networks import encoders, heads, variables


@gin.configurable
def adam(
  learning_rate: float, beta_1: float = 0.9, epsilon: float = 1e-8
) -> tf.keras.optimizers.Optimizer:
  """Adam with one fused kernel per variable, which the newer Keras optimisers lack on a CPU.

  Its epsilon stands beside the second moment before that is corrected for its start (Kingma and Ba
  2014, end of section 2), in PyTorch beside the corrected one: in the first updates it is the
  larger one here.
  """
  return tf.keras.optimizers.legacy.Adam(learning_rate, beta_1, epsilon=epsilon)


@gin.configurable
class SeerSacAgent(split.SplitAgent, sac_agent.SacAgent):
  """TF-Agents' SAC, its losses over latents, its convolutions never trained by the actor.

  Each loss has an Adam state for the part of the encoder that it trains: the critic's and the
  auxiliary loss for convolutions and critic's projection, the actor's loss for the actor's. The
  same holds for what is above the cut, after the freeze.
  """

  def __init__(
    self,
    time_step_spec,
    action_spec,
    lower_fn: Callable[[], encoders.Encoder],
    augmentation,
    freeze_up_to: Optional[str] = None,
    critic_fn: Callable = heads.critic_head,
    actor_fn: Callable = heads.actor_head,
    auxiliary_fn: Callable = auxiliary.NoAuxiliary,
    views: int = 1,
    next_views: int = 1,
    augment_alike: bool = False,
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
      lower_fn: builder of an encoder whose latent is critic | actor, each `features` wide.
      augmentation: of the images in training, e.g. `augmentation.RandomCrop`.
      freeze_up_to: see `split.SplitAgent`.
      critic_fn: builder (latents=, name=) of a Q head.
      actor_fn: builder (action_spec, latents=) of the actor's head.
      auxiliary_fn: builder (encoder) of an `auxiliary.Auxiliary`.
      views: M, augmentations of o_t over which the critic's loss is averaged, from pixels.
      next_views: K, the same of o_{t+n} for the targets.
      augment_alike: whether each view of o_{t+n} is changed as the view of o_t of the same number
        is, as RAD does in translation. Replay stores observations, not pairs of them: from latents
        the two are always drawn apart.
      learning_rate: of critic, actor, auxiliary part and encoder.
      alpha_learning_rate: of the temperature.
      alpha_beta_1: Adam's beta_1 for the temperature.
      initial_alpha: initial temperature.
      target_tau: Polyak factor of the Q heads.
      target_lower_tau: Polyak factor of the encoder.
      actor_update_period: updates between two updates of actor and temperature.
      target_update_period: updates between two moves of the targets.
      train_step_counter: int64 variable that counts updates.

    Raises:
      ValueError: if actions are not one bounded array of floats, the encoder has no projections,
        or no such layer to cut above, or for views of nothing or without their like.
    """
    if not isinstance(action_spec, tf.TensorSpec) or not action_spec.dtype.is_floating:
      raise ValueError(
        f'SeerSacAgent needs continuous actions, got {action_spec}: bind Experiment.agent_fn = '
        f'@SeerDqnAgent for discrete ones.'
      )
    split.check_counts(
      'SeerSacAgent',
      views=views,
      next_views=next_views,
      actor_update_period=actor_update_period,
      target_update_period=target_update_period,
    )
    if augment_alike and views != next_views:
      raise ValueError(
        f'SeerSacAgent.augment_alike needs as many views of o_t as of o_{{t+n}}, but views is '
        f'{views} and next_views {next_views}: give the same number, or bind augment_alike = False.'
      )
    latent_spec = self._split(time_step_spec, lower_fn, freeze_up_to, augmentation)
    features = self.encoder.features
    if features is None:
      name = type(self.encoder).__name__
      raise ValueError(
        f'SeerSacAgent needs latents for critic and actor each, but {name} has none: bind '
        f'{name}.features, such as 50.'
      )
    self._auxiliary = auxiliary_fn(self.encoder)
    self._counts = (views, next_views)
    self._augment_alike = augment_alike
    critic = lambda name: critic_fn(latents=slice(0, features), name=name)
    self._target_lower_tau = target_lower_tau
    self._actor_update_period = actor_update_period
    self._critic_lower_optimizer = adam(learning_rate)
    self._actor_lower_optimizer = adam(learning_rate)
    self._auxiliary_optimizer = adam(learning_rate)
    self._auxiliary_lower_optimizer = adam(learning_rate)
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
      flops.encoder(self.encoder, self.lower),
      flops.dense_macs(self._actor_network),
      flops.dense_macs(self._critic_network_1),
      batch_size,
      stored_crops,
      self._actor_update_period,
      self.augmentation.random,
      *self._counts,
      self._auxiliary.costs(batch_size),
    )

  @property
  def optimizers(self):
    """See `split.SplitAgent`."""
    has_auxiliary = not isinstance(self._auxiliary, auxiliary.NoAuxiliary)
    return [
      (self._critic_optimizer, self._critic_variables),
      (self._critic_lower_optimizer, self.encoder.critic_variables),
      (self._actor_optimizer, self._actor_network.trainable_variables),
      (self._actor_lower_optimizer, self.encoder.actor_variables),
      (self._alpha_optimizer, [self._log_alpha]),
      (self._auxiliary_optimizer, self._auxiliary.trainable_variables),
      (self._auxiliary_lower_optimizer, self.encoder.critic_variables * has_auxiliary),
    ]

  @property
  def _critic_variables(self):
    """Of both Q heads."""
    critics = [self._critic_network_1, self._critic_network_2]
    return [variable for network in critics for variable in network.trainable_variables]

  @property
  def acting_networks(self):
    """What acting takes, by name."""
    return {'encoder': self.encoder, 'actor': self._actor_network}

  @property
  def auxiliary_part(self) -> auxiliary.Auxiliary:
    """The auxiliary part; it ends when all of the lower encoder is frozen."""
    ended = self.encoder.frozen >= len(self.lower.stages)
    return auxiliary.NoAuxiliary(self.encoder) if ended else self._auxiliary

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
      for online, target in self._learning_stages():
        variables.track(online, target, self._target_lower_tau)

    return update

  def _images(self, experience):
    """Views of o_t, [M * B, ...], and of o_{t+n}, [K * B, ...]; latents [B, D] as they are."""
    both = [experience.time_step.observation, experience.next_time_step.observation]
    counts = self._view_counts(both[0])
    if self._augment_alike and both[0].shape.rank > 2:
      # All frames of a stack are changed alike: here both are one stack.
      return tf.split(self._views(tf.concat(both, axis=-1), counts[0]), 2, axis=-1)
    return [self._views(observations, count) for observations, count in zip(both, counts)]

  def _next_latents(self, next_images, observations, views: int):
    """Latents [K * B, D] of o_{t+n}, and the auxiliary part's keys, a [B, F] for each of its views.

    The critic's half is by the target encoder, as the keys are, the actor's by the online one.

    Args:
      next_images: [K * B, ...], of o_{t+n}.
      observations: [B, ...], o_t, for the keys.
      views: K.
    """
    hidden = self._frozen(next_images)
    keys = self.auxiliary_part.views
    further = [self._frozen(self._views(observations)) for _ in range(keys)]
    by_target = self.target_encoder.halves(tf.concat([hidden, *further], axis=0)).critic
    by_target = tf.split(by_target, views + keys)
    critic_half = tf.concat(by_target[:views], axis=0)
    actor_half = self.encoder.halves(hidden).actor
    return tf.concat([critic_half, actor_half], axis=-1), by_target[views:]

  def _view_counts(self, observations):
    """Views of o_t and of o_{t+n}: (M, K) of pixels, of what is latents one each."""
    return (1, 1) if observations.shape.rank == 2 else self._counts

  def _td_targets(self, next_time_steps, latents, views: int):
    """R + D (min_i Q_i - alpha log pi), averaged over views: float32 [B].

    Args:
      next_time_steps: [B], with n-step return R as reward and discount D.
      latents: [views * B, D] of o_{t+n}.
      views: K.
    """
    seen = split.on_latents(next_time_steps, latents, views)
    actions, log_pis = self._actions_and_log_probs(seen)
    critics = (self._target_critic_network_1, self._target_critic_network_2)
    values = tf.minimum(*(critic((latents, actions))[0] for critic in critics))
    targets = seen.reward + seen.discount * (values - tf.exp(self._log_alpha) * log_pis)
    return tf.reduce_mean(tf.reshape(targets, [views, -1]), axis=0)

  def _critic_loss(self, latents, actions, targets, weights, views: int) -> tf_agent.LossInfo:
    """Squared errors of both critics, averaged over views and the batch.

    Args:
      latents: [views * B, D] of o_t.
      actions: [B, A].
      targets: [B].
      weights: [B] or None.
      views: M.
    """
    actions, targets = split.repeated(actions, views), split.repeated(targets, views)
    critics = (self._critic_network_1, self._critic_network_2)
    errors = tf.add_n(
      [
        self._td_errors_loss_fn(targets, critic((latents, actions), training=True)[0])
        for critic in critics
      ]
    )
    loss = _mean(errors, None if weights is None else split.repeated(weights, views))
    return tf_agent.LossInfo(loss, ())

  def _actor_loss(self, latents, time_steps, weights) -> tf_agent.LossInfo:
    """Mean of alpha log pi - min_i Q_i; the extra is log pi, float32 [B], for the temperature.

    Args:
      latents: [B, D] of o_t; the critic's half gets no gradient.
      time_steps: [B].
      weights: [B] or None.
    """
    critic_half, actor_half = tf.split(latents, 2, axis=-1)
    own = tf.concat([tf.stop_gradient(critic_half), actor_half], axis=-1)
    actions, log_pis = self._actions_and_log_probs(split.on_latents(time_steps, own))
    objective = tf.exp(self._log_alpha) * log_pis - self.q_values(own, actions)
    return tf_agent.LossInfo(_mean(objective, weights), log_pis)

  def _train(self, experience, weights=None):
    """One update from a `Transition` whose observations are pixels or latents.

    Args:
      experience: `trajectory.Transition` of batches; `next_time_step.reward` is the n-step return
        and `next_time_step.discount` holds gamma.
      weights: optional importance weights [B].

    Returns:
      `LossInfo`; where the actor or the auxiliary part is not due its losses are zero.
    """
    time_steps, action_steps, next_time_steps = experience
    views, next_views = self._view_counts(time_steps.observation)
    images, next_images = self._images(experience)
    with tf.GradientTape(persistent=True) as tape:
      latents = self._encoded(images)
    next_latents, keys = self._next_latents(next_images, time_steps.observation, next_views)
    first = lambda seen: tf.split(seen, views)[0]
    targets = self._td_targets(next_time_steps, next_latents, next_views)
    features = self.encoder.features

    def descend(loss, head, optimizer, lower, lower_optimizer):
      return self._descend(loss, latents, tape, head, optimizer, lower, lower_optimizer)

    def update_actor():
      loss, log_pis = descend(
        lambda z: self._actor_loss(first(z), time_steps, weights),
        self._actor_network.trainable_variables,
        self._actor_optimizer,
        self.encoder.actor_variables,
        self._actor_lower_optimizer,
      )
      with tf.GradientTape() as alpha_tape:
        excess = -log_pis - self._target_entropy
        alpha_loss = tf.exp(self._log_alpha) * _mean(excess, weights)
      gradient = alpha_tape.gradient(alpha_loss, self._log_alpha)
      self._alpha_optimizer.apply_gradients([(gradient, self._log_alpha)])
      return loss, alpha_loss

    critic_loss = descend(
      lambda z: self._critic_loss(z, action_steps.action, targets, weights, views),
      self._critic_variables,
      self._critic_optimizer,
      self.encoder.critic_variables,
      self._critic_lower_optimizer,
    ).loss
    is_due = lambda period: tf.equal(self.train_step_counter % period, 0)
    actor_loss, alpha_loss = tf.cond(
      is_due(self._actor_update_period), update_actor, lambda: (tf.constant(0.0), tf.constant(0.0))
    )
    tf.cond(is_due(self._target_update_period), self._update_target_op, tf.no_op)
    next_seen = tf.split(next_latents, next_views)[0][:, :features]
    seen = auxiliary.Seen(first(images), keys, next_seen, experience)
    auxiliary_loss = self.auxiliary_part.train(
      self.train_step_counter,
      lambda loss, variables: (
        descend(
          lambda z: tf_agent.LossInfo(loss(first(z)[:, :features], seen), ()),
          variables,
          self._auxiliary_optimizer,
          self.encoder.critic_variables,
          self._auxiliary_lower_optimizer,
        ).loss
      ),
    )
    self.train_step_counter.assign_add(1)
    losses = dict(critic_loss=critic_loss, actor_loss=actor_loss, alpha_loss=alpha_loss)
    scalars = dict(losses, auxiliary_loss=auxiliary_loss, alpha=tf.exp(self._log_alpha))
    for name, value in scalars.items():
      tf.summary.scalar(f'Losses by updates/{name}', value, step=self.train_step_counter)
    return tf_agent.LossInfo(
      loss=critic_loss + actor_loss + alpha_loss + auxiliary_loss,
      extra=sac_agent.SacLossInfo(**losses),
    )

  def _update_target_op(self):
    self._update_target()
    return tf.no_op()


def _mean(values, weights):
  """Mean of values [B], weighted unless `weights` is None."""
  return tf.reduce_mean(values if weights is None else weights * values)
