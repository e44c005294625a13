"""Latents as replay stores them: the agent's frozen encoder, and the codec behind it."""

import math

import numpy as np

from seer_tf.freezing import freeze
from seer_tf.replay import codecs, tables
from seer_tf.training import experiment as experiment_lib
from seer_tf.training import link as link_lib


class Encoding:
  """Encodes rows of pixels for the conversion, once its codec is fitted to latents."""

  def __init__(
    self,
    agent,
    codec: codecs.Codec,
    config: tables.ReplayConfig,
    experiment: experiment_lib.Experiment,
  ):
    """Encodes nothing yet.

    Args:
      agent: has the encoder.
      codec: of what it puts out.
      config: what replay holds.
      experiment: sizes of batches.
    """
    self._agent = agent
    self._codec = codec
    self._crops = config.stored_crops
    self._experiment = experiment

  def __call__(self, pixels) -> np.ndarray:
    """What replay stores [B, K, D] of observations uint8 [B, H, W, C]."""
    return self._codec.encode(self._latents(pixels))

  def calibrate(self, link: link_lib.Link) -> int:
    """Fits the codec to latents of sampled observations; returns the observations encoded."""
    if not self._codec.needs_calibration:
      return 0
    batch_size = self._experiment.batch_size
    batches = math.ceil(self._experiment.calibration_latents / (batch_size * self._crops))
    sampled = link.dataset('pixels').take(batches)
    latents = [self._latents(batch.time_step.observation) for batch, _ in sampled]
    self._codec.calibrate(np.concatenate(latents))
    return batches * batch_size

  def check(self, fingerprint: str):
    """Refuses latents of another encoder, codec or ranges than this one's.

    Args:
      fingerprint: of those latents.

    Raises:
      ValueError: if it is not that of this encoding.
    """
    freeze.check_latents(fingerprint, self._agent.lower, self._codec.digest)

  def _latents(self, pixels) -> np.ndarray:
    return self._agent.encode_crops(pixels, self._crops).numpy()
