"""Policies on pixels: the encoder in front of a policy on latents."""

from typing import Callable

import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.policies import q_policy, tf_policy
from tf_agents.trajectories import policy_step


class EncodingPolicy(tf_policy.TFPolicy):
  """Encodes an observation's centre crop, then acts with a policy on latents.

  With `stored_crops` > 0 the same pass also encodes that many random crops of the observation and
  returns them as the policy's info, float32 [B, stored_crops, D]: what replay stores of this
  observation after the freeze. Each observation thus goes through the convolutions once. An
  augmentation that is not random adds no crops: the latent that acts is the one that is stored.
  """

  def __init__(
    self, time_step_spec, lower, upper, augmentation, head_policy, stored_crops: int = 0
  ):
    """Wraps `head_policy`.

    Args:
      time_step_spec: spec of time steps with pixels uint8 [H, W, C].
      lower: the online encoder's stages below the cut, whose output is stored.
      upper: the ones above it.
      augmentation: gives the centre and the random crops.
      head_policy: `TFPolicy` whose observations are latents float32 [D].
      stored_crops: K, crops to hand out as policy info; 0 for none.
    """
    info_spec = ()
    if stored_crops:
      info_spec = tf.TensorSpec([stored_crops, lower.latent_size], tf.float32, name='latents')
    super().__init__(
      time_step_spec, head_policy.action_spec, head_policy.policy_state_spec, info_spec
    )
    self._lower, self._upper = lower, upper
    self._augmentation = augmentation
    self._head_policy = head_policy
    self._stored_crops = stored_crops

  def _variables(self):
    own = [*self._lower.variables, *self._upper.variables]
    return [*own, *self._head_policy.variables()]

  def _encode(self, time_step):
    """The time step on latents, and the latents to store."""
    pixels, crops = time_step.observation, self._stored_crops
    images = [self._augmentation.centre(pixels)]
    if self._augmentation.random:
      images += [self._augmentation.augment(pixels) for _ in range(crops)]
    latents = tf.split(self._lower(tf.concat(images, axis=0)), len(images))
    stored = latents[1:] if self._augmentation.random else latents * crops
    info = tf.stack(stored, axis=1) if crops else ()
    return time_step._replace(observation=self._upper(latents[0])), info

  def _distribution(self, time_step, policy_state):
    time_step, info = self._encode(time_step)
    return self._head_policy.distribution(time_step, policy_state)._replace(info=info)


class EpsilonGreedyQPolicy(q_policy.QPolicy):
  """The best action of a Q network with probability 1 - epsilon, else any.

  Unlike TF-Agents' `EpsilonGreedyPolicy` it has a distribution, which policies that wrap it ask for
  (`EncodingPolicy`, and the greedy policy that is saved), and can call its network as in training.
  """

  def __init__(
    self, time_step_spec, action_spec, q_network, epsilon: Callable[[], float], training: bool
  ):
    """Acts with `q_network`.

    Args:
      time_step_spec: of what the network sees.
      action_spec: one bounded integer from 0 on.
      q_network: of observations -> Q values float32 [B, actions].
      epsilon: called for each action.
      training: passed to the network: whether noisy layers are noisy, anew for each action.
    """
    super().__init__(time_step_spec, action_spec, q_network)
    self._epsilon = epsilon
    self._training = training

  def _distribution(self, time_step, policy_state):
    values, policy_state = self._q_network(
      time_step.observation, time_step.step_type, policy_state, training=self._training
    )
    actions, epsilon = values.shape[-1], self._epsilon()
    best = tf.one_hot(tf.argmax(values, axis=-1), actions)
    choice = tfp.distributions.Categorical(
      probs=(1.0 - epsilon) * best + epsilon / actions, dtype=self.action_spec.dtype
    )
    return policy_step.PolicyStep(choice, policy_state)
