"""The keeper against a server in this process, whose memory is counted in rows."""

import collections
import dataclasses
import itertools
import json

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import reverb
from scipy import stats

from seer_tf.replay import capacity as capacity_lib
from seer_tf.replay import datasets, drain, keeper, tables, writers

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


@pytest.fixture(autouse=True, scope='module')
def patient():
  """Searches have time to end, however busy the machine is."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(keeper, '_SEARCH_SECONDS', 60.0)
    yield


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
    self.written = self.phase = 0
    self.keeper = keeper.Keeper(self.client, config, capacity, self.used_bytes)
    self.pixels = self.writer(config.pixels_layouts, config.pixels_row)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.server.stop()

  def writer(self, layouts, row, **kwargs):
    return writers.RowWriter(self.remote, layouts, tables.padding_row(row), **kwargs)

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

  def keep(self):
    return self.keeper.keep(self.phase)

  def freeze(self):
    """Ends phase pixels, converts, and returns the writer that goes on."""
    self.pixels.close()
    self.phase = 1
    report = self.keep()
    assert report['phase'] == 1
    latents = self.writer(self.config.latents_layouts, self.config.latents_row)
    held = range(report['pixels_first_row'], self.pixels.rows)
    assert list(held) == self.held('pixels')
    shape = self.config.latents_row.observation.shape
    encode = lambda pixels: np.zeros((len(pixels), *shape), np.float32)
    drain.drain(self.remote, self.config, held, encode, lambda stream: latents)
    converted, before = self.items('latents'), self.buffers
    self.buffers += keeper.BUFFER_BYTES // 2  # in transit
    self.keep()
    assert self.items('latents') == converted
    self.buffers = before
    self.phase = 2
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
      report = kept.keep()
      complete = max(0, (written - CONFIG.n_step) // block * block)
      while complete - first > budget_rows:
        first += block
      assert kept.held('pixels') == list(range(first, complete))
      assert (report['pixels_first_row'], report['rows']) == (first, complete - first)
      # Rows for the drain stay with those that are held.
      drained = CONFIG.drain_layout.block_length
      assert kept.items('drain') == max(0, written // drained - first // drained)


class Actors:
  """Writers of several streams, and by brute force the items of `pixels` in order of creation."""

  def __init__(self, kept, skews=(0, 0, 0, 0)):
    """The clock of each actor may be ahead of the others'."""
    self.kept = kept
    self.skews = skews
    self.items = []  # numbers of the own rows of each
    self._clock = itertools.count(1)
    self._streams = itertools.count(3, 5)
    self._actors = {}  # actor -> (writer, numbers of its rows, items of them)

  def start(self, actor, first_number=None):
    if first_number is None:
      first_number = tables.first_number(next(self._streams))
    config = self.kept.config
    writer = self.kept.writer(
      config.pixels_layouts,
      config.pixels_row,
      first_number=first_number,
      priority_of=lambda numbers: [next(self._clock) + self.skews[actor]],
    )
    self._actors[actor] = [writer, first_number, 0]

  def write(self, actor, count):
    """Rows whose frames and actions tell of their stream."""
    if actor not in self._actors:
      self.start(actor)
    writer, first, _ = self._actors[actor]
    row = tables.padding_row(CONFIG.pixels_row)
    frame = np.full(CONFIG.frame_shape, tables.stream_of(first), np.uint8)
    row = row._replace(observation=frame, step_type=np.int32(1), number=None)
    for _ in range(count):
      writer.append(row._replace(action=np.int64(first + writer.rows)))
      self._note(actor, (writer.rows - CONFIG.n_step) // CONFIG.pixels_block_length)

  def end(self, actor, goes_on):
    """Closes the writer; another one goes on with the same stream, or a new one begins."""
    writer, first, _ = self._actors[actor]
    writer.close()
    self._note(actor, -(-writer.rows // CONFIG.pixels_block_length))
    del self._actors[actor]
    if goes_on:
      self.start(actor, first + writer.rows)

  def end_all(self):
    for actor in list(self._actors):
      self.end(actor, False)

  def flush(self):
    for writer, *_ in self._actors.values():
      writer.flush()

  def _note(self, actor, items):
    """There are so many items of this writer now."""
    writer, first, before = self._actors[actor]
    block = CONFIG.pixels_block_length
    for item in range(before, items):
      rows = range(item * block, min((item + 1) * block, writer.rows))
      self.items.append([first + row for row in rows])
    self._actors[actor][2] = max(before, items)

  def evict(self, budget_rows):
    """Drops what has to go; returns the numbers of the rows that stay, in order."""
    block = CONFIG.pixels_block_length
    del self.items[: max(0, len(self.items) - max(1, budget_rows // block))]
    return sorted(number for item in self.items for number in item)


TURNS = st.lists(
  st.lists(
    st.tuples(
      st.integers(0, 3), st.integers(1, 12), st.sampled_from(['', '', '', 'ends', 'pauses'])
    ),
    min_size=1,
    max_size=8,
  ),
  min_size=2,
  max_size=8,
)


@settings(max_examples=10)
@given(budget_rows=st.integers(20, 100), turns=TURNS, restart=st.integers(0, 8))
def test_the_oldest_of_several_streams_go_first(budget_rows, turns, restart):
  """Streams come, go and are gone on with, and so is the keeper; at last all is converted."""
  capacity = capacity_lib.Capacity(budget_rows * ROW)
  with Kept(capacity) as kept:
    actors = Actors(kept)
    for turn, writes in enumerate(turns):
      for actor, count, then in writes:
        actors.write(actor, count)
        if then:
          actors.end(actor, goes_on=then == 'pauses')
      actors.flush()
      if turn == restart:
        state = json.loads(json.dumps(kept.keeper.state()))
        kept.keeper = keeper.Keeper(kept.client, CONFIG, capacity, kept.used_bytes)
        kept.keeper.restore(state)
      kept.keep()
      held = actors.evict(budget_rows)
      assert kept.held('pixels') == held
    actors.end_all()
    kept.keep()
    held = actors.evict(budget_rows)
    assert kept.held('pixels') == held
    check_conversion(kept, held)


@settings(max_examples=8)
@given(
  budget_rows=st.integers(20, 100),
  turns=TURNS,
  skews=st.lists(st.sampled_from([10_000, 20_000, 30_000]), min_size=4, max_size=4),
)
def test_clocks_that_disagree_cost_no_more_than_the_order(budget_rows, turns, skews):
  """As many are kept as otherwise, each once; and what is kept can be converted."""
  with Kept(capacity_lib.Capacity(budget_rows * ROW)) as kept:
    actors, written = Actors(kept, skews), set()
    for writes in turns:
      for actor, count, then in writes:
        actors.write(actor, count)
        if then:
          actors.end(actor, goes_on=then == 'pauses')
      actors.flush()
      kept.keep()
      written |= {number for item in actors.items for number in item}
      actors.evict(budget_rows)
      held = kept.held('pixels')
      assert kept.items('pixels') == len(actors.items)
      assert len(held) == len(set(held)) and set(held) <= written
    actors.end_all()
    kept.keep()
    check_conversion(kept, kept.held('pixels'))


def check_conversion(kept, held):
  """All rows that are `held` become latents, and hardly any others; no stream meets another."""
  kept.phase = 1
  kept.keep()
  opened = {}

  def writer_of(stream):
    if stream not in opened:
      opened[stream] = kept.writer(CONFIG.latents_layouts, CONFIG.latents_row)
    return opened[stream]

  def encode(pixels):
    """The frames of each stack, which are all of one stream, two of them and a 0."""
    frames = pixels.numpy()[:, 0, 0, :].astype(np.float32)
    np.testing.assert_array_equal(frames[:, 0], frames[:, 1])
    return np.tile(np.pad(frames, [(0, 0), (0, 1)])[:, np.newaxis], [1, 2, 1])

  rows = drain.drain(kept.remote, CONFIG, None, encode, writer_of)
  for writer in opened.values():
    writer.close()
  converted = kept.held('latents')
  assert len(converted) == rows and set(held) <= set(converted)
  streams = collections.Counter(tables.stream_of(number) for number in converted)
  assert rows - len(held) <= (len(streams) + 4) * CONFIG.drain_layout.block_length
  if not any(count > CONFIG.n_step for count in streams.values()):
    return
  dataset = datasets.make_dataset(
    kept.remote.server_address, 'latents', CONFIG, 100, gamma=0.9, timeout_seconds=20
  )
  for transition, _ in dataset.take(2):
    before, after = (
      step.observation.numpy() for step in (transition.time_step, transition.next_time_step)
    )
    np.testing.assert_array_equal(before, after)
    stream = tables.stream_of(transition.action_step.action.numpy())
    np.testing.assert_array_equal(before.reshape(len(stream), -1)[:, 0], stream)


def test_one_stream_goes_on_exactly_after_a_restart_and_with_another_writer():
  """Also when the last block of the first writer is not full."""
  capacity = capacity_lib.Capacity(20 * ROW)
  with Kept(capacity) as kept:
    kept.write(kept.pixels, CONFIG.pixels_row, 33)
    kept.pixels.close()
    kept.keep()
    state = json.loads(json.dumps(kept.keeper.state()))
    kept.keeper = keeper.Keeper(kept.client, CONFIG, capacity, kept.used_bytes)
    kept.keeper.restore(state)
    pixels = kept.writer(CONFIG.pixels_layouts, CONFIG.pixels_row, first_number=33)
    for _ in range(6):
      kept.write(pixels, CONFIG.pixels_row, 5)
      pixels.flush()
      report = kept.keep()
      items = kept.items('pixels')
      held = kept.held('pixels')
      assert items == 10 and report['pixels_first_row'] == held[0]
      assert held == list(range(held[0], held[-1] + 1))


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
    kept.keep()
    latents = kept.freeze()
    begin = kept.keep()['pixels_first_row']
    for _ in range(12):
      kept.write(latents, config.latents_row, 100)
      latents.flush()
      report = kept.keep()
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
    kept.keep()
    if table == 'pixels':
      kept.pixels.close()
    else:
      latents = kept.freeze()
      for _ in range(5):
        kept.write(latents, CONFIG.latents_row, 60)
        latents.flush()
        kept.keep()
      latents.close()
    kept.keep()
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
      kept.keep()
      if kept.written == 120:
        assert len(kept.held('pixels')) == 96
        kept.row_bytes, kept.buffers = later_row_bytes, later_buffers
    for _ in range(20):
      kept.keep()
    assert least <= len(kept.held('pixels')) <= most


def test_nothing_is_deleted_from_prioritised_replay():
  config = dataclasses.replace(
    CONFIG, block_length=1, pixels_block_length=1, pixels_capacity=40, priority_exponent=0.5
  )
  with Kept(capacity_lib.Capacity(), config, latent_bytes=2 * ROW) as kept:
    kept.write(kept.pixels, config.pixels_row, 60)
    kept.pixels.close()
    kept.keep()
    assert kept.items('pixels') == 40
    kept.phase = 2
    latents = kept.writer(config.latents_layouts, config.latents_row)
    kept.write(latents, config.latents_row, 60)
    latents.close()
    kept.keep()
    assert kept.items('latents') == 60


def test_nothing_is_deleted_without_a_budget():
  with Kept(capacity_lib.Capacity()) as kept:
    kept.write(kept.pixels, CONFIG.pixels_row, 500)
    kept.pixels.close()
    report = kept.keep()
    assert kept.held('pixels') == list(range(500))
    assert report['used_bytes'] == 500 * ROW and report['budget_bytes'] == float('inf')
