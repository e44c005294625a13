"""The audit finds faults that were put into what replay holds."""

import numpy as np
import pytest

from seer_tf.replay import tables
from tests.soak import audit, environment

LAYOUT = tables.Layout(history=0, block_length=4, lookahead=2, chunk_length=2, rows_per_step=2)
STREAMS = {5: (3, 20), 2**31 - 1: (255, 700)}  # stream -> identity, base
ROWS = 30


def window(stream, first, count=6):
  """An item of latents that are the stacks themselves."""
  identity, base = STREAMS[stream]
  index = np.arange(first, first + count)
  rows = environment.rows(identity, base, index)
  numbers = tables.first_number(stream) + index
  padding = index >= ROWS
  return tables.Row(
    observation=rows.stack[:, None],
    action=np.zeros([count, 1], np.float32),
    reward=np.where(rows.step_type == 2, 0, rows.reward).astype(np.float32),
    discount=rows.discount,
    step_type=np.where(padding, tables.PADDING, rows.step_type).astype(np.int32),
    number=np.where(padding, -1, numbers),
  )


@pytest.fixture
def held():
  windows = [window(stream, first) for stream in STREAMS for first in range(0, ROWS, 4)]
  none = audit.Held([], LAYOUT)
  return {'latents': audit.Held(windows, LAYOUT), 'pixels': none, 'drain': none}


ALL = np.concatenate([tables.first_number(stream) + np.arange(ROWS) for stream in STREAMS])


def found(held, may_evict=False):
  differ = lambda stacks, stored: (stacks != stored[:, 0]).any(axis=1)
  return audit.audit(held, ALL, differ, may_evict)


def test_nothing_is_wrong(held):
  np.testing.assert_array_equal(np.sort(held['latents'].numbers), ALL)
  assert found(held) == audit.Faults([], [], [])


def test_lost_rows_are_found(held):
  del held['latents'].windows[1]
  faults = found(held)
  assert faults.lost == [f'row 5:{i} is nowhere' for i in range(4, 8)]
  assert not faults.doubled + faults.stale
  assert found(held, may_evict=True).lost == faults.lost


def test_only_the_oldest_may_be_evicted(held):
  del held['latents'].windows[0]
  assert len(found(held).lost) == 4
  assert found(held, may_evict=True) == audit.Faults([], [], [])


def test_a_stream_that_is_gone_is_lost(held):
  del held['latents'].windows[:8]
  assert len(found(held).lost) == ROWS
  assert len(found(held, may_evict=True).lost) == 0


def test_rows_that_are_still_pixels_are_lost(held):
  held['drain'].windows.append(held['latents'].windows.pop(1))
  assert found(held).lost[0] == 'row 5:4 is still pixels'


def test_doubled_rows_are_found(held):
  held['latents'].windows.append(held['latents'].windows[2])
  held['pixels'].windows.append(held['latents'].windows[3])
  faults = found(held)
  assert faults.doubled == [
    *(f'row 5:{i} is 2 times in latents' for i in range(8, 12)),
    *(f'row 5:{i} is in latents and in pixels' for i in range(12, 16)),
  ]
  assert not faults.lost + faults.stale


def test_stale_latents_are_found(held):
  held['latents'].windows[2].observation[1] += 1
  assert found(held).stale == ['row 5:9 has other latents']


def test_rows_of_another_agent_step_are_found(held):
  held['latents'].windows[2].reward[0] += 1
  held['latents'].windows[3].discount[0] = 0.5
  held['latents'].windows[4].step_type[1] = 0
  rows = found(held).stale
  assert rows == [f'row 5:{i} is another agent step' for i in (8, 12, 17)]


def test_an_item_across_streams_is_found(held):
  mixed = window(5, 8)
  other = window(2**31 - 1, 0)
  for column, replacement in zip(mixed, other):
    column[4:] = replacement[4:]
  held['latents'].windows[2] = mixed
  [line] = found(held).stale
  assert line.startswith('an item has rows 5:8, 5:9, 5:10, 5:11, 2147483647:4')
