"""What learning costs, counted: multiply-accumulates (MAC) of convolutions and dense layers.

The model (ours): a convolution takes H_out W_out C_out C_in k^2 MAC per image, a dense layer
in x out; one MAC is 2 FLOPs; a backward pass costs one forward for the gradient of the weights and
one for the gradient of the input, where either is needed. Activations, norms and optimisers are
left out. Acting, encoding for replay, the conversion and updates are counted; evaluation is not.
"""

from typing import NamedTuple, Sequence, Tuple

import tensorflow as tf

FLOPS_PER_MAC = 2


class Costs(NamedTuple):
  """FLOPs of each thing that a run does."""

  act: int  # one action: encode the centre crop, run the actor's head
  store: int  # encode, besides, what the table of latents stores of that observation
  convert: int  # encode what it stores of an observation that was pixels in replay
  update_from_pixels: int  # mean over a period of the update's cadence
  update_from_latents: int  # the same


class Auxiliary(NamedTuple):
  """What an auxiliary loss adds to an update from pixels; nothing to any other."""

  views: int  # further views of each o_t that the target encoder encodes, at every update
  macs: int  # per transition, of the loss's own layers, forward and backward
  rate: float  # updates of this loss per update of the critic


NO_AUXILIARY = Auxiliary(views=0, macs=0, rate=0.0)


def convolution_macs(
  layers: Sequence[tf.keras.layers.Layer], image_shape: Tuple[int, int, int]
) -> Tuple[int, ...]:
  """MAC per image of each of a chain of convolutions.

  Args:
    layers: built `Conv2D` layers, in the order in which they run.
    image_shape: [H, W, C] that the first of them sees.
  """
  macs, shape = [], (1, *image_shape)
  for layer in layers:
    shape = layer.compute_output_shape(shape)
    macs.append(int(shape[1] * shape[2] * tf.size(layer.kernel)))
  return tuple(macs)


def dense_macs(network: tf.Module) -> Tuple[int, ...]:
  """MAC per example of each dense layer in a built network, in the order of its variables."""
  return tuple(
    variable.shape.num_elements()
    for variable in network.trainable_variables
    if variable.shape.rank == 2
  )


def training_macs(layers: Sequence[int], input_gradient: bool) -> int:
  """MAC of a chain's forward and backward pass, from the MAC of each layer.

  Args:
    layers: forward MAC of each layer, first to last.
    input_gradient: whether the first layer's input needs a gradient too.
  """
  return 3 * sum(layers) - (0 if input_gradient else layers[0])


def sac(
  convolutions: Sequence[int],
  projection: int,
  actor: Sequence[int],
  critic: Sequence[int],
  batch_size: int,
  stored_crops: int,
  actor_update_period: int,
  augmented: bool = True,
  views: int = 1,
  next_views: int = 1,
  auxiliary: Auxiliary = NO_AUXILIARY,
) -> Costs:
  """FLOPs of SAC on a shared encoder with a projection each for critic and actor.

  An update runs, per transition: the online convolutions over M views of o_t and K of o_{t+n} and
  the target ones over the latter and over the auxiliary part's views of o_t; for each view of o_t
  one backward pass for the critic's loss and one where the auxiliary loss is due; the projections
  that are needed; for each view of o_t two Q heads forward and backward, for each of o_{t+n} two
  target Q heads and the actor forward. When the actor is due: the actor forward and backward, and
  two Q heads forward and backward to their input. From latents there is one view of each, and no
  auxiliary loss; below the first layer of a head there is still a layer norm that learns.

  Args:
    convolutions: forward MAC of each convolution per image.
    projection: forward MAC of one projection.
    actor: forward MAC of each dense layer of the actor's head.
    critic: the same of one Q head.
    batch_size: transitions per update.
    stored_crops: crops that replay stores of each observation.
    actor_update_period: updates per update of the actor.
    augmented: whether what replay stores of an observation is not what acting encodes of it.
    views: M, of o_t.
    next_views: K, of o_{t+n}.
    auxiliary: what its loss adds.
  """
  half = sum(convolutions) + projection
  encode = half + projection

  def heads(views, next_views):
    critics = 2 * views * training_macs(critic, True)
    targets = next_views * (2 * sum(critic) + sum(actor))
    actors = training_macs(actor, True) + 2 * 2 * sum(critic)
    return critics + targets + actors / actor_update_period

  back = training_macs(convolutions, False) - sum(convolutions) + 2 * projection
  below = views * (encode + back + projection / actor_update_period)
  below += (2 * next_views + auxiliary.views) * half
  below += auxiliary.rate * (views * back + auxiliary.macs)
  flops = lambda macs: int(FLOPS_PER_MAC * macs)
  return Costs(
    act=flops(encode + sum(actor)),
    store=flops(stored_crops * encode if augmented else 0),
    convert=flops(stored_crops * encode),
    update_from_pixels=flops(batch_size * (below + heads(views, next_views))),
    update_from_latents=flops(batch_size * heads(1, 1)),
  )


def dqn(
  convolutions: Sequence[int],
  streams: Sequence[Sequence[int]],
  batch_size: int,
  stored_crops: int,
  double: bool,
  augmented: bool,
) -> Costs:
  """FLOPs of DQN and its extensions.

  An update runs, per transition: the online network over o_t forward and backward, the target one
  over o_{t+n} forward and, with a double argmax, the online one over o_{t+n} forward.

  Args:
    convolutions: forward MAC of each convolution per image.
    streams: per stream of the head (dueling: two), forward MAC of each of its layers.
    batch_size: transitions per update.
    stored_crops: crops that replay stores of each observation.
    double: whether the online network chooses the next action.
    augmented: whether what replay stores of an observation is not what acting encodes of it.
  """
  encode = sum(convolutions)
  head = sum(sum(stream) for stream in streams)
  networks = 2 if double else 1

  def heads(latents_learn):
    return sum(training_macs(stream, latents_learn) for stream in streams) + networks * head

  below = training_macs(convolutions, False) + networks * encode
  flops = lambda macs: int(FLOPS_PER_MAC * macs)
  return Costs(
    act=flops(encode + head),
    store=flops(stored_crops * encode if augmented else 0),
    convert=flops(stored_crops * encode),
    update_from_pixels=flops(batch_size * (below + heads(True))),
    update_from_latents=flops(batch_size * heads(False)),
  )
