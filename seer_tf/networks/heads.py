"""Heads: networks that see latents only, and go on training after the freeze."""

from typing import Sequence

import gin
import tensorflow as tf
from tf_agents.agents.sac import tanh_normal_projection_network
from tf_agents.networks import nest_map, sequential


def _dense(units, name, activation=None):
  return tf.keras.layers.Dense(
    units, activation, kernel_initializer=tf.keras.initializers.Orthogonal(), name=name
  )


def _hidden(widths):
  return [_dense(width, f'dense{i + 1}', 'relu') for i, width in enumerate(widths)]


def _own_latents(latents, activation):
  return [
    tf.keras.layers.Lambda(lambda z: z[..., latents], name='own_latents'),
    tf.keras.layers.LayerNormalization(epsilon=1e-5, name='layer_norm'),
    tf.keras.layers.Activation(activation, name='activation'),
  ]


@gin.configurable
def critic_head(
  latents: slice,
  hidden: Sequence[int] = (1024, 1024),
  latent_activation: str = 'linear',
  name: str = 'critic',
):
  """A Q function of (latents [B, D], action [B, A]) -> float32 [B].

  Args:
    latents: which of the D latents belong to the critic.
    hidden: widths of the ReLU layers.
    latent_activation: Keras' name of what follows the layer norm.
    name: of the network; its variables carry it.

  Returns:
    A TF-Agents network: layer norm over the critic's latents, then a multilayer perceptron.
  """
  own = _own_latents(latents, latent_activation)
  return sequential.Sequential(
    [
      nest_map.NestMap(
        (sequential.Sequential(own, name='latents'), tf.keras.layers.Lambda(tf.identity)),
        name='inputs',
      ),
      nest_map.NestFlatten(),
      tf.keras.layers.Concatenate(),
      *_hidden(hidden),
      _dense(1, 'q'),
      tf.keras.layers.Reshape([]),
    ],
    name=name,
  )


def squashed_std(raw, low=-10.0, high=2.0):
  """Standard deviation whose logarithm is squashed by tanh into [low, high]."""
  return tf.exp(low + 0.5 * (high - low) * (tf.tanh(raw) + 1.0))


class _Projection(tanh_normal_projection_network.TanhNormalProjectionNetwork):
  """TF-Agents' projection for batches [B, ...], which `Sequential` cannot tell the rank of.

  It starts as the layers below it do; TF-Agents offers no choice of that.
  """

  def __init__(self, sample_spec, std_transform, name='TanhNormalProjectionNetwork'):
    """See TF-Agents."""
    super().__init__(sample_spec, std_transform=std_transform, name=name)
    self._projection_layer.kernel_initializer = tf.keras.initializers.Orthogonal()

  def call(self, inputs, network_state=(), step_type=None, training=False):
    del network_state, step_type
    return super().call(inputs, outer_rank=1, training=training)


@gin.configurable
def actor_head(
  action_spec,
  latents: slice,
  hidden: Sequence[int] = (1024, 1024),
  latent_activation: str = 'linear',
  name: str = 'actor',
):
  """A policy of latents [B, D] -> tanh-squashed normal distribution over `action_spec`.

  Args:
    action_spec: bounded spec of the action, [A].
    latents: which of the D latents belong to the actor.
    hidden: widths of the ReLU layers.
    latent_activation: Keras' name of what follows the layer norm.
    name: of the network; its variables carry it.

  Returns:
    A TF-Agents network: layer norm over the actor's latents, a multilayer perceptron, and a
    normal whose log standard deviation lies in [-10, 2].
  """
  return sequential.Sequential(
    [
      *_own_latents(latents, latent_activation),
      *_hidden(hidden),
      _Projection(action_spec, std_transform=squashed_std),
    ],
    name=name,
  )
