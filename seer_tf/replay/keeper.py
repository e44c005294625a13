"""The keeper of a replay server: evicts the oldest items when, and only when, replay is full.

Reverb fixes the size of a table when the server starts, but what a row costs, and so how many fit a
budget, is known only once rows are there. So tables are made large, and the server's own process
looks some times a second at what it has allocated, and deletes.

Items are deleted by their keys, which Reverb makes up and tells only with a sample; with it comes
the time of the item's creation, as its priority (see `writers.creation_times`). So the keeper
samples, in the process and only when something must go, until it knows which item is the oldest.

One stream   A count of what was written and deleted tells the number of the oldest item. What else
             is learnt until it turns up is remembered, so that n items take some ln(n) samples for
             each one deleted. Of many that must go the known ones do at once, before some older
             ones that are to follow are found.
Several      No count tells whose item is the oldest. Samples are counted in rounds: an item that
             none of 12 n has hit (chance: e^-12) came after their begin. So what is not newer than
             the newest that a round began with may go, by age, when the round is over; the next one
             goes on meanwhile.

Table `drain` is read in order, and reading deletes.
"""

import collections
import itertools
import math
import time
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Set

import reverb

from seer_tf.replay import capacity as capacity_lib
from seer_tf.replay import tables

# What connections and windows on their way to a reader may take beside rows.
BUFFER_BYTES = 16 * 2**20
_SAMPLES = 64  # of one call; one takes 0.02 to 0.4 ms
_SEARCH_SECONDS = 1.0  # then all else gets its turn
_AHEAD_SECONDS = 0.1  # of each call, when something will have to go soon
# Samples of a round are so many per item and so many more; of each item deleted, to go on with the
# next round: it is over when half of what this one has shown is deleted.
_ROUND, _ROUND_MORE, _PACE = 12, 64, 24


class _Item(NamedTuple):
  """What a sample tells of an item; the oldest one comes first."""

  created: float  # seconds, by its writer's clock
  number: int  # of its first own row
  following: int  # of the first own row of the next item of its stream
  key: int


def _gone(table) -> int:
  """Items that have left a table, since it was made, in whatever way; it survives checkpoints."""
  return table.rate_limiter_info.insert_stats.completed - table.current_size


class _Items:
  """Items of one table, of which only the oldest ones are ever deleted.

  Attributes:
    rows: own rows of all items, padding included, as of the last `look`.
    first_rows: stream -> number of the first of its rows that is not deleted. Streams that nothing
      was deleted of may be missing. Of stream 0 it is exact, unless there are others.
  """

  def __init__(self, client: reverb.Client, name: str, layout: tables.Layout, row: tables.Row):
    self._client = client
    self._name = name
    self._layout = layout
    self._row = row
    self._row_bytes = math.inf
    self._known: Dict[int, _Item] = {}  # by number
    self._gone = 0
    self.rows = 0
    self.first_rows: Dict[int, int] = {0: 0}
    # Streams of actors are never 0: that one is alone, or not there.
    self._is_alone = True
    self._ahead: Set[int] = set()  # numbers of items deleted though older ones are still there
    self._sampled = 0  # of this round, which began with nothing newer than:
    self._newest = -math.inf
    self._queue: Deque[_Item] = collections.deque()  # of several streams: who goes next

  def state(self) -> Dict[str, Any]:
    return dict(
      row_bytes=self._row_bytes,
      gone=self._gone,
      first_rows=list(self.first_rows.items()),
      is_alone=self._is_alone,
    )

  def restore(self, state: Mapping[str, Any]):
    self._row_bytes = state['row_bytes']
    self._gone = state['gone']
    self.first_rows = dict(state['first_rows'])
    self._is_alone = state['is_alone']

  def follow(self, other: '_Items'):
    """The rows that `other` holds are about to be written to this empty table."""
    self.first_rows = dict(other.first_rows)
    self._is_alone = other._is_alone

  def look(self, info: Mapping[str, Any]):
    """Counts anew."""
    table = info[self._name]
    self.rows = table.current_size * self._layout.block_length
    evicted = _gone(table) - self._gone  # by the table itself, which was full
    self._gone += evicted
    if self._is_alone and evicted:
      self.first_rows[0] += evicted * self._layout.block_length
      self._sampled = 0

  def row_bytes(self, used: float) -> float:
    """Bytes of a row if replay takes `used` bytes.

    Until the table is full for the first time all that is used counts. Then what is used besides
    rows, in buffers, may come and go without effect, unless it is more than buffers ever take.
    """
    least, most = (max(1, size) / max(1, self.rows) for size in (used - BUFFER_BYTES, used))
    return min(max(self._row_bytes, least), most)

  def evict(self, rows: float, row_bytes: float) -> bool:
    """Deletes the oldest items until no more than `rows` of so many bytes remain, one at least.

    Returns whether there were any.
    """
    block, deadline = self._layout.block_length, time.monotonic() + _SEARCH_SECONDS
    excess, deleted = math.ceil(max(0, self.rows - max(rows, block)) / block), 0
    if self._is_alone:
      first = self.first_rows[0]
      self._known = {number: item for number, item in self._known.items() if number >= first}
    while deleted < excess:
      while items := list(itertools.islice(self._oldest(), excess - deleted)):
        deleted += self._delete(items)
      if self._is_alone:
        deleted += self._delete_ahead(excess - deleted)
      if deleted < excess:
        if time.monotonic() > deadline:
          break
        self._learn()
    if deleted:
      self._row_bytes = row_bytes
    if not self._is_alone:
      for _ in range(math.ceil(_PACE * deleted / _SAMPLES)):
        if time.monotonic() > deadline:
          break
        self._learn()
    return deleted > 0

  def learn_ahead(self):
    """Learns what items there are, so that the search is shorter when one has to go."""
    deadline = time.monotonic() + _AHEAD_SECONDS
    while time.monotonic() < deadline:
      self._learn()

  def _oldest(self) -> Iterator[_Item]:
    """Known items that are surely older than all others, in order."""
    if not self._is_alone:
      yield from self._queue
      return
    item = self._known.get(self.first_rows[0])
    while item is not None:
      yield item
      item = self._known.get(item.following)

  def _delete(self, items: Iterable[_Item]) -> int:
    """Deletes the first ones of `_oldest`; returns how many."""
    for item in items:
      self._known.pop(item.number, None)
      self.first_rows[tables.stream_of(item.number)] = item.following
      if not self._is_alone:
        self._queue.popleft()
    left = [item for item in items if item.number not in self._ahead]
    self._ahead.difference_update(item.number for item in items)
    if self._is_alone and items:
      self._sampled = 0
    return self._remove(left)

  def _delete_ahead(self, excess: int) -> int:
    """Deletes known items of a single stream which `excess` includes, though older ones are not."""
    # Short by two, as a writer's last block may be; they are left to `_delete`.
    doomed = (excess + len(self._ahead) - 2) * self._layout.block_length
    numbers = range(self.first_rows[0], self.first_rows[0] + doomed)
    known = sorted(self._known.keys() - self._ahead)
    items = [self._known[number] for number in known if number in numbers][:excess]
    self._ahead.update(item.number for item in items)
    return self._remove(items)

  def _remove(self, items: List[_Item]) -> int:
    """Deletes from the table; returns how many."""
    if items:
      self._client.mutate_priorities(self._name, deletes=[item.key for item in items])
    self.rows -= len(items) * self._layout.block_length
    self._gone += len(items)
    return len(items)

  def _learn(self):
    """Samples; afterwards there may be more to delete."""
    items = []
    for sample in self._client.sample(self._name, _SAMPLES, emit_timesteps=False):
      rest = tables.StoredRow(*sample.data).rest
      numbers = tables.own_numbers(rest, self._layout, self._row)
      last = int(numbers.max())  # padding, which may come behind it, has -1
      items.append(_Item(sample.info.priority, int(numbers[0]), last + 1, int(sample.info.key)))
    self._known.update((item.number, item) for item in items)
    if self._is_alone and any(tables.stream_of(item.number) for item in items):
      self._is_alone, self.first_rows, self._sampled = False, {}, 0
    if self._is_alone:
      # The last block of a writer may be shorter, and then rows were counted that never were.
      self.first_rows[0] = min(self.first_rows[0], *(item.number for item in items))
    if not self._sampled:
      self._newest = max(item.created for item in items)
    self._sampled += len(items)
    if self._sampled < _ROUND * self.rows // self._layout.block_length + _ROUND_MORE:
      return
    self._sampled = 0
    if self._is_alone:
      # Not there: something was lost, or was deleted by someone else.
      if self.first_rows[0] not in self._known:
        self.first_rows[0] = min(self._known)
    else:
      known = self._known.values()
      self._queue = collections.deque(
        sorted(item for item in known if item.created <= self._newest)
      )


class _Drain:
  """Table `drain`: its items can only be read, which deletes them, in the order they came in."""

  def __init__(self, client: reverb.Client, layout: tables.Layout, row: tables.Row):
    self._client = client
    self._layout = layout
    self._row = row
    self._gone = 0
    self._next_rows: Dict[int, int] = {0: 0}  # stream -> of the next item to read, or later
    self.rows = 0

  def state(self) -> Dict[str, Any]:
    return dict(gone=self._gone, next_rows=list(self._next_rows.items()))

  def restore(self, state: Mapping[str, Any]):
    self._gone = state['gone']
    self._next_rows = dict(state['next_rows'])

  def look(self, info: Mapping[str, Any]):
    """Counts anew."""
    table, block = info['drain'], self._layout.block_length
    self.rows = table.current_size * block
    evicted = _gone(table) - self._gone
    self._gone += evicted
    for stream in self._next_rows:  # whose they were the next reading tells
      self._next_rows[stream] += evicted * block

  def evict_before(self, first_rows: Mapping[int, int]):
    """Deletes items all of whose rows come before `first_rows`, by stream.

    Of which stream the next item is nobody knows. So with several streams as many are left as there
    are streams: those may have come in before ones that had to go.
    """
    block = self._layout.block_length
    for stream, number in first_rows.items():
      self._next_rows.setdefault(stream, number)
    spared = len(first_rows) if len(first_rows) > 1 else 0

    def due():
      return sum(
        max(0, number - self._next_rows[stream]) // block for stream, number in first_rows.items()
      )

    while self.rows and due() > spared:
      [sample] = self._client.sample('drain', emit_timesteps=False)
      rest = tables.StoredRow(*sample.data).rest
      last = int(tables.own_numbers(rest, self._layout, self._row).max())
      self._next_rows[tables.stream_of(last)] = last + 1
      self._gone += 1
      self.rows -= block


class Keeper:
  """Keeps a server's memory within what `Capacity` allows; see the top of this file.

  Not guaranteed: anything between two calls. What is written meanwhile is over the limit until the
  next one. Across streams the order is as good as the clocks of their writers agree. Only this
  keeper deletes items of `pixels` as long as phase `pixels` lasts. From prioritised replay, which
  no budget goes with, it deletes nothing: priorities are no times there, and sampling would hardly
  ever tell the key of an item of low priority.
  """

  def __init__(
    self,
    client: reverb.Client,
    config: tables.ReplayConfig,
    capacity: capacity_lib.Capacity,
    used_bytes: Callable[[], int],
  ):
    """Deletes nothing yet.

    Args:
      client: in the server's own process.
      config: what its tables hold.
      capacity: what may be kept of it.
      used_bytes: what replay takes now.
    """
    self._client = client
    self._config = config
    self._capacity = capacity
    self._used_bytes = used_bytes
    items = lambda name, layout, row: _Items(client, name, layout, row)
    self._pixels = items('pixels', config.pixels_layout, config.pixels_row)
    self._drain = _Drain(client, config.drain_layout, config.pixels_row)
    self._latents = items('latents', config.latents_layout, config.latents_row)
    # Of the end of phase pixels: bytes of a row, and rows that there was room for.
    self._pixels_row_bytes = self._pixels_limit = math.nan
    self._phase = 0

  def state(self) -> Dict[str, Any]:
    """What a keeper of the same tables, restored from a checkpoint, needs to know; goes into JSON.

    A table's count of all that was ever written to it is part of a checkpoint. Keys are not known
    any more afterwards: they are learnt anew.
    """
    return dict(
      phase=self._phase,
      pixels_row_bytes=self._pixels_row_bytes,
      pixels_limit=self._pixels_limit,
      pixels=self._pixels.state(),
      drain=self._drain.state(),
      latents=self._latents.state(),
    )

  def restore(self, state: Mapping[str, Any]):
    """Goes on from what `state` returned when the checkpoint was made."""
    self._phase = state['phase']
    self._pixels_row_bytes = state['pixels_row_bytes']
    self._pixels_limit = state['pixels_limit']
    for name in ('pixels', 'drain', 'latents'):
      getattr(self, f'_{name}').restore(state[name])

  def keep(self, phase: int) -> Dict[str, Any]:
    """Evicts what is too much; returns what `tables.SERVER_SIGNATURE` says of rows and budget.

    `pixels_first_row` is of stream 0 and means nothing if there are others: 0 or too small.

    Args:
      phase: as the learner says. From then on it acts as that phase has it: once told of a later
        one than pixels, it leaves tables `pixels` and `drain` alone.
    """
    info, used = self._client.server_info(), self._used_bytes()
    before, self._phase = self._phase, phase
    budget = self._capacity.budget_bytes
    if before == 0:  # also when phase pixels has just ended: its tables are still as it left them
      self._pixels.look(info)
      self._pixels_row_bytes = self._pixels.row_bytes(used)
      self._pixels_limit = min(self._config.pixels_capacity, budget / self._pixels_row_bytes)
    if self._phase == 0:
      self._drain.look(info)
      if self._pixels.evict(budget / self._pixels_row_bytes, self._pixels_row_bytes):
        self._drain.evict_before(self._pixels.first_rows)
    else:
      if before == 0:
        self._latents.follow(self._pixels)
      budget = self._keep_latents(info, used, budget)
    return dict(
      used_bytes=self._used_bytes(),
      budget_bytes=budget,
      capacity=str(self._capacity),
      phase=self._phase,
      rows=(self._latents if self._phase else self._pixels).rows,
      pixels_first_row=self._pixels.first_rows.get(0, 0),
    )

  def _keep_latents(self, info, used, budget) -> float:
    """Returns the bytes that replay may take by budget and growth rule."""
    self._drain.look(info)
    self._latents.look(info)
    of_pixels = self._drain.rows * self._pixels_row_bytes  # while they are being converted
    row_bytes = self._latents.row_bytes(used - of_pixels)
    growth = self._capacity.growth(self._config, self._pixels_row_bytes, row_bytes)
    if self._config.prioritised:
      return budget
    rows = min(self._pixels_limit * growth, (budget - of_pixels) / row_bytes)
    # What has been read, but is not yet written or freed, does not make replay full.
    if self._phase == 2 or used > budget + BUFFER_BYTES:
      self._latents.evict(rows, row_bytes)
    elif self._latents.rows > max(0, rows):
      self._latents.learn_ahead()
    return min(budget, self._pixels_limit * growth * row_bytes)
