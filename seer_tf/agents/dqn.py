"""The DQN family on a split encoder: DQN, double, dueling, noisy, categorical (C51), n-step.

Rainbow (Hessel et al. 2018) is all of them together. Each is a choice of its own, here or in
`q_heads.QHead`, and every combination is valid. The n-step return comes with the transition.

Passes of the encoder's learning stages per update: the online ones over o_t (with gradient), the
target ones over o_{t+n}, and with a double argmax the online ones over o_{t+n}. Of its frozen ones,
which both networks share: one over each from pixels, none from latents.

Noise: an update draws the online head's weights once, for its estimate and its double argmax alike,
and the target head's once. Each exploring action draws anew. Evaluation uses the mean weights.
"""

from typing import Callable, Optional

import gin
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.agents.categorical_dqn import categorical_dqn_agent
from tf_agents.agents.dqn import dqn_agent

from seer_tf.agents import policies, split
from seer_tf.costs import flops
from seer_tf.networks import encoders, q_heads, variables


def linear_epsilon(agent_steps, initial: float, final: float, decay_agent_steps: int):
  """Exploration rate, float32: from `initial` at agent step 0 in a straight line to `final`."""
  done = tf.minimum(tf.cast(agent_steps, tf.float32) / decay_agent_steps, 1.0)
  return initial + done * (final - initial)


def huber(error, delta: Optional[float]):
  """Huber loss of each error; with `delta` None half its square, which is its limit."""
  if delta is None:
    return 0.5 * tf.square(error)
  size = tf.abs(error)
  return tf.where(size <= delta, 0.5 * tf.square(error), delta * (size - 0.5 * delta))


@gin.configurable
class SeerDqnAgent(split.SplitAgent, dqn_agent.DqnAgent):
  """TF-Agents' DQN, its losses over latents, its encoder trained by the same loss.

  `LossInfo.extra` is a `DqnLossInfo` of float32 [B] each, not weighted: `td_loss` is what is
  minimised; `td_error`, what prioritised replay ranks by, is the TD error or, categorical, the
  Kullback-Leibler divergence of the estimate from the target distribution.

  TensorFlow's Adam adds epsilon before it corrects the second moment's bias, PyTorch's after: in
  the first few thousand updates steps are somewhat smaller here than in the published code.
  """

  has_td_errors = True

  def __init__(
    self,
    time_step_spec,
    action_spec,
    lower_fn: Callable[[], encoders.Encoder],
    augmentation,
    freeze_up_to: Optional[str] = None,
    head_fn: Callable[..., q_heads.QHead] = q_heads.QHead,
    double: bool = True,
    huber_delta: Optional[float] = 1.0,
    learning_rate: float = 1e-4,
    adam_epsilon: float = 1.5e-4,
    gradient_norm: Optional[float] = 10.0,
    target_update_period: int = 2000,
    initial_epsilon: float = 0.0,
    final_epsilon: float = 0.0,
    epsilon_decay_agent_steps: int = 1,
    evaluation_epsilon: float = 0.001,
    train_step_counter=None,
  ):
    """Builds online and target networks, optimisers and policies.

    Args:
      time_step_spec: of the environment: observations uint8 [H, W, C].
      action_spec: one bounded integer from 0 on.
      lower_fn: builder of an encoder, without projections.
      augmentation: of the images in training, e.g. `augmentation.NoAugmentation`.
      freeze_up_to: see `split.SplitAgent`.
      head_fn: builder (actions, name=) of a Q head: dueling, noisy and categorical are its own.
      double: whether the online network chooses the next action and the target judges it (van
        Hasselt et al. 2016); else the target does both.
      huber_delta: TD errors beyond it count linearly; None for the squared loss. A categorical head
        has the cross-entropy instead.
      learning_rate: Adam's, of lower encoder and head.
      adam_epsilon: Adam's.
      gradient_norm: largest norm of the gradient of lower encoder and head together; None for any.
      target_update_period: updates between two copies of online to target network.
      initial_epsilon: share of random actions at agent step 0.
      final_epsilon: the same from `epsilon_decay_agent_steps` on.
      epsilon_decay_agent_steps: agent steps of the straight line between the two.
      evaluation_epsilon: share of random actions of `policy`.
      train_step_counter: int64 variable that counts updates.

    Raises:
      ValueError: if actions are not one integer from 0 on, the encoder has projections, or no
        such layer to cut above.
    """
    if (
      not isinstance(action_spec, tf.TensorSpec)
      or not action_spec.dtype.is_integer
      or action_spec.shape.rank
    ):
      raise ValueError(
        f'SeerDqnAgent needs one discrete action, got {action_spec}: bind Experiment.agent_fn = '
        f'@SeerSacAgent for continuous ones.'
      )
    split.check_counts('SeerDqnAgent', target_update_period=target_update_period)
    latent_spec = self._split(time_step_spec, lower_fn, freeze_up_to, augmentation)
    if self.encoder.features is not None:
      name = type(self.encoder).__name__
      raise ValueError(
        f'SeerDqnAgent has one head, but {name} projects to latents for critic and actor: bind '
        f'{name}.features = None.'
      )
    actions = int(action_spec.maximum) + 1
    self._double = double
    self._huber_delta = huber_delta
    self._gradient_norm = gradient_norm
    self._target_update_period = target_update_period
    self._evaluation_epsilon = evaluation_epsilon
    adam = lambda: tf.keras.optimizers.legacy.Adam(learning_rate, epsilon=adam_epsilon)
    self._lower_optimizer = adam()
    super().__init__(
      latent_spec,
      action_spec,
      head_fn(actions, name='q_head'),
      adam(),
      epsilon_greedy=lambda: linear_epsilon(
        self.agent_steps, initial_epsilon, final_epsilon, epsilon_decay_agent_steps
      ),
      target_q_network=head_fn(actions, name='target_q_head'),
      train_step_counter=train_step_counter,
    )

  def costs(self, batch_size: int, stored_crops: int) -> flops.Costs:
    """FLOPs of acting, storing and updating with this agent's networks."""
    return flops.dqn(
      flops.encoder(self.encoder, self.lower),
      self._q_network.macs,
      batch_size,
      stored_crops,
      self._double,
      self.augmentation.random,
    )

  @property
  def optimizers(self):
    """See `split.SplitAgent`."""
    return [
      (self._optimizer, self._q_network.trainable_variables),
      (self._lower_optimizer, self.encoder.trainable_variables),
    ]

  @property
  def acting_networks(self):
    """What acting takes, by name."""
    return {'encoder': self.encoder, 'q_head': self._q_network}

  @property
  def policy(self):
    """The policy to evaluate, on pixels: mean weights, `evaluation_epsilon`."""
    return self._on_pixels(self._policy)

  def greedy_actions(self, latents):
    """The best action int64 [B] by the mean weights, on latents [B, D]."""
    return tf.argmax(self._q_network(latents)[0], axis=-1)

  def q_values(self, latents, actions):
    """Values float32 [B] of actions [B], by the mean weights, on latents [B, D]."""
    return tf.gather(self._q_network(latents)[0], actions, batch_dims=1)

  def _setup_policy(self, time_step_spec, action_spec, *unused_options):
    policy = lambda epsilon, training: policies.EpsilonGreedyQPolicy(
      time_step_spec, action_spec, self._q_network, epsilon, training
    )
    return policy(lambda: self._evaluation_epsilon, False), policy(self._epsilon_greedy, True)

  def _initialize(self):
    variables.copy(self._q_network, self._target_q_network)

  def _get_target_updater(self, tau=1.0, period=1):
    del tau, period  # A hard copy; `_train` keeps the cadence.

    def update():
      variables.copy(self._q_network, self._target_q_network)
      for online, target in self._learning_stages():
        variables.copy(online, target)
      return tf.no_op()

    return update

  def _next_latents(self, observations):
    """Latents [B, D] of o_{t+n} for whom chooses the next action, and for the target."""
    hidden = self._frozen(self._views(observations))
    latents = lambda encoder: encoders.joined(encoder.encode_learning(hidden))
    target = latents(self.target_encoder)
    return latents(self.encoder) if self._double else target, target

  def _next_logits(self, latents_to_choose, latents, online_weights):
    """The target's logits [B, atoms] of the action that is best at o_{t+n}.

    Args:
      latents_to_choose: [B, D] of o_{t+n}, for the network that chooses.
      latents: the same for the target network.
      online_weights: of the online head, in this update.
    """
    target = self._target_q_network
    logits = target.logits(latents, target.weights_draw())
    chooser = logits
    if self._double:
      chooser = self._q_network.logits(latents_to_choose, online_weights)
    best = tf.argmax(self._q_network.values(chooser), axis=-1)
    return tf.gather(logits, best, batch_dims=1)

  def _loss_over(self, latents, experience, weights) -> tf_agent.LossInfo:
    """The loss of a `Transition`, given latents [B, D] of o_t."""
    head, next_time_step = self._q_network, experience.next_time_step
    next_latents = self._next_latents(next_time_step.observation)
    head_weights = head.weights_draw()
    logits = tf.gather(
      head.logits(latents, head_weights), experience.action_step.action, batch_dims=1
    )
    next_logits = self._next_logits(*next_latents, head_weights)
    reward, discount = (x[:, tf.newaxis] for x in (next_time_step.reward, next_time_step.discount))
    if head.support is None:
      td_error = tf.stop_gradient(reward + discount * next_logits) - logits
      td_error = tf.squeeze(td_error, axis=-1)
      td_loss = huber(td_error, self._huber_delta)
    else:
      target = categorical_dqn_agent.project_distribution(
        reward + discount * head.support, tf.nn.softmax(next_logits), head.support
      )
      target = tf.stop_gradient(target)
      td_loss = tf.nn.softmax_cross_entropy_with_logits(target, logits)
      td_error = td_loss + tf.reduce_sum(tf.math.xlogy(target, target), axis=-1)
    loss = tf.reduce_mean(td_loss if weights is None else weights * td_loss)
    return tf_agent.LossInfo(loss, dqn_agent.DqnLossInfo(td_loss=td_loss, td_error=td_error))

  def _loss(self, experience, weights=None, training=False):
    """The loss of a `Transition` of pixels or latents; always with noise."""
    del training
    return self._loss_over(self._latents(experience.time_step.observation), experience, weights)

  def _train(self, experience, weights=None):
    """One update from a `Transition` whose observations are pixels or latents.

    Args:
      experience: `trajectory.Transition` of batches; `next_time_step.reward` is the n-step return
        and `next_time_step.discount` holds gamma.
      weights: optional importance weights [B].

    Returns:
      `LossInfo`; see the class for its extra.
    """
    with tf.GradientTape(persistent=True) as tape:
      latents = self._latents(experience.time_step.observation)
    loss_info = self._descend(
      lambda z: self._loss_over(z, experience, weights),
      latents,
      tape,
      self._q_network.trainable_variables,
      self._optimizer,
      self.encoder.trainable_variables,
      self._lower_optimizer,
      self._gradient_norm,
    )
    self.train_step_counter.assign_add(1)
    tf.cond(
      tf.equal(self.train_step_counter % self._target_update_period, 0),
      self._update_target,
      tf.no_op,
    )
    scalars = dict(loss=loss_info.loss, epsilon=self._epsilon_greedy())
    for name, value in scalars.items():
      tf.summary.scalar(f'Losses by updates/{name}', value, step=self.train_step_counter)
    return loss_info
