"""Encoders: named stages from pixels to one latent, which can be cut between any two.

What is below the cut is the lower encoder: the only thing that the freeze switch freezes, and the
only thing whose output replay stores. What is above it goes on learning, from replayed latents.
Everything above the encoder (layer norms, critics, actor) is a head and lives in `heads.py`.
"""

import itertools
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import gin
import tensorflow as tf

gin.external_configurable(tf.keras.initializers.Orthogonal, module='seer_tf.networks.encoders')


@gin.configurable
class DeltaOrthogonal(tf.keras.initializers.Initializer):
  """Zero kernel but for an orthogonal matrix at its centre (Xiao et al. 2018, section 4).

  The convolution then starts as one orthogonal map of the channels, which is how the published
  control encoders are initialised.
  """

  def __init__(self, gain=2.0**0.5):
    self._orthogonal = tf.keras.initializers.Orthogonal(gain)

  def __call__(self, shape, dtype=None, **kwargs):
    """Returns a kernel of `shape`, [height, width, channels in, channels out]."""
    height, width, channels_in, channels_out = shape
    centre = self._orthogonal((channels_in, channels_out), dtype=dtype)
    top, left = height // 2, width // 2
    padding = ((top, height - top - 1), (left, width - left - 1), (0, 0), (0, 0))
    return tf.pad(centre[tf.newaxis, tf.newaxis], padding)


class Halves(NamedTuple):
  """What SAC's heads see: float32 [B, features] each."""

  critic: tf.Tensor
  actor: tf.Tensor


class Projections(tf.keras.layers.Layer):
  """Two dense projections of the flattened convolutions, one for the critic and one for the actor.

  The actor's reads the convolutions through a `stop_gradient`, so that only the critic's loss ever
  reaches them, whatever is computed above.
  """

  def __init__(self, features: int, name: str = 'dense'):
    """Projects to `features` each."""
    super().__init__(name=name)
    dense = lambda name: tf.keras.layers.Dense(
      features, kernel_initializer=tf.keras.initializers.Orthogonal(), name=name
    )
    self.critic_projection = dense('critic_projection')
    self.actor_projection = dense('actor_projection')

  @property
  def parts(self) -> Sequence[tf.keras.layers.Layer]:
    """See `parts`."""
    return self.critic_projection, self.actor_projection

  def call(self, hidden) -> Halves:
    """`Halves` of the last convolution's output [B, h, w, C]."""
    flat = joined(hidden)
    return Halves(self.critic_projection(flat), self.actor_projection(tf.stop_gradient(flat)))


def parts(stage: tf.keras.layers.Layer) -> Sequence[tf.keras.layers.Layer]:
  """The layers that a stage is made of, in the order in which they run; a plain layer is one."""
  return getattr(stage, 'parts', (stage,))


def joined(output):
  """What a stage puts out, [B, ...] or `Halves`, as flat vectors [B, D]."""
  flat = [tf.reshape(part, [-1, part.shape[1:].num_elements()]) for part in tf.nest.flatten(output)]
  return flat[0] if len(flat) == 1 else tf.concat(flat, axis=-1)


class Stages(tf.keras.Model):
  """Stages that run one after another, on pixels or on the latents of the stages below them.

  Attributes:
    stages: layers, first to last.
    shapes: of what goes into each of them, and last of what comes out of the top; without batch.
    latent_size: D, numbers in what comes out of the top.
  """

  def __init__(
    self, stages: Sequence[tf.keras.layers.Layer], shapes: Sequence[Tuple[int, ...]], name: str
  ):
    """Runs stages that are built."""
    super().__init__(name=name)
    self.stages = list(stages)
    self.shapes = tuple(tuple(shape) for shape in shapes)
    self.latent_size = tf.TensorShape(self.shapes[-1]).num_elements()

  @property
  def frozen(self) -> int:
    """Stages, from the first on, that learn no more."""
    return len(list(itertools.takewhile(lambda stage: not stage.trainable, self.stages)))

  def call(self, inputs):
    """Latents float32 [B, D] of uint8 pixels [B, h, w, C], or of latents from below [B, D']."""
    return joined(self._outputs(inputs, 0, len(self.stages))[-1])

  def encode_frozen(self, pixels):
    """What the frozen stages make of uint8 pixels [B, h, w, C], flat, as replay would store it.

    Returns:
      float32 [B, D']; where no stage is frozen, the pixels.
    """
    return joined(self._outputs(pixels, 0, self.frozen)[-1])

  def encode_learning(self, hidden):
    """What the stages that still learn make of `encode_frozen`'s output [B, D'].

    Returns:
      [B, ...] or `Halves`, as the last stage puts it out; where none learns, what went in.
    """
    return self._outputs(hidden, self.frozen, len(self.stages))[-1]

  def activations(self, pixels) -> Dict[str, tf.Tensor]:
    """What each stage puts out for uint8 pixels [B, h, w, C].

    Returns:
      Stage name, and for projections 'stage/critic' and 'stage/actor' -> float32 [B, ...].
    """
    named = {}
    for stage, output in zip(self.stages, self._outputs(pixels, 0, len(self.stages))[1:]):
      if isinstance(output, Halves):
        named.update({f'{stage.name}/{half}': x for half, x in output._asdict().items()})
      else:
        named[stage.name] = output
    return named

  def _outputs(self, inputs, first: int, last: int) -> List:
    """What goes into stage `first`, and what each stage from it to before `last` puts out."""
    scaled = tf.image.convert_image_dtype(inputs, tf.float32)  # bytes to [0, 1]; floats stay
    outputs = [tf.reshape(scaled, [-1, *self.shapes[first]])]
    for stage in self.stages[first:last]:
      outputs.append(stage(outputs[-1]))
    return outputs


class Encoder(Stages):
  """An encoder of images. Online and target networks have one each.

  Attributes:
    image_shape: height, width and channels of the (cropped, stacked) image.
    features: width of each of the two projections, None where there are none.
  """

  def __init__(
    self,
    image_shape: Tuple[int, int, int],
    convolutions: Sequence[tf.keras.layers.Layer],
    features: Optional[int] = None,
    name: str = 'encoder',
  ):
    """Builds the stages' variables.

    Args:
      image_shape: height, width and channels of the image.
      convolutions: layers, each with a name of its own.
      features: width of the projections that SAC's critic and actor have above the convolutions;
        None for none, as the DQN family has it.
      name: Keras name; online and target copies carry the same.

    Raises:
      ValueError: when there are no convolutions, or one would have nothing left to look at.
    """
    if not convolutions:
      raise ValueError(f'{type(self).__name__} has no convolutions: give at least one.')
    side, smallest = min(image_shape[:2]), _smallest_side(convolutions)
    if side < smallest:
      raise ValueError(
        f'image size {side} is too small for the convolutions of {type(self).__name__}: they need '
        f'at least {smallest} pixels. Render and crop larger images, or bind fewer convolutions or '
        f'another encoder.'
      )
    stages = [*convolutions, *([] if features is None else [Projections(features)])]
    output, shapes = tf.zeros([1, *image_shape]), [image_shape]
    for stage in stages:
      output = stage(output)
      shapes.append((joined(output).shape[1],) if isinstance(output, Halves) else output.shape[1:])
    super().__init__(stages, shapes, name)
    self.image_shape = tuple(image_shape)
    self.features = features

  @property
  def convolutions(self) -> Sequence[tf.keras.layers.Layer]:
    """The stages but for the projections."""
    return self.stages[: len(self.stages) - (self.features is not None)]

  @property
  def actor_variables(self) -> Sequence[tf.Variable]:
    """Trainable variables that the actor's loss reaches: its projection."""
    return self.stages[-1].actor_projection.trainable_variables

  @property
  def critic_variables(self) -> Sequence[tf.Variable]:
    """Trainable variables that the critic's loss reaches: convolutions and critic projection."""
    layers = [*self.convolutions, self.stages[-1].critic_projection]
    return [variable for layer in layers for variable in layer.trainable_variables]

  def halves(self, hidden) -> Halves:
    """The latents that `encode_learning` makes, the critic's and the actor's."""
    output = self.encode_learning(hidden)
    return output if isinstance(output, Halves) else Halves(*tf.split(output, 2, axis=-1))

  def cut(self, freeze_up_to: Optional[str] = None) -> Tuple[Stages, Stages]:
    """This encoder's own stages, in two: up to one of them, and above it.

    Args:
      freeze_up_to: name of the last stage below the cut; None for the last of all.

    Raises:
      ValueError: if no stage has that name.
    """
    names = [stage.name for stage in self.stages]
    if freeze_up_to is None:
      freeze_up_to = names[-1]
    if freeze_up_to not in names:
      raise ValueError(
        f'freeze_up_to is {freeze_up_to!r}, but {type(self).__name__} can be cut only above '
        f'{", ".join(names)}: name one of these layers. Heads are above the last and always learn.'
      )
    count = names.index(freeze_up_to) + 1
    return (
      Stages(self.stages[:count], self.shapes[: count + 1], 'lower'),
      Stages(self.stages[count:], self.shapes[count:], 'upper'),
    )


def _smallest_side(stages: Sequence[tf.keras.layers.Layer]) -> int:
  """The least side of an image of which these stages leave a pixel."""
  side = 1
  for layer in reversed([part for stage in stages for part in parts(stage)]):
    valid = getattr(layer, 'padding', 'valid') == 'valid'
    size = getattr(layer, 'kernel_size', getattr(layer, 'pool_size', (1,)))  # of pooling
    kernel = size[0] if valid else 1
    side = (side - 1) * getattr(layer, 'strides', (1,))[0] + kernel
  return side


@gin.configurable
class ControlEncoder(Encoder):
  """The encoder of the published control agents.

  Convolutions 3x3 without padding, the first with stride 2, the others with stride 1. With the
  defaults an 84x84 image gives 41, 39, 37 and 35 wide feature maps and 2 x 50 latents.
  """

  def __init__(
    self,
    image_shape: Tuple[int, int, int],
    filters: Sequence[int] = (32, 32, 32, 32),
    features: Optional[int] = 50,
    initializer_fn: Callable[[], tf.keras.initializers.Initializer] = DeltaOrthogonal,
    name: str = 'encoder',
  ):
    """Builds the encoder's variables.

    Args:
      image_shape: see `Encoder`.
      filters: filters of each convolution.
      features: see `Encoder`.
      initializer_fn: builder of the initialiser of each convolution's kernel, such as
        `DeltaOrthogonal` or Keras' `Orthogonal`.
      name: see `Encoder`.

    Raises:
      ValueError: when a convolution would have nothing left to look at.
    """
    convolutions = [
      tf.keras.layers.Conv2D(
        count,
        3,
        strides=1 if i else 2,
        activation='relu',
        kernel_initializer=initializer_fn(),
        name=f'conv{i + 1}',
      )
      for i, count in enumerate(filters)
    ]
    super().__init__(image_shape, convolutions, features, name)
