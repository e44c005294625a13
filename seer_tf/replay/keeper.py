"""The keeper of a replay server: evicts the oldest items when, and only when, replay is full.

Reverb fixes the size of a table when the server starts, but what a row costs, and so how many fit a
budget, is known only once rows are there. So tables are made large, and the server's own process
looks some times a second at what it has allocated, and deletes.

Items are deleted by their keys, which Reverb makes up and tells only with a sample. So the keeper
samples, in the process and only when something must go, until it knows the key of the very oldest
item. What else it learns meanwhile it remembers, so that n items take some ln(n) samples for each
one deleted. Table `drain` is read in order, and reading deletes.
"""

import math
import time
from typing import Any, Callable, Dict, Mapping

import numpy as np
import reverb

from seer_tf.replay import capacity as capacity_lib
from seer_tf.replay import tables

# What connections and windows on their way to a reader may take beside rows.
BUFFER_BYTES = 16 * 2**20
_SAMPLES = 64  # of one call; one takes 0.02 to 0.4 ms
_SEARCH_SECONDS = 1.0  # then all else gets its turn


class _Items:
  """Items of one table, in the order of their rows; only the oldest ones are ever deleted.

  Attributes:
    rows: own rows of all items, as of the last `look`.
    first_row: number of the first of them.
  """

  def __init__(self, client: reverb.Client, name: str, layout: tables.Layout, row: tables.Row):
    self._client = client
    self._name = name
    self._layout = layout
    self._row = row
    self._keys: Dict[int, int] = {}  # number of the first own row -> key
    self._row_bytes = math.inf
    self.rows = self.first_row = 0

  def look(self, info: Mapping[str, Any], origin: int = 0):
    """Counts anew; `origin` is the number of the first row ever written to the table."""
    table = info[self._name]
    self.rows = table.current_size * self._layout.block_length
    inserted = table.rate_limiter_info.insert_stats.completed * self._layout.block_length
    self.first_row = origin + inserted - self.rows

  def row_bytes(self, used: float) -> float:
    """Bytes of a row if replay takes `used` bytes.

    Until the table is full for the first time all that is used counts. Then what is used besides
    rows, in buffers, may come and go without effect, unless it is more than buffers ever take.
    """
    least, most = (max(1, size) / max(1, self.rows) for size in (used - BUFFER_BYTES, used))
    return min(max(self._row_bytes, least), most)

  def evict(self, rows: float, row_bytes: float):
    """Deletes the oldest items until no more than `rows` of so many bytes remain, one at least."""
    block, deadline = self._layout.block_length, time.monotonic() + _SEARCH_SECONDS
    self._keys = {number: key for number, key in self._keys.items() if number >= self.first_row}
    doomed = []
    while self.rows > max(rows, block):
      if self.first_row in self._keys:
        doomed.append(self._keys.pop(self.first_row))
        self.first_row += block
        self.rows -= block
      elif time.monotonic() < deadline:
        self._learn()
      else:
        break
    if doomed:
      self._row_bytes = row_bytes
      self._client.mutate_priorities(self._name, deletes=doomed)

  def evict_before(self, number: int):
    """Deletes, by reading them, the items of which no own row has this number or a later one."""
    while self.rows and self.first_row + self._layout.block_length <= number:
      next(self._client.sample(self._name, emit_timesteps=False))
      self.first_row += self._layout.block_length
      self.rows -= self._layout.block_length

  def _learn(self):
    for sample in self._client.sample(self._name, _SAMPLES, emit_timesteps=False):
      rest = tables.StoredRow(*sample.data).rest
      [first, *_] = tables.own_numbers(rest, self._layout, self._row)
      self._keys[int(first)] = int(sample.info.key)


class Keeper:
  """Keeps a server's memory within what `Capacity` allows; see the top of this file.

  Not guaranteed: anything between two calls. What is written meanwhile is over the limit until the
  next one. Rows are those of one stream, and only this keeper deletes items of `pixels` as long as
  phase `pixels` lasts. From prioritised replay, which no budget goes with, it deletes nothing:
  sampling would hardly ever tell the key of an item of low priority.
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
    self._drain = items('drain', config.drain_layout, config.pixels_row)
    self._latents = items('latents', config.latents_layout, config.latents_row)
    # Of the end of phase pixels: bytes of a row, and rows that there was room for.
    self._pixels_row_bytes = self._pixels_limit = math.nan
    self._phase = 0

  def keep(self) -> Dict[str, Any]:
    """Evicts what is too much; returns what `tables.SERVER_SIGNATURE` says of rows and budget.

    From the phase that it returns on it acts as that phase has it: having returned a later one than
    pixels, it leaves tables `pixels` and `drain` alone.
    """
    info, before = self._client.server_info(), self._phase
    if info['variables'].current_size:
      [step] = next(self._client.sample('variables', unpack_as_table_signature=True))
      self._phase = int(np.ravel(step.data['phase'])[0])
    used = self._used_bytes()
    budget = self._capacity.budget_bytes
    if before == 0:  # also when phase pixels has just ended: its tables are still as it left them
      self._pixels.look(info)
      self._pixels_row_bytes = self._pixels.row_bytes(used)
      self._pixels_limit = min(self._config.pixels_capacity, budget / self._pixels_row_bytes)
    if self._phase == 0:
      self._pixels.evict(budget / self._pixels_row_bytes, self._pixels_row_bytes)
      self._drain.look(info)
      self._drain.evict_before(self._pixels.first_row if budget < math.inf else 0)
    else:
      budget = self._keep_latents(info, used, budget)
    return dict(
      used_bytes=self._used_bytes(),
      budget_bytes=budget,
      capacity=str(self._capacity),
      phase=self._phase,
      rows=(self._latents if self._phase else self._pixels).rows,
      pixels_first_row=self._pixels.first_row,
    )

  def _keep_latents(self, info, used, budget) -> float:
    """Returns the bytes that replay may take by budget and growth rule."""
    self._drain.look(info)
    self._latents.look(info, self._pixels.first_row)
    of_pixels = self._drain.rows * self._pixels_row_bytes  # while they are being converted
    row_bytes = self._latents.row_bytes(used - of_pixels)
    growth = self._capacity.growth(self._config, self._pixels_row_bytes, row_bytes)
    if self._config.prioritised:
      return budget
    rows = min(self._pixels_limit * growth, (budget - of_pixels) / row_bytes)
    # What has been read, but is not yet written or freed, does not make replay full.
    if self._phase == 2 or used > budget + BUFFER_BYTES:
      self._latents.evict(rows, row_bytes)
    return min(budget, self._pixels_limit * growth * row_bytes)
