"""Codecs of latents: errors within the stated bounds, states, digests, refusals."""

import gin
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest
import tensorflow as tf

from seer_tf.replay import codecs

SHAPE = (2, 5)
FLOATS = st.floats(width=32, allow_nan=False)  # denormals and infinities included
USUAL = st.floats(-100, 100, width=32)
FINITE = st.floats(-(2.0**122), 2.0**122, width=32)


def arrays(elements):
  shapes = hnp.array_shapes(max_dims=1).map(lambda leading: leading + SHAPE)
  return hnp.arrays(np.float32, shapes, elements=elements)


def errors(codec, latents):
  """|decode(encode(x)) - x|, 0 where both are the same infinity."""
  stored = codec.encode(latents)
  assert stored.dtype == codec.stored_spec.dtype.as_numpy_dtype
  assert stored.shape == latents.shape
  decoded = codec.decode(tf.constant(stored)).numpy()
  assert decoded.dtype == np.float32 and not np.isnan(decoded).any()
  difference = np.zeros(latents.shape)
  np.subtract(decoded, latents, out=difference, where=decoded != latents, dtype=np.float64)
  return np.abs(difference)


def calibrated(latents, **kwargs):
  codec = codecs.Uint8(SHAPE, **kwargs)
  codec.calibrate(latents)
  return codec


@given(arrays(FLOATS))
def test_float32_changes_nothing(latents):
  assert not errors(codecs.Float32(SHAPE), latents).any()
  assert not codecs.Float32(SHAPE).error_bound(latents).any()


@given(arrays(FLOATS))
def test_float16_keeps_its_bound(latents):
  codec = codecs.Float16(SHAPE)
  assert (errors(codec, latents) <= codec.error_bound(latents)).all()


@settings(max_examples=300)
@given(arrays(FINITE | USUAL | st.just(0.0)), arrays(FLOATS | USUAL), st.floats(0, 2))
def test_uint8_keeps_its_bound_whatever_comes_later(calibration, later, margin):
  codec = calibrated(calibration, margin=margin)
  assert (errors(codec, calibration) <= codec.error_bound(calibration)).all()
  assert (errors(codec, later) <= codec.error_bound(later)).all()


@settings(max_examples=200)
@given(arrays(USUAL))
def test_uint8_bound_is_half_a_255th_of_the_range_for_what_calibrated_it(calibration):
  flat = calibration.reshape(-1, SHAPE[1]).astype(np.float64)
  spread = np.ptp(flat, axis=0)
  width = spread + 2 * 0.2 * np.maximum(spread, spread.mean())
  bound = calibrated(calibration).error_bound(calibration)
  assert (bound <= width / 510 + 1e-6 * (1 + np.abs(flat).max())).all()


@given(arrays(st.floats(0, 100, width=32) | st.just(0.0)))
def test_uint8_keeps_zeros_of_relu_latents_exactly(latents):
  codec = calibrated(latents)
  decoded = codec.decode(tf.constant(codec.encode(latents))).numpy()
  assert not decoded[latents == 0].any()


@pytest.mark.parametrize('value', [0.0, 3.0, -3.0, 1e-42, -1e37])
def test_uint8_of_constants(value):
  latents = np.full((3, *SHAPE), value, np.float32)
  codec = calibrated(latents)
  assert errors(codec, latents).max() <= 4e-7 * abs(value) + 3e-38


def test_uint8_sees_a_dead_dimension_come_alive():
  rng = np.random.default_rng(0)
  latents = rng.uniform(0, 1, (100, *SHAPE)).astype(np.float32)
  latents[..., 3] = 0
  codec = calibrated(latents)
  latents[..., 3] = 0.1  # less than 0.2 times the mean width of 0.8
  assert errors(codec, latents)[..., 3].max() < 1e-3


def test_uint8_clips_to_the_ranges_of_its_calibration():
  latents = np.linspace(-1, 1, 11, dtype=np.float32)[:, None, None] * np.ones(SHAPE, np.float32)
  codec = calibrated(latents, margin=0.5)
  later = np.full(SHAPE, np.inf, np.float32)
  later[0] = -7
  decoded = codec.decode(tf.constant(codec.encode(later))).numpy()
  np.testing.assert_allclose(decoded, [[-2] * 5, [2] * 5], rtol=1e-6)


def test_uint8_stores_dimensions_that_rarely_fire_side_by_side():
  rng = np.random.default_rng(0)
  latents = rng.uniform(0.1, 1, (100, *SHAPE)).astype(np.float32)
  latents[..., [0, 2]] = 0
  codec = calibrated(latents)
  assert (codec.encode(latents)[..., 3:] == 0).all()
  assert (codec.encode(latents)[..., :3] != 0).all()


@pytest.mark.parametrize('codec', [codecs.Float32, codecs.Float16, codecs.Uint8])
def test_decodes_single_crops_in_a_graph_like_whole_rows(codec):
  codec, rng = codec(SHAPE), np.random.default_rng(0)
  latents = rng.normal(size=(7, 3, *SHAPE)).astype(np.float32)
  codec.calibrate(latents)
  stored = codec.encode(latents)
  crops = tf.data.Dataset.from_tensors(stored[:, :, 1]).map(codec.decode)
  assert crops.element_spec == tf.TensorSpec([7, 3, SHAPE[1]], tf.float32)
  np.testing.assert_array_equal(next(iter(crops)), codec.decode(tf.constant(stored))[:, :, 1])


@given(arrays(USUAL), arrays(USUAL))
def test_a_restored_codec_is_the_same(calibration, latents):
  codec, restored = calibrated(calibration), codecs.Uint8(SHAPE)
  assert restored.needs_calibration
  restored.restore(codec.state)
  assert not restored.needs_calibration
  assert restored.digest == codec.digest
  np.testing.assert_array_equal(restored.encode(latents), codec.encode(latents))
  stored = codec.encode(latents)
  np.testing.assert_array_equal(restored.decode(stored), codec.decode(stored))


def test_digests_tell_classes_shapes_ranges_and_orders_apart():
  latents = np.random.default_rng(0).normal(size=(9, *SHAPE)).astype(np.float32)
  dead = np.abs(latents)
  dead[..., 1] = 0
  made = [
    *(codecs.Float32(SHAPE), codecs.Float16(SHAPE), codecs.Uint8(SHAPE), codecs.Float32((2, 6))),
    *(calibrated(latents), calibrated(latents, margin=0.3), calibrated(2 * latents)),
    *(calibrated(dead), calibrated(dead[..., ::-1])),
  ]
  assert len({codec.digest for codec in made}) == len(made)
  assert calibrated(latents).digest == calibrated(latents[::-1]).digest


def test_is_configured_by_gin():
  with gin.unlock_config():
    gin.parse_config('codecs.Uint8.margin = 0.5')
  try:
    latents = np.linspace(-1, 1, 11, dtype=np.float32)[:, None, None] * np.ones(SHAPE, np.float32)
    assert calibrated(latents).digest == calibrated(latents, margin=0.5).digest
  finally:
    gin.clear_config()


@pytest.mark.parametrize('codec', [codecs.Float32, codecs.Float16, codecs.Uint8])
@pytest.mark.parametrize(
  'latents, message',
  [
    (np.full(SHAPE, np.nan, np.float32), 'hold 10 NaN of 10 numbers'),
    (np.zeros(SHAPE, np.float64), r'given latents float64 \[2, 5\]; it takes float32'),
    (np.zeros((5, 2), np.float32), r'float32 \[5, 2\]; it takes float32 \[..., 2, 5\]'),
    (np.zeros(5, np.float32), r'float32 \[5\]; it takes'),
  ],
)
def test_refuses_latents_that_are_none(codec, latents, message):
  codec = codec(SHAPE)
  codec.calibrate(np.zeros(SHAPE, np.float32))
  with pytest.raises(ValueError, match=message) as error:
    codec.encode(latents)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('shape', [(5,), (0, 5), (2, 5, 1), (2, 5.5)])
def test_refuses_shapes_that_are_no_latents(shape):
  with pytest.raises(ValueError, match='Float16 encodes latents of shape'):
    codecs.Float16(shape)


@pytest.mark.parametrize(
  'latents, message',
  [
    (np.zeros((0, 5), np.float32), 'given 0 latents'),
    (np.full(SHAPE, np.inf, np.float32), 'none with a number beyond 1e'),
    (np.full(SHAPE, np.nan, np.float32), 'NaN'),
    (np.zeros((3, 4), np.float32), r'\[..., 5\]'),
  ],
)
def test_refuses_to_be_calibrated_by_them(latents, message):
  with pytest.raises(ValueError, match=message):
    codecs.Uint8(SHAPE).calibrate(latents)


def test_refuses_use_without_ranges_and_other_ranges_later():
  codec, latents = codecs.Uint8(SHAPE), np.zeros(SHAPE, np.float32)
  for use in (codec.encode, codec.error_bound, lambda x: codec.decode(x.astype(np.uint8))):
    with pytest.raises(ValueError, match='no ranges yet'):
      use(latents)
  codec.calibrate(latents)
  with pytest.raises(ValueError, match='calibrated already'):
    codec.calibrate(latents)


def test_refuses_a_state_that_is_not_its_own():
  state = calibrated(np.ones(SHAPE, np.float32)).state
  with pytest.raises(ValueError, match='a state of 0 bytes and was given one of 60'):
    codecs.Float32(SHAPE).restore(state)
  with pytest.raises(ValueError, match='a state of 72 bytes and was given one of 60'):
    codecs.Uint8((2, 6)).restore(state)
  with pytest.raises(ValueError, match='damaged'):
    codecs.Uint8(SHAPE).restore(bytes([255]) * 60)
  codecs.Float32(SHAPE).restore(b'')


@pytest.mark.parametrize('margin', [-0.1, float('nan'), float('inf')])
def test_refuses_a_margin_that_makes_no_sense(margin):
  with pytest.raises(ValueError, match='Uint8.margin'):
    codecs.Uint8(SHAPE, margin=margin)
