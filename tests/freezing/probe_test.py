"""Tests of the probe: which observations, which part of an output."""

import numpy as np
import pytest
from tf_agents.trajectories import trajectory

from seer_tf.freezing import probe


def step(value, boundary=False):
  build = trajectory.boundary if boundary else trajectory.mid
  observation = np.full((2, 2, 3), value, np.uint8)
  return build(observation, np.float32(0), (), np.float32(0), np.float32(1))


def values(pixels):
  """A layer that puts out what it sees, and one of a single feature."""
  return {'all': pixels.astype(np.float32), 'one': pixels[:, 0, 0, :1] * 2.0}


def collected(size, every, count=100):
  one = probe.Probe(values, size, every, positions=2, features=3)
  for i in range(count):
    one(step(i))
    one(step(255, boundary=True))
  return one


def test_keeps_every_so_many_observations_and_no_boundaries():
  assert collected(4, 5).measure()['one'][:, 0].tolist() == [0, 10, 20, 30]


def test_is_full_when_it_has_all():
  assert not collected(4, 5, count=15).is_full
  assert collected(4, 5, count=16).is_full


def test_measures_in_batches_as_at_once():
  measured = collected(100, 1).measure()
  assert measured['one'][:, 0].tolist() == list(range(0, 200, 2))
  np.testing.assert_array_equal(measured['all'], np.repeat(np.arange(100), 4)[:, None] * [[1] * 3])


def test_goes_on_from_its_state():
  ahead, resumed = collected(4, 5, count=8), probe.Probe(values, 4, 5, 2, 3)
  resumed.restore(ahead.state())
  for one in (ahead, resumed):
    for i in range(8, 40):
      one(step(i))
  np.testing.assert_array_equal(ahead.measure()['one'], resumed.measure()['one'])
  assert resumed.measure()['one'][:, 0].tolist() == [0, 10, 20, 30]


@pytest.mark.parametrize(
  'shape, positions, features, expected',
  [((5, 7), 3, 64, (5, 7)), ((5, 70), 3, 64, (5, 64)), ((5, 9, 8, 70), 3, 64, (45, 64)),
   ((5, 1, 2, 4), 3, 64, (10, 4))],
)  # fmt: skip
def test_rows_are_bounded(shape, positions, features, expected):
  assert probe.rows(np.zeros(shape), positions, features).shape == expected


def test_rows_are_positions_with_their_channels():
  output = np.arange(2 * 5 * 5 * 4).reshape(2, 5, 5, 4)
  places = [output[b, i, j] for b in (0, 1) for i in (0, 2, 4) for j in (0, 2, 4)]
  np.testing.assert_array_equal(probe.rows(output, 3, 4), places)
  np.testing.assert_array_equal(probe.rows(output, 3, 2), [place[[0, 3]] for place in places])
