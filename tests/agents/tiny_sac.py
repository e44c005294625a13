"""A SAC agent so small that updates take milliseconds, and batches for it."""

import functools

import numpy as np
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.trajectories import time_step as ts

from seer_tf.agents import augmentation, sac
from seer_tf.networks import encoders, heads, variables

SIZE, CROP, BATCH = 18, 15, 16
TIME_STEPS = ts.time_step_spec(tensor_spec.BoundedTensorSpec([SIZE, SIZE, 3], tf.uint8, 0, 255))
ACTION = tensor_spec.BoundedTensorSpec([1], tf.float32, -1, 1)


def make_agent(augment=None, **kwargs):
  """An agent with random crops, or another augmentation, freshly initialised from one seed."""
  tf.keras.utils.set_random_seed(1)
  augment = augment or augmentation.RandomCrop(CROP)
  image_shape = augment.output_shape((SIZE, SIZE, 3))
  agent = sac.SeerSacAgent(
    TIME_STEPS,
    ACTION,
    lower_fn=functools.partial(encoders.ControlEncoder, image_shape, filters=(8, 8), features=10),
    augmentation=augment,
    critic_fn=functools.partial(heads.critic_head, hidden=(32, 32)),
    actor_fn=functools.partial(heads.actor_head, hidden=(32, 32)),
    train_step_counter=tf.Variable(0, dtype=tf.int64),
    **kwargs,
  )
  agent.initialize()
  return agent


def transition(observation, action, reward, discount, next_observation):
  """A batch of transitions from arrays."""
  batch = len(reward)
  kinds = np.ones(batch, np.int32)
  step = functools.partial(
    ts.TimeStep, tf.constant(kinds), tf.constant(reward), tf.constant(discount)
  )
  return trajectory.Transition(
    step(tf.constant(observation)),
    policy_step.PolicyStep(tf.constant(action), (), ()),
    step(tf.constant(next_observation)),
  )


def random_transition(rng, latent_size=None):
  """A batch of pixels, or of latents of this size, with discount 0.9."""

  def observations():
    if latent_size:
      return rng.normal(size=[BATCH, latent_size]).astype(np.float32)
    return rng.integers(0, 256, [BATCH, SIZE, SIZE, 3], dtype=np.uint8)

  uniform = lambda *shape: rng.uniform(-1, 1, shape).astype(np.float32)
  discount = np.full(BATCH, 0.9, np.float32)
  return transition(observations(), uniform(BATCH, 1), uniform(BATCH), discount, observations())


def networks(agent):
  """The agent's networks, online and target ones."""
  return {
    'lower': agent.encoder,
    'target lower': agent.target_encoder,
    'critic 1': agent._critic_network_1,
    'critic 2': agent._critic_network_2,
    'target critic 1': agent._target_critic_network_1,
    'target critic 2': agent._target_critic_network_2,
    'actor': agent._actor_network,
  }


def values(agent):
  """Copies of all variables, by network and name."""
  return {
    (network, name): variable.numpy()
    for network, module in networks(agent).items()
    for name, variable in variables.by_name(module).items()
  }


def changed(before, after):
  """Keys of what differs in a bit."""
  return {key for key in before if not np.array_equal(before[key], after[key])}
