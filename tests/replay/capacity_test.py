"""Budgets and growth rules, as arithmetic."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st
import pytest

from seer_tf.replay import capacity, server, tables

CONTROL = tables.ReplayConfig(
  frame_shape=(100, 100, 3),
  frame_stack=3,
  action_shape=(1,),
  action_dtype='float32',
  latent_size=100,
  stored_crops=4,
  n_step=1,
  pixels_capacity=1000,
  latents_capacity=80_000,
)
ATARI = dataclasses.replace(
  CONTROL, frame_shape=(84, 84, 1), frame_stack=4, latent_size=576, stored_crops=1
)
CANONICAL = dataclasses.replace(ATARI, latent_size=3136)


@pytest.mark.parametrize(
  'size, count',
  [
    ('2GB', 2 * 10**9),
    ('500 mb', 5 * 10**8),
    ('1.5GiB', 3 * 2**29),
    (' 64KiB ', 65536),
    ('7', 7),
    ('12B', 12),
    (10**6, 10**6),
    (2e9, 2 * 10**9),
    (1e17, 10**17),
  ],
)
def test_sizes(size, count):
  assert capacity.parse_bytes(size) == count
  assert capacity.Capacity(size).budget_bytes == count


@given(st.integers(1, 2**60), st.sampled_from(['', 'B', 'KB', 'MiB', 'gib']))
def test_every_whole_number_of_units_is_a_size(count, unit):
  factor = {'': 1, 'B': 1, 'KB': 1000, 'MiB': 2**20, 'gib': 2**30}[unit]
  assert capacity.parse_bytes(f'{count}{unit}') == pytest.approx(count * factor, rel=1e-12)


@pytest.mark.parametrize(
  'size',
  ['', 'GB', '2 apples', '2GBs', '-1GB', 0, '0MB', '1..5GB', '.', 'nan', float('inf'), True, [2]],
)
def test_what_is_no_size(size):
  with pytest.raises(ValueError, match='is no size: give bytes') as error:
    capacity.parse_bytes(size)
  assert repr(size) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('config, factor', [(CONTROL, 18.75), (ATARI, 3.0625), (CANONICAL, 0.5625)])
def test_the_published_growth(config, factor):
  assert capacity.paper_growth(config, 9999.0, 1.0) == factor


def test_the_other_growth_rules():
  assert capacity.measured_growth(CONTROL, 12_000.0, 500.0) == 24
  assert capacity.no_growth(CONTROL, 12_000.0, 500.0) == 1


def test_a_budget_too_small_names_one_that_would_do():
  with pytest.raises(ValueError, match='is 3900000, 3,900,000 bytes') as error:
    capacity.Capacity(3_900_000).check(CONTROL, batch_size=128)
  least = int(str(error.value).split('may take ')[1].split(' bytes')[0].replace(',', ''))
  capacity.Capacity(least).check(CONTROL, batch_size=128)
  with pytest.raises(ValueError):
    capacity.Capacity(least - 1).check(CONTROL, batch_size=128)
  # A window of 3 frames and its step behind, and 128 rows.
  assert least == (4 + 128) * (30_000 + 4 + 4 + 4 + 4 + 8)


def test_a_budget_does_not_go_with_priorities():
  prioritised = dataclasses.replace(CONTROL, priority_exponent=0.5, block_length=1)
  with pytest.raises(ValueError, match='bind replay_budget = None'):
    capacity.Capacity('2GB').check(prioritised, batch_size=8)
  capacity.Capacity().check(prioritised, batch_size=8)


def test_no_budget_is_never_too_small():
  capacity.Capacity().check(CONTROL, batch_size=10**6)


def test_a_loss_is_told_before_the_first_step():
  float32 = capacity.row_bytes(CANONICAL.latents_row)
  pixels = capacity.row_bytes(CANONICAL.pixels_row)
  [line] = capacity.without_gain(pixels, float32, measured=False)
  assert '12,568 bytes a step, pixels 7,080' in line and 'codec' in line and '\n' not in line
  bytes_ = dataclasses.replace(CANONICAL, latents_dtype='uint8')
  assert not capacity.without_gain(pixels, capacity.row_bytes(bytes_.latents_row), measured=False)
  assert not capacity.without_gain(float('nan'), 1.0, measured=True)


def report(capacity, machine_bytes=10**9):
  """Of a server that holds nothing yet."""
  memory = dict(resident_bytes=1, empty_bytes=1, used_bytes=0, budget_bytes=0.0)
  rows = dict(phase=0, rows=0, pixels_first_row=0)
  start = dict(incarnation=1, checkpoint_order=0, checkpoints=0)
  return server.Report(
    **memory, **rows, **start, machine_bytes=machine_bytes, capacity=str(capacity)
  )


def test_a_budget_above_the_machines_memory_is_told_with_both():
  budget = capacity.Capacity('2GB')
  [line] = budget.warnings(CONTROL, report(budget))
  assert '2,000,000,000 bytes' in line and '1,000,000,000 bytes of memory' in line
  assert not budget.warnings(CONTROL, report(budget, 2 * 10**9))


def test_a_server_with_another_budget_or_growth_is_refused():
  mine = capacity.Capacity('2GB')
  for other in (capacity.Capacity(), capacity.Capacity('2GB', capacity.no_growth)):
    with pytest.raises(server.ReplayServerError, match='was started with replay_budget') as error:
      mine.warnings(CONTROL, report(other))
    assert '2,000,000,000 bytes, growth measured_growth' in str(error.value)
