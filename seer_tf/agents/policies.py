"""Policies on pixels: the lower encoder in front of a policy on latents."""

import tensorflow as tf
from tf_agents.policies import tf_policy
from tf_agents.trajectories import policy_step


class EncodingPolicy(tf_policy.TFPolicy):
  """Encodes an observation's centre crop, then acts with a policy on latents.

  With `stored_crops` > 0 the same pass also encodes that many random crops of the observation and
  returns them as the policy's info, float32 [B, stored_crops, D]: what replay stores of this
  observation after the freeze. Each observation thus goes through the convolutions once.
  """

  def __init__(self, time_step_spec, lower, augmentation, head_policy, stored_crops: int = 0):
    """Wraps `head_policy`.

    Args:
      time_step_spec: spec of time steps with pixels uint8 [H, W, C].
      lower: the online lower encoder.
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
    self._lower = lower
    self._augmentation = augmentation
    self._head_policy = head_policy
    self._stored_crops = stored_crops

  def _variables(self):
    return [*self._lower.variables, *self._head_policy.variables()]

  def _distribution(self, time_step, policy_state):
    pixels = time_step.observation
    crops = [self._augmentation.centre(pixels)]
    crops += [self._augmentation.augment(pixels) for _ in range(self._stored_crops)]
    latents = tf.split(self._lower(tf.concat(crops, axis=0)), len(crops))
    step = self._head_policy.distribution(time_step._replace(observation=latents[0]), policy_state)
    info = tf.stack(latents[1:], axis=1) if self._stored_crops else ()
    return policy_step.PolicyStep(step.action, step.state, info)
