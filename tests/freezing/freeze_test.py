"""Tests of the switch below the cut."""

import numpy as np
import pytest

from seer_tf.freezing import freeze
from seer_tf.networks import encoders, variables
from seer_tf.replay import codecs


def _encoder():
  return encoders.ControlEncoder((15, 15, 3), filters=(4, 4), features=3)


def test_freeze_makes_target_the_online_encoder_and_stops_both():
  lower, target = _encoder(), _encoder()
  expected = {name: v.numpy() for name, v in variables.by_name(lower).items()}
  fingerprint = freeze.freeze(lower, target)
  for encoder in (lower, target):
    assert not encoder.trainable_variables
    assert freeze.fingerprint(encoder) == fingerprint
    for name, variable in variables.by_name(encoder).items():
      np.testing.assert_array_equal(variable.numpy(), expected[name])


def test_fingerprint_tells_any_bit_and_survives_reordering():
  encoder = _encoder()
  before = freeze.fingerprint(encoder)
  encoder.convolutions[0].trainable = False
  assert freeze.fingerprint(encoder) == before
  bias = encoder.convolutions[1].bias
  bias[0].assign(np.nextafter(bias[0].numpy(), np.float32(1)))
  assert freeze.fingerprint(encoder) != before


def test_latents_of_another_encoder_codec_or_range_are_refused():
  encoder, codec = _encoder(), codecs.Uint8((2, 3))
  codec.calibrate(np.linspace(0, 1, 30, dtype=np.float32).reshape(10, 3))
  published = freeze.of_latents(freeze.fingerprint(encoder), codec.digest)
  freeze.check_latents(published, encoder, codec.digest)
  ranges = codecs.Uint8((2, 3))
  ranges.calibrate(np.linspace(0, 2, 30, dtype=np.float32).reshape(10, 3))
  others = [
    (published, _encoder(), codec),
    (published, encoder, codecs.Float16((2, 3))),
    (published, encoder, ranges),
    ('', encoder, codec),
  ]
  for fingerprint, lower, other in others:
    with pytest.raises(ValueError, match='another encoder, codec or ranges') as error:
      freeze.check_latents(fingerprint, lower, other.digest)
    assert '\n' not in str(error.value)


def test_phases_grow():
  assert freeze.Phase.PIXELS < freeze.Phase.DRAINING < freeze.Phase.LATENTS
