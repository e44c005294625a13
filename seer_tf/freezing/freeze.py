"""The switch: from an encoder that learns to one that only encodes."""

import enum
import hashlib

from seer_tf.networks import variables


class Phase(enum.IntEnum):
  """Where a run stands. It only ever grows, is saved with the weights and published with them."""

  PIXELS = 0
  DRAINING = 1
  LATENTS = 2


def fingerprint(network) -> str:
  """Hex digest of a network's variables: their names, shapes, dtypes and bits.

  Two networks have the same fingerprint exactly if they compute the same latents, so it tells
  which weights a stored latent belongs to.
  """
  digest = hashlib.sha256()
  for name, variable in sorted(variables.by_name(network).items()):
    value = variable.numpy()
    digest.update(f'{name} {value.shape} {value.dtype}'.encode())
    digest.update(value.tobytes())
  return digest.hexdigest()


def of_latents(encoder_fingerprint: str, codec_digest: str) -> str:
  """Hex digest that stored latents carry: of the frozen encoder and of how they are stored."""
  return hashlib.sha256(f'{encoder_fingerprint} {codec_digest}'.encode()).hexdigest()


def check_latents(published: str, lower, codec_digest: str):
  """Refuses latents that this process cannot write or read: of another encoder, codec or ranges.

  Args:
    published: fingerprint of the latents in replay, `of_latents`.
    lower: this process's lower encoder.
    codec_digest: of its codec.

  Raises:
    ValueError: if they are not those of `lower` and the codec.
  """
  mine = of_latents(fingerprint(lower), codec_digest)
  if published != mine:
    raise ValueError(
      f'Latents in replay have fingerprint {published[:12] or "(none)"}, this process encodes and '
      f'decodes those of {mine[:12]}: another encoder, codec or ranges. Does another run use the '
      'same replay server? Give each its own.'
    )


def freeze(lower, target_lower) -> str:
  """Stops both copies of a lower encoder from learning, and makes them one.

  The target takes the online weights (by name), so that one stored latent serves both from here
  on. A train function traced before this call still trains: trace a new one.

  Args:
    lower: the online lower encoder.
    target_lower: the lower encoder of the target network.

  Returns:
    The fingerprint of the frozen weights.
  """
  variables.copy(lower, target_lower)
  lower.trainable = False
  target_lower.trainable = False
  return fingerprint(lower)
