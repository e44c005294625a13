"""Tests of the switch below the cut."""

import numpy as np

from seer_tf.freezing import freeze
from seer_tf.networks import encoders, variables


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


def test_phases_grow():
  assert freeze.Phase.PIXELS < freeze.Phase.DRAINING < freeze.Phase.LATENTS
