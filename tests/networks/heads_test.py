"""Tests of the heads: they read their own latents and nothing else."""

import numpy as np
import tensorflow as tf
from tf_agents.specs import tensor_spec

from seer_tf.networks import heads

ACTION = tensor_spec.BoundedTensorSpec([2], tf.float32, [-1.0, -2.0], [1.0, 3.0])
LATENTS = tf.TensorSpec([10], tf.float32)


def _differs(network_output, latents, own):
  """Which halves of the latents change the output."""
  changed = []
  for half in (slice(0, 5), slice(5, 10)):
    other = latents.numpy()
    other[:, half] += np.random.default_rng(0).normal(size=other[:, half].shape)
    changed.append(not np.allclose(network_output(latents), network_output(tf.constant(other))))
  return changed == own


def test_critic_reads_its_half_and_the_action():
  critic = heads.critic_head(latents=slice(0, 5), hidden=(16,), name='critic1')
  critic.create_variables((LATENTS, ACTION))
  latents, action = tf.random.normal([3, 10]), tf.random.uniform([3, 2])
  q = lambda z, a=action: critic((z, a))[0]
  assert q(latents).shape == (3,)
  assert _differs(q, latents, [True, False])
  assert not np.allclose(q(latents), q(latents, action + 0.5))


def test_actor_reads_its_half_and_stays_in_bounds():
  actor = heads.actor_head(ACTION, latents=slice(5, 10), hidden=(16,))
  actor.create_variables(LATENTS)
  latents = 100 * tf.random.normal([500, 10])
  mode = lambda z: actor(z)[0].mode()
  assert _differs(mode, latents, [False, True])
  actions = actor(latents)[0].sample().numpy()
  assert (actions >= ACTION.minimum).all() and (actions <= ACTION.maximum).all()


def test_every_layer_starts_orthogonal():
  actor = heads.actor_head(ACTION, latents=slice(0, 6), hidden=(8, 5))
  critic = heads.critic_head(latents=slice(0, 6), hidden=(8, 5))
  actor(tf.zeros([3, 6]), tf.zeros([3], tf.int32))
  critic((tf.zeros([3, 6]), tf.zeros([3, 2])))
  kernels = [v for v in (*actor.variables, *critic.variables) if 'kernel' in v.name]
  assert len(kernels) == 6
  for kernel in kernels:
    flat = kernel.numpy() if kernel.shape[0] >= kernel.shape[1] else kernel.numpy().T
    np.testing.assert_allclose(flat.T @ flat, np.eye(flat.shape[1]), atol=1e-5)


def test_log_std_is_squashed():
  log_std = np.log(heads.squashed_std(tf.constant([-1e3, 0.0, 1e3])))
  np.testing.assert_allclose(log_std, [-10, -4, 2], rtol=1e-5)
