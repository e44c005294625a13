"""The keeper against a server in this process, whose memory is counted in rows."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import reverb
from scipy import stats

from seer_tf.replay import capacity as capacity_lib
from seer_tf.replay import datasets, drain, keeper, messages, tables, writers

ROW = 1000  # bytes of a row, as this test counts
CONFIG = tables.ReplayConfig(
  frame_shape=(4, 4, 1),
  frame_stack=2,
  action_shape=(),
  action_dtype='int64',
  latent_size=3,
  stored_crops=2,
  n_step=2,
  pixels_capacity=10_000,
  latents_capacity=10_000,
  block_length=8,
  pixels_block_length=2,
  pixels_chunk_length=2,
)


class Kept:
  """A server, its keeper and the writers of one stream."""

  def __init__(self, capacity, config=CONFIG, latent_bytes=ROW):
    self.config = config
    self.server = reverb.Server(tables.make_tables(config))
    self.client = self.server.localhost_client()
    self.remote = reverb.Client(f'localhost:{self.server.port}')
    self.latent_bytes = latent_bytes
    self.row_bytes = ROW
    self.buffers = 0
    self.written = 0
    self.keeper = keeper.Keeper(self.client, config, capacity, self.used_bytes)
    self.pixels = self.writer(config.pixels_layouts, config.pixels_row)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.server.stop()

  def writer(self, layouts, row):
    return writers.RowWriter(self.remote, layouts, tables.padding_row(row))

  def items(self, table):
    return self.client.server_info()[table].current_size

  def used_bytes(self):
    rows = self.items('pixels') * self.config.pixels_block_length
    if not rows:
      rows = self.items('drain') * self.config.drain_layout.block_length
    latents = self.items('latents') * self.config.block_length
    return rows * self.row_bytes + latents * self.latent_bytes + self.buffers

  def write(self, writer, row, count):
    """Rows of one endless episode, with the number of each as its action."""
    row = tables.padding_row(row)._replace(step_type=np.int32(1), number=None)
    for _ in range(count):
      writer.append(row._replace(action=np.int64(self.written)))
      self.written += 1

  def held(self, table):
    """Numbers of the own rows that a table really holds."""
    layout, row = {
      'pixels': (self.config.pixels_layout, self.config.pixels_row),
      'latents': (self.config.latents_layout, self.config.latents_row),
    }[table]
    wanted, seen = self.items(table), {}
    while len(seen) < wanted:
      for sample in self.client.sample(table, 50, emit_timesteps=False):
        rest = tables.StoredRow(*sample.data).rest
        seen[sample.info.key] = tables.own_numbers(rest, layout, row)
    return sorted(int(number) for numbers in seen.values() for number in numbers if number >= 0)

  def publish(self, phase):
    messages.publish(self.client, messages.Variables(phase=phase))

  def freeze(self):
    """Ends phase pixels, converts, and returns the writer that goes on."""
    self.pixels.close()
    self.publish(1)
    report = self.keeper.keep()
    assert report['phase'] == 1
    latents = self.writer(self.config.latents_layouts, self.config.latents_row)
    held = range(report['pixels_first_row'], self.pixels.rows)
    assert list(held) == self.held('pixels')
    shape = self.config.latents_row.observation.shape
    encode = lambda pixels: np.zeros((len(pixels), *shape), np.float32)
    drain.drain(self.remote, self.config, held, encode, latents)
    converted, before = self.items('latents'), self.buffers
    self.buffers += keeper.BUFFER_BYTES // 2  # in transit
    self.keeper.keep()
    assert self.items('latents') == converted
    self.buffers = before
    self.publish(2)
    return latents


@settings(max_examples=6)
@given(
  budget_rows=st.integers(20, 120), writes=st.lists(st.integers(1, 60), min_size=1, max_size=8)
)
def test_evicts_the_oldest_and_only_when_full(budget_rows, writes):
  """Against a list from which blocks are dropped in front."""
  with Kept(capacity_lib.Capacity(budget_rows * ROW)) as kept:
    block, written, first = CONFIG.pixels_block_length, 0, 0
    for count in writes:
      kept.write(kept.pixels, CONFIG.pixels_row, count)
      kept.pixels.flush()
      written += count
      report = kept.keeper.keep()
      complete = max(0, (written - CONFIG.n_step) // block * block)
      while complete - first > budget_rows:
        first += block
      assert kept.held('pixels') == list(range(first, complete))
      assert (report['pixels_first_row'], report['rows']) == (first, complete - first)
      # Rows for the drain stay with those that are held.
      drained = CONFIG.drain_layout.block_length
      assert kept.items('drain') == max(0, written // drained - first // drained)


@pytest.mark.parametrize(
  'growth, latent_bytes, factor',
  [
    (capacity_lib.no_growth, 100, 1),
    (capacity_lib.measured_growth, 100, 10),
    (capacity_lib.measured_growth, 2000, 0.5),
    (capacity_lib.paper_growth, 100, 16 / (4 * 2 * 3)),
  ],
)
@pytest.mark.parametrize('budget', [True, False])
def test_latents_grow_by_the_rule(growth, latent_bytes, factor, budget):
  """The same rows by a budget and by a capacity in rows."""
  rows, block = 96, CONFIG.block_length
  capacity = capacity_lib.Capacity(rows * ROW if budget else None, growth)
  config = dataclasses.replace(CONFIG, pixels_capacity=10_000 if budget else rows)
  with Kept(capacity, config, latent_bytes) as kept:
    kept.write(kept.pixels, config.pixels_row, 150)
    kept.pixels.flush()
    kept.keeper.keep()
    latents = kept.freeze()
    begin = kept.keeper.keep()['pixels_first_row']
    for _ in range(12):
      kept.write(latents, config.latents_row, 100)
      latents.flush()
      report = kept.keeper.keep()
      held = kept.held('latents')
      assert held == list(range(held[0], held[-1] + 1))
      # Full to the block, unless there is nothing yet to fill it with.
      full = len(held) + block > rows * factor
      assert len(held) <= rows * factor and (full or held[0] == begin)
      assert report['rows'] == len(held)
    assert len(held) + block > rows * factor
    assert report['budget_bytes'] == pytest.approx(rows * factor * latent_bytes)


@pytest.mark.parametrize('table', ['pixels', 'latents'])
def test_sampling_stays_uniform(table):
  """Over steps, with growth, eviction and a last block that is half full."""
  with Kept(capacity_lib.Capacity(96 * ROW), latent_bytes=400) as kept:
    kept.write(kept.pixels, CONFIG.pixels_row, 151)
    kept.pixels.flush()
    kept.keeper.keep()
    if table == 'pixels':
      kept.pixels.close()
    else:
      latents = kept.freeze()
      for _ in range(5):
        kept.write(latents, CONFIG.latents_row, 60)
        latents.flush()
        kept.keeper.keep()
      latents.close()
    kept.keeper.keep()
    held = kept.held(table)
    assert held[0] > 0 and held[-1] == kept.written - 1 and kept.written % 2
    rounds, batch_size = 30, 500
    counts = np.zeros(kept.written, int)
    dataset = datasets.make_dataset(
      kept.remote.server_address, table, CONFIG, batch_size, gamma=0.9, timeout_seconds=20
    )
    for transition, _ in dataset.take(rounds):
      np.add.at(counts, transition.action_step.action.numpy(), 1)
  starts = held[:-1]  # nothing follows the last one
  assert counts.sum() == counts[starts].sum() == rounds * batch_size
  assert stats.chisquare(counts[starts]).pvalue > 1e-5


@pytest.mark.parametrize(
  'later_row_bytes, later_buffers, least, most',
  [
    (1_000_000, 0, 96, 96),
    (2_000_000, 0, 48, 48 + keeper.BUFFER_BYTES // 2_000_000),  # frames compress less well
    (500_000, 0, 190, 192),  # better
    (1_000_000, keeper.BUFFER_BYTES // 2, 96, 96),  # connections that come later are no rows
  ],
)
def test_is_corrected_while_it_runs(later_row_bytes, later_buffers, least, most):
  with Kept(capacity_lib.Capacity('96MB')) as kept:
    kept.row_bytes = 1_000_000
    for _ in range(12):
      kept.write(kept.pixels, CONFIG.pixels_row, 30)
      kept.pixels.flush()
      kept.keeper.keep()
      if kept.written == 120:
        assert len(kept.held('pixels')) == 96
        kept.row_bytes, kept.buffers = later_row_bytes, later_buffers
    for _ in range(20):
      kept.keeper.keep()
    assert least <= len(kept.held('pixels')) <= most


def test_nothing_is_deleted_from_prioritised_replay():
  config = dataclasses.replace(
    CONFIG, block_length=1, pixels_block_length=1, pixels_capacity=40, priority_exponent=0.5
  )
  with Kept(capacity_lib.Capacity(), config, latent_bytes=2 * ROW) as kept:
    kept.write(kept.pixels, config.pixels_row, 60)
    kept.pixels.close()
    kept.keeper.keep()
    assert kept.items('pixels') == 40
    kept.publish(2)
    latents = kept.writer(config.latents_layouts, config.latents_row)
    kept.write(latents, config.latents_row, 60)
    latents.close()
    kept.keeper.keep()
    assert kept.items('latents') == 60


def test_nothing_is_deleted_without_a_budget():
  with Kept(capacity_lib.Capacity()) as kept:
    kept.write(kept.pixels, CONFIG.pixels_row, 500)
    kept.pixels.close()
    report = kept.keeper.keep()
    assert kept.held('pixels') == list(range(500))
    assert report['used_bytes'] == 500 * ROW and report['budget_bytes'] == float('inf')
