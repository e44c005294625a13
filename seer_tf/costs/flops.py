"""What learning costs, counted: multiply-accumulates (MAC) of convolutions and dense layers.

The model (ours): a convolution takes H_out W_out C_out C_in k^2 MAC per image, a dense layer
in x out; one MAC is 2 FLOPs; a backward pass costs one forward for the gradient of the weights and
one for the gradient of the input, where either is needed: the first layer that learns needs none of
its input, and layers below it need neither. Activations, norms, pooling and optimisers are left
out. Acting, encoding for replay, the conversion and updates are counted; evaluation is not.
"""

from typing import NamedTuple, Sequence, Tuple

import tensorflow as tf

from seer_tf.networks import encoders

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


class EncoderMacs(NamedTuple):
  """What an encoder costs, and where it stands."""

  stages: Sequence[Sequence[int]]  # forward MAC per image of each layer of each stage
  frozen: int  # stages that are frozen by now, from the first on
  cut: int  # stages below the cut

  def below(self, stage: int) -> int:
    """Forward MAC per image of all stages before this one."""
    return sum(map(sum, self.stages[:stage]))

  def learning(self, first: int) -> Sequence[int]:
    """Forward MAC per image of each layer, from this stage on."""
    return [macs for stage in self.stages[first:] for macs in stage]


def encoder(network: encoders.Encoder, lower: encoders.Stages) -> EncoderMacs:
  """What an encoder costs of which the stages of `lower` are below the cut."""
  return EncoderMacs(
    [
      layer_macs(encoders.parts(stage), shape)
      for stage, shape in zip(network.stages, network.shapes)
    ],
    network.frozen,
    len(lower.stages),
  )


def layer_macs(
  layers: Sequence[tf.keras.layers.Layer], input_shape: Tuple[int, ...]
) -> Tuple[int, ...]:
  """MAC per image of each layer that has a kernel, in a chain of convolutions and pooling.

  Args:
    layers: built, in the order in which they run; dense ones see their input flattened.
    input_shape: [H, W, C] that the first of them sees.
  """
  macs, shape = [], (1, *input_shape)
  for layer in layers:
    kernel = getattr(layer, 'kernel', None)
    if kernel is not None and kernel.shape.rank == 2:
      macs.append(kernel.shape.num_elements())
      continue
    shape = layer.compute_output_shape(shape)
    if kernel is not None:
      macs.append(int(shape[1] * shape[2] * kernel.shape.num_elements()))
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
  return 3 * sum(layers) - (0 if input_gradient else sum(layers[:1]))


def sac(
  encoder: EncoderMacs,
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
  """FLOPs of SAC on a shared encoder whose last stage projects for critic and actor.

  An update runs, per transition: the frozen stages over every view once, unless they are replayed;
  the learning convolutions, the online ones over M views of o_t and K of o_{t+n} and the target
  ones over the latter and over the auxiliary part's views of o_t; for each view of o_t one backward
  pass for the critic's loss and one where the auxiliary loss is due; the projections that are
  needed; for each view of o_t two Q heads forward and backward, for each of o_{t+n} two target Q
  heads and the actor forward. When the actor is due: the actor forward and backward, and two Q
  heads forward and backward to their input. From latents there is one view of each; the auxiliary
  loss ends with the last layer below the cut; below the first layer of a head there is still a
  layer norm that learns.

  Args:
    encoder: its last stage has a layer each for critic and actor, of equal size.
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

  def heads(views, next_views):
    critics = 2 * views * training_macs(critic, True)
    targets = next_views * (2 * sum(critic) + sum(actor))
    actors = training_macs(actor, True) + 2 * 2 * sum(critic)
    return critics + targets + actors / actor_update_period

  def learning(first, views, next_views, auxiliary):
    if first == len(encoder.stages):
      return 0
    *convolutions, projection, _ = encoder.learning(first)
    half = sum(convolutions) + projection
    back = training_macs([*convolutions, projection], False) - half
    online = views * (half + projection + back + projection / actor_update_period)
    others = (2 * next_views + auxiliary.views) * half
    return online + others + auxiliary.rate * (views * back + auxiliary.macs)

  def update(first, views, next_views, auxiliary):
    return learning(first, views, next_views, auxiliary) + heads(views, next_views)

  if encoder.frozen >= encoder.cut:
    auxiliary = NO_AUXILIARY
  encoded = views + next_views + auxiliary.views
  return _costs(
    encoder,
    sum(actor),
    encoded * encoder.below(encoder.frozen) + update(encoder.frozen, views, next_views, auxiliary),
    update(encoder.cut, 1, 1, NO_AUXILIARY),
    batch_size,
    stored_crops,
    augmented,
  )


def dqn(
  encoder: EncoderMacs,
  streams: Sequence[Sequence[int]],
  batch_size: int,
  stored_crops: int,
  double: bool,
  augmented: bool,
) -> Costs:
  """FLOPs of DQN and its extensions.

  An update runs, per transition: the frozen stages over o_t and o_{t+n}, unless they are replayed;
  above them the online network over o_t forward and backward, the target one over o_{t+n} forward
  and, with a double argmax, the online one over o_{t+n} forward.

  Args:
    encoder: of the images.
    streams: per stream of the head (dueling: two), forward MAC of each of its layers.
    batch_size: transitions per update.
    stored_crops: crops that replay stores of each observation.
    double: whether the online network chooses the next action.
    augmented: whether what replay stores of an observation is not what acting encodes of it.
  """
  head = sum(sum(stream) for stream in streams)
  networks = 2 if double else 1

  def update(first):
    layers = encoder.learning(first)
    below = training_macs(layers, False) + networks * sum(layers)
    heads = sum(training_macs(stream, bool(layers)) for stream in streams) + networks * head
    return below + heads

  return _costs(
    encoder,
    head,
    2 * encoder.below(encoder.frozen) + update(encoder.frozen),
    update(encoder.cut),
    batch_size,
    stored_crops,
    augmented,
  )


def _costs(
  encoder: EncoderMacs,
  head: int,
  from_pixels: float,
  from_latents: float,
  batch_size: int,
  stored_crops: int,
  augmented: bool,
) -> Costs:
  """Costs, given the MAC of the acting head, and of updates per transition."""
  flops = lambda macs: int(FLOPS_PER_MAC * macs)
  store = stored_crops * encoder.below(encoder.cut)
  return Costs(
    act=flops(encoder.below(len(encoder.stages)) + head),
    store=flops(store if augmented else 0),
    convert=flops(store),
    update_from_pixels=flops(batch_size * from_pixels),
    update_from_latents=flops(batch_size * from_latents),
  )
