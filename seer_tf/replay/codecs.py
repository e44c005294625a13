"""How latents are written into replay: fewer bytes for an error that is known beforehand.

A codec is made from the shape of a row's latents, [K, D] of K stored crops; that alone gives the
shape and dtype of what is stored, so that tables can be made before there is an encoder:

    codec = Uint8((4, 100))
    codec.stored_spec                       # uint8 [4, 100]
    codec.calibrate(latents)                # at the freeze, before the first row is encoded
    stored = codec.encode(latents)          # NumPy, in the writer:  [..., 4, 100]
    latents = codec.decode(stored)          # TensorFlow, in the dataset's graph: [..., 100]
    codec.digest                            # belongs into the fingerprint of the frozen encoder

Stored values keep the place of their crop, so that a reader draws rows and crops first and decodes
only those. What was encoded can be decoded by a codec of the same class, shape and `state` alone.

Why there is no codec with a bit mask for the zeros of ReLU latents: zeros sit in few dimensions
(features that hardly ever fire), and once these stand side by side, as `Uint8` orders them, the
server's own compression removes their zeros as well as a mask does. See studies/README.md.
"""

import abc
import hashlib
import math
from typing import Tuple

import gin
import numpy as np
import tensorflow as tf

_FLOAT32, _FLOAT16 = np.finfo(np.float32), np.finfo(np.float16)
# Latents beyond this come from an encoder that has diverged; it keeps ranges from overflowing.
_LARGEST = 1e37
_CODES = 255  # intervals between the codes of a uint8


class Codec(abc.ABC):
  """Latents float32 [..., K, D] to what is stored and back.

  Not guaranteed: safety against rounding twice. Encoding what was decoded may give other codes.

  Attributes:
    latent_shape: (K, D).
    stored_spec: `tf.TensorSpec` of one row's stored observation, of shape [K, D].
  """

  _stored_dtype = tf.float32

  def __init__(self, latent_shape: Tuple[int, int]):
    """Makes a codec; one that needs no calibration is ready for use.

    Args:
      latent_shape: (stored crops K, latent size D).

    Raises:
      ValueError: if that is no such shape.
    """
    sizes = tuple(latent_shape)
    if len(sizes) != 2 or not all(
      isinstance(size, (int, np.integer)) and size >= 1 for size in sizes
    ):
      raise ValueError(
        f'{type(self).__name__} encodes latents of shape (stored crops, latent size), both whole '
        f'numbers of at least 1; it was given {latent_shape}.'
      )
    self.latent_shape = tuple(int(size) for size in sizes)
    self.stored_spec = tf.TensorSpec(self.latent_shape, self._stored_dtype, 'observation')

  @property
  def needs_calibration(self) -> bool:
    """Whether `calibrate` or `restore` must still be called before the first row."""
    return False

  def calibrate(self, latents: np.ndarray):
    """Fits the codec to the latents that replay is about to hold; here there is nothing to fit.

    Args:
      latents: float32 [..., D], at least one.

    Raises:
      ValueError: if they cannot be a frozen encoder's latents, or the codec is calibrated already:
        what it has encoded would no longer mean what it did.
    """
    self._check(latents, self.latent_shape[1:])

  @property
  def state(self) -> bytes:
    """What calibration found, to be saved and published with the frozen weights."""
    return b''

  def restore(self, state: bytes):
    """Makes this codec the one whose `state` it was.

    Raises:
      ValueError: if it belongs to a codec of another class or shape.
    """
    if state:
      raise ValueError(self._foreign(state, 0))

  @property
  def digest(self) -> str:
    """Hex digest; equal exactly if what one codec encodes the other decodes."""
    name = f'{type(self).__name__} {self.latent_shape} {self.stored_spec.dtype.name} '
    return hashlib.sha256(name.encode() + self.state).hexdigest()

  def encode(self, latents: np.ndarray) -> np.ndarray:
    """What is stored of latents.

    Args:
      latents: float32 [..., K, D].

    Returns:
      [..., K, D] of the dtype stored.

    Raises:
      ValueError: if they have another dtype or shape or hold NaN, which means a broken encoder, or
        if the codec has not been calibrated.
    """
    self._check(latents, self.latent_shape)
    return self._encode(latents)

  @abc.abstractmethod
  def decode(self, stored: tf.Tensor) -> tf.Tensor:
    """Latents float32 [..., D] of what is stored of them, [..., D] with any leading dimensions."""

  @abc.abstractmethod
  def error_bound(self, latents: np.ndarray) -> np.ndarray:
    """Largest |decode(encode(x)) - x| there can be for each number x, float64 [..., K, D].

    Where x is infinite and comes back infinite the bound is 0, where it comes back finite infinity.
    """

  @abc.abstractmethod
  def _encode(self, latents):
    """`encode` of latents that have been checked."""

  def _check(self, latents, shape):
    if latents.dtype != np.float32 or latents.shape[-len(shape) :] != shape:
      raise ValueError(
        f'{type(self).__name__} was given latents {latents.dtype} {list(latents.shape)}; it takes '
        f'float32 [..., {", ".join(map(str, shape))}].'
      )
    if np.isnan(latents).any():
      raise ValueError(
        f'Latents hold {np.isnan(latents).sum()} NaN of {latents.size} numbers: the encoder has '
        'diverged; go back to a checkpoint from before and lower its learning rate.'
      )

  def _foreign(self, state, expected):
    return (
      f'{type(self).__name__} of latents {list(self.latent_shape)} has a state of {expected} '
      f'bytes and was given one of {len(state)}: that of another codec or encoder.'
    )


@gin.configurable
class Float32(Codec):
  """Latents as they are. Error bound: 0."""

  def decode(self, stored):
    """See `Codec.decode`."""
    return stored

  def error_bound(self, latents):
    """See `Codec.error_bound`."""
    return np.zeros(latents.shape)

  def _encode(self, latents):
    return latents


@gin.configurable
class Float16(Codec):
  """Half precision. Error bound: max(|x| / 2^11, 2^-25); beyond +-65,504, the excess.

  What lies beyond the largest half, infinities included, becomes that.
  """

  _stored_dtype = tf.float16

  def decode(self, stored):
    """See `Codec.decode`."""
    return tf.cast(stored, tf.float32)

  def error_bound(self, latents):
    """See `Codec.error_bound`."""
    size = np.abs(latents.astype(np.float64))
    excess = size - np.minimum(size, float(_FLOAT16.max))
    return np.where(excess > 0, excess, np.maximum(size * 2.0**-11, 2.0**-25))

  def _encode(self, latents):
    return np.clip(latents, _FLOAT16.min, _FLOAT16.max).astype(np.float16)


@gin.configurable
class Uint8(Codec):
  """A byte a number: 256 values, evenly spaced over a range of each dimension.

  Ranges. Over the latents that calibrate it, dimension d reaches from min_d to max_d. Its range
  adds on both sides `margin` times the larger of max_d - min_d and that difference's mean over the
  dimensions, so that a dimension that has not moved yet can be told from zero once it does. If no
  latent at all is negative (ReLU) no range goes below 0, and the zeros there were are exact. What
  later falls outside of a range becomes its nearest end, infinities too.

  Error bound: half a 255th of the range, the distance to the range if outside, and rounding of a
  few units in float32's last place.

  Order. Dimensions are stored by how often they are 0, in quarters; equal ones keep their order.
  ReLU latents have many that hardly ever fire: side by side their zeros vanish when the server
  compresses.
  """

  _stored_dtype = tf.uint8

  def __init__(self, latent_shape: Tuple[int, int], margin: float = 0.2):
    """See `Codec`.

    Args:
      latent_shape: (stored crops K, latent size D).
      margin: at least 0; share of its width that a range is longer at each end.

    Raises:
      ValueError: if an argument makes no sense.
    """
    super().__init__(latent_shape)
    if not (margin >= 0 and math.isfinite(margin)):
      raise ValueError(f'Uint8.margin is {margin}; give a finite number of at least 0.')
    self._margin = margin
    self._low = self._width = self._order = None  # [D] each; width of one interval of codes

  @property
  def needs_calibration(self):
    """See `Codec.needs_calibration`."""
    return self._low is None

  def calibrate(self, latents):
    """See `Codec.calibrate`."""
    super().calibrate(latents)
    if not self.needs_calibration:
      raise ValueError('Uint8 is calibrated already; make another codec for another encoder.')
    latents = latents.reshape(-1, self.latent_shape[1])
    if not len(latents) or np.abs(latents).max() > _LARGEST:
      raise ValueError(
        f'Uint8 was given {len(latents)} latents to calibrate it; it needs at least one, and none '
        f'with a number beyond {_LARGEST:g} (an encoder that has diverged).'
      )
    low, high = latents.min(axis=0).astype(np.float64), latents.max(axis=0).astype(np.float64)
    spread = high - low
    margin = self._margin * np.maximum(spread, spread.mean())
    low = np.maximum(low - margin, 0.0) if low.min() >= 0 else low - margin
    width = (high + margin - low) / _CODES
    # A width that TensorFlow takes for zero is made zero here too.
    width = np.where(width < _FLOAT32.tiny, 0.0, width)
    self._set(low.astype(np.float32), width.astype(np.float32), np.arange(len(low), dtype=np.int32))
    zeros = (self._encode(latents) == 0).mean(axis=0)
    self._order = np.argsort(np.ceil(4 * zeros), kind='stable').astype(np.int32)

  @property
  def state(self):
    """See `Codec.state`."""
    if self.needs_calibration:
      return b''
    return self._low.tobytes() + self._width.tobytes() + self._order.tobytes()

  def restore(self, state):
    """See `Codec.restore`."""
    size = self.latent_shape[1]
    if len(state) != 12 * size:
      raise ValueError(self._foreign(state, 12 * size))
    low, width = np.frombuffer(state, np.float32, 2 * size).reshape(2, size)
    order = np.frombuffer(state, np.int32, size, offset=8 * size)
    if not (np.isfinite([low, width]).all() and (np.sort(order) == np.arange(size)).all()):
      raise ValueError('The state that Uint8 was given has no finite ranges: it is damaged.')
    self._set(low, width, order)

  def decode(self, stored):
    """See `Codec.decode`."""
    self._check_calibrated()
    latents = tf.cast(stored, tf.float32) * self._width[self._order] + self._low[self._order]
    return tf.gather(latents, np.argsort(self._order), axis=-1)

  def error_bound(self, latents):
    """See `Codec.error_bound`."""
    self._check_calibrated()
    low, high, width = (a.astype(np.float64) for a in (self._low, self._high, self._width))
    rounding = 4 * _FLOAT32.eps * np.maximum(np.abs(low), np.abs(high)) + 2 * _FLOAT32.tiny
    outside = np.maximum(np.maximum(low - latents, latents - high), 0)
    return outside + width / 2 + rounding

  def _encode(self, latents):
    self._check_calibrated()
    latents = np.clip(latents, self._low, self._high)[..., self._order]
    codes = np.rint((latents - self._low[self._order]) * self._per_width[self._order])
    return np.minimum(codes, _CODES).astype(np.uint8)

  def _set(self, low, width, order):
    self._low, self._width, self._order = low, width, order
    self._high = low + np.float32(_CODES) * width
    self._per_width = np.divide(1, width, out=np.zeros_like(width), where=width > 0)

  def _check_calibrated(self):
    if self.needs_calibration:
      raise ValueError('Uint8 has no ranges yet; call calibrate, or restore those of the freeze.')
