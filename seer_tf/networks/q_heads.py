"""Heads of the DQN family: action values, or their distributions, over latents."""

import math
from typing import Optional, Sequence

import gin
import tensorflow as tf
from tf_agents.networks import network

from seer_tf.networks import noisy


@gin.configurable
class QHead(network.Network):
  """Q values of latents [B, D] -> float32 [B, actions]; every part can be left out.

  One hidden ReLU layer and an output per action (and atom). Dueling (Wang et al. 2016) makes two
  such streams: q = value + advantage - mean of advantages, atom by atom. With `atoms` the outputs
  are logits of a categorical distribution over a fixed support (C51, Bellemare et al. 2017), and a
  Q value is its mean.

  As a TF-Agents network it is called with `training`: True draws new noisy weights for this call,
  False (as policies do that evaluate) computes with the mean weights.

  Attributes:
    actions: number of actions.
    support: float32 [atoms], or None where Q values are learned directly.
  """

  def __init__(
    self,
    actions: int,
    hidden: int = 512,
    dueling: bool = False,
    noise_sigma: float = 0.0,
    atoms: Optional[int] = None,
    v_min: float = -10.0,
    v_max: float = 10.0,
    name: str = 'q_head',
  ):
    """Describes the head; its variables are made by its first call.

    Args:
      actions: number of actions.
      hidden: width of the hidden layer of each stream.
      dueling: whether value and advantages have a stream each.
      noise_sigma: initial noise of noisy layers; 0 for plain dense layers.
      atoms: size of the support; None to learn Q values directly.
      v_min: first atom, in units of the return.
      v_max: last atom.
      name: of the network.

    Raises:
      ValueError: if atoms and their range, or the noise, make no sense.
    """
    super().__init__(state_spec=(), name=name)
    if atoms is not None and (not isinstance(atoms, int) or atoms < 2):
      raise ValueError(
        f'QHead.atoms is {atoms!r}; give a whole number, at least 2 (published: 51), or None to '
        f'learn Q values directly.'
      )
    if atoms is not None and not -math.inf < v_min < v_max < math.inf:
      raise ValueError(
        f'QHead.v_min is {v_min} and QHead.v_max {v_max}; give two finite numbers, v_min the '
        f'smaller one, such as -10 and 10.'
      )
    if noise_sigma < 0:
      raise ValueError(f'QHead.noise_sigma is {noise_sigma}; give 0 (no noise) or more.')
    self.actions = actions
    self.support = None if atoms is None else tf.linspace(float(v_min), float(v_max), atoms)
    self._atoms = atoms or 1
    self._hidden = hidden
    self._outputs = dict(value=1, advantage=actions) if dueling else dict(q=actions)
    self._streams = [
      [
        noisy.NoisyDense(hidden, noise_sigma, f'{stream}_hidden'),
        noisy.NoisyDense(outputs * self._atoms, noise_sigma, f'{stream}_output'),
      ]
      for stream, outputs in self._outputs.items()
    ]

  def build(self, input_shape):
    """Makes the variables for latents [B, D]."""
    for hidden, output in self._streams:
      for layer, shape in ((hidden, input_shape), (output, [None, self._hidden])):
        with tf.name_scope(layer.name):
          layer.build(shape)
    super().build(input_shape)

  @property
  def macs(self) -> Sequence[Sequence[int]]:
    """Per stream, MAC of each layer for one latent; drawing noise is not counted."""
    return [[layer.kernel.shape.num_elements() for layer in stream] for stream in self._streams]

  def weights_mean(self):
    """Weights of every layer without noise, for `logits`."""
    return [[layer.mean() for layer in stream] for stream in self._streams]

  def weights_draw(self):
    """One draw of every layer's weights, for `logits`."""
    return [[layer.draw() for layer in stream] for stream in self._streams]

  def logits(self, latents, weights):
    """Outputs float32 [B, actions, atoms] (one atom: the value itself) of latents [B, D].

    Args:
      latents: [B, D].
      weights: from `weights_mean` or `weights_draw`; pass the same to several calls to keep one
        draw of the noise for all of them.
    """
    outputs = []
    for (hidden, output), count in zip(weights, self._outputs.values()):
      z = tf.nn.relu(tf.matmul(latents, hidden.kernel) + hidden.bias)
      z = tf.matmul(z, output.kernel) + output.bias
      outputs.append(tf.reshape(z, [-1, count, self._atoms]))
    if len(outputs) == 1:
      return outputs[0]
    value, advantage = outputs
    return value + advantage - tf.reduce_mean(advantage, axis=1, keepdims=True)

  def values(self, logits):
    """Q values float32 [B, actions] of what `logits` returned."""
    if self.support is None:
      return tf.squeeze(logits, axis=-1)
    return tf.reduce_sum(tf.nn.softmax(logits) * self.support, axis=-1)

  def call(self, latents, step_type=(), network_state=(), training=False):
    """Q values float32 [B, actions] and the unchanged network state."""
    del step_type
    weights = self.weights_draw() if training else self.weights_mean()
    return self.values(self.logits(latents, weights)), network_state
