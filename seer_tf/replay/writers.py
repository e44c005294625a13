"""Writing one stream of rows into replay: in each table every row is an own row of just one item.

An observer of a TF-Agents driver is then no more than

    writer = RowWriter.of_table(client, config, 'pixels')
    observer = lambda trajectory: writer.append(pixels_row(trajectory, frame_channels=3))
"""

import time
from typing import Callable, Mapping

import numpy as np
import reverb
from tf_agents.trajectories import trajectory as trajectory_lib

from seer_tf.replay import tables, transitions

# All but the observation compresses the rows of so many items together, up to so many rows. A chunk
# costs the server about 1 KB whatever it holds, which for a few numbers per row is nearly all; but
# items wait in the client for their chunks, and Reverb warns of 50 and more.
_NARROW_CHUNK_ITEMS = 16
_NARROW_CHUNK_ROWS = 64
# By the clock that nobody sets, which also counts while the machine sleeps.
_BOOTED = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def creation_times(numbers: np.ndarray) -> np.ndarray:
  """Priorities of uniform replay: seconds since 1970, also of an item in which nothing starts.

  There nobody draws by them, but they tell `keeper.Keeper` which of several writers' items is the
  oldest. The system's clock is read only when the process starts: set it as you like, the times of
  one process never go back.
  """
  return np.full(max(1, len(numbers)), _BOOTED + time.clock_gettime(time.CLOCK_BOOTTIME))


class RowWriter:
  """Feeds one endless stream of rows into one or more tables, each with its layout of items.

  The stream begins with `history` rows of padding. As soon as the lookahead of a table's block of
  own rows has been appended, an item of the whole window is created there; tables share chunks.
  `close` fills the last blocks and their lookahead with padding. So whatever the number of rows,
  each table has each as an own row of exactly one item, in order, and no item is padding only.

  Not guaranteed: that a row can be sampled before `flush` or `close` returned. Reverb sends in the
  background an item whose chunks are full (16 to 64 rows in all but the observation), and rows of
  an unfinished block belong to no item yet. Rows that a full table has evicted since were
  acknowledged all the same. Not thread-safe.

  Example, with history 2, blocks of one and a lookahead of 1 (P is padding):

      rows appended   a b c, then close()
      stream          P P a b c P
      items           [P P a b]  [P a b c]  [a b c P]     own rows a, b and c
  """

  def __init__(
    self,
    client: reverb.Client,
    layouts: Mapping[str, tables.Layout],
    padding_row: tables.Row,
    flush_every_rows: int = 8,
    timeout_seconds: int = 60,
    check_server: Callable[[], None] = lambda: None,
    is_same_server: Callable[[], bool] = lambda: True,
    priority_of: Callable[[np.ndarray], np.ndarray] = creation_times,
    first_number: int = 0,
  ):
    """Opens the stream; sends nothing.

    Args:
      client: of the replay server.
      layouts: how an item of each table divides its window. They must agree in chunk length and
        history, as the tables share chunks and padding.
      padding_row: `tables.padding_row` of the tables' row spec; rows must have its shapes, dtypes.
      flush_every_rows: after this many rows `append` waits until the server confirmed all but the
        items that still wait for their chunk to fill. It bounds the client's memory.
      timeout_seconds: limit of each single wait for the server, in whole seconds.
      check_server: called each second of a wait; raises if there is nobody left to wait for.
      is_same_server: whether the server is still the one that the stream was begun with; asked
        before rows count as acknowledged. One that has taken its place may have got items of one
        table only, those that were still to be sent.
      priority_of: priorities of rows that start a transition, by their numbers, int64 [N] -> [N],
        each above 0. An item gets the largest that it returns, 0 if that is none; only tables that
        sample by priority care, and the keeper of uniform replay: see `creation_times`.
      first_number: of the first row, if that has no number of its own.

    Raises:
      TimeoutError: if the server does not answer.
      ValueError: if the server has no table of that name, or the layouts do not agree.
    """
    shared = {
      (layout.chunk_length, layout.rows_per_step, layout.history) for layout in layouts.values()
    }
    if len(shared) != 1:
      raise ValueError(f'Layouts of one writer differ in chunks, steps or history: {layouts}.')
    [(chunk_length, rows_per_step, self._history)] = shared
    self._client = client
    self._layouts = dict(layouts)
    self._padding_row = padding_row
    self._flush_every_rows = flush_every_rows
    self._timeout_seconds = timeout_seconds
    self._check_server = check_server
    self._is_same_server = is_same_server
    self._priority_of = priority_of
    self._rows = 0
    self._acknowledged = 0
    self._next_number = first_number
    self._closed = False
    self._is_whole = True
    # The step that is being filled, and rows in all steps so far, padding included.
    self._padding = _batch_of_one(padding_row)
    self._step = tables.Row(*(np.repeat(column, rows_per_step, axis=0) for column in self._padding))
    self._filled = self._position = 0
    # (number, step type) of the newest rows in steps, as many as the longest window has.
    self._recent = np.empty([0, 2], np.int64)
    self._longest_window = max(layout.window for layout in layouts.values())

    self._check_tables()
    shortest_block = min(layout.block_length for layout in layouts.values())
    narrow_chunk = min(_NARROW_CHUNK_ITEMS * shortest_block, _NARROW_CHUNK_ROWS)
    longest_chunk = max(chunk_length, narrow_chunk)
    keep = max(longest_chunk, self._longest_window) // rows_per_step
    self._writer = client.trajectory_writer(num_keep_alive_refs=keep)
    for name in tables.StoredRow._fields:
      rows = chunk_length if name == 'observation' else longest_chunk
      self._writer.configure(
        (name,), num_keep_alive_refs=keep, max_chunk_length=rows // rows_per_step
      )
    # At most that many items wait for open chunks to fill; waiting for them would cut these short.
    self._pending_items = sum(
      -(-longest_chunk // layout.block_length) for layout in layouts.values()
    )

  @classmethod
  def of_table(
    cls, client: reverb.Client, config: tables.ReplayConfig, table: str, **kwargs
  ) -> 'RowWriter':
    """A writer into `pixels` and `drain`, or into `latents`, whichever `table` names.

    Args:
      client: of a replay server with the tables of `config`.
      config: what replay holds.
      table: 'pixels' or 'latents'.
      **kwargs: further arguments of `RowWriter`.

    Returns:
      it, see `RowWriter` for the errors.
    """
    layouts, row = {
      'pixels': (config.pixels_layouts, config.pixels_row),
      'latents': (config.latents_layouts, config.latents_row),
    }[table]
    return cls(client, layouts, tables.padding_row(row), **kwargs)

  @property
  def rows(self) -> int:
    """Rows appended, padding not counted."""
    return self._rows

  @property
  def next_number(self) -> int:
    """Of the row that comes next, if it has no number of its own."""
    return self._next_number

  @property
  def is_whole(self) -> bool:
    """Whether no signal or error has cut an `append` short: after that it takes no rows."""
    return self._is_whole

  @property
  def acknowledged(self) -> int:
    """Rows in items that the server had confirmed when `flush` or `close` last returned."""
    return self._acknowledged

  def append(self, row: tables.Row):
    """Appends one row; creates an item if the row is the last of a window.

    Args:
      row: arrays of the padding row's shapes and dtypes; they are copied. Without a number it gets
        one more than the row before, `first_number` if there was none.

    Raises:
      TimeoutError: if the server fails to confirm earlier rows in time.
      ValueError: if a field's shape or dtype is wrong, or the writer is closed.
    """
    self.extend(_batch_of_one(row))

  def extend(self, rows: tables.Row):
    """Appends rows in their order, as `append` does, for less work per row.

    Args:
      rows: arrays [N, ...] of N rows.

    Raises:
      TimeoutError: as `append`.
      ValueError: as `append`.
    """
    if self._closed or not self._is_whole:
      raise ValueError('The writer is closed or was cut short; open another for a new stream.')
    count = len(rows.step_type)
    if rows.number is None:
      first = self._next_number
      rows = rows._replace(number=np.arange(first, first + count, dtype=np.int64))
    rows = tables.Row(*map(np.asarray, rows))
    for name, value, pattern in zip(rows._fields, rows, self._padding_row):
      if value.shape != (count, *pattern.shape) or value.dtype != pattern.dtype:
        raise ValueError(
          f'A row for {self._names} has {name} {value.dtype} {list(value.shape[1:])}; '
          f'expected {pattern.dtype} {list(pattern.shape)}.'
        )
    if not count:
      return
    if not self._rows:
      for _ in range(self._history):
        self._fill(self._padding)
    before = self._rows
    self._rows += count
    self._next_number = int(rows.number[-1]) + 1
    self._is_whole = False  # should a signal end the process in the middle of this
    self._fill(rows)
    self._is_whole = True
    if self._rows // self._flush_every_rows > before // self._flush_every_rows:
      self._wait(self._pending_items)

  def flush(self):
    """Returns once the server has confirmed every item created so far.

    It closes the open chunk, so that calling it after every row costs memory and time.

    Raises:
      TimeoutError: if that takes longer than `timeout_seconds`.
    """
    self._wait(0)
    if not self._is_same_server():
      raise TimeoutError(
        f'Replay server {self._client.server_address} has started anew: of what was written to '
        f'{self._names} before, it has no more than its checkpoint.'
      )
    self._acknowledged = self._owned

  def close(self):
    """Pads the stream so that every row lies in an item, and flushes. May be called twice.

    Raises:
      TimeoutError: if the server does not confirm within `timeout_seconds`.
    """
    if not self._is_whole:
      self.abandon()  # where items begin and end is not known any more
      return
    if not self._closed:
      self._closed = True
      while self._owned < self._rows:
        self._fill(self._padding)
    self.flush()

  def abandon(self):
    """Closes the stream as it is, without waiting for anybody: what is not acknowledged is dropped.

    To be called once the server is lost. A writer that is merely forgotten goes on trying to reach
    the server, and would deliver its rows to the one that takes its place. May be called at any
    time, also after `close`.
    """
    self._closed = True
    self._writer.close()

  def _items(self, layout: tables.Layout) -> int:
    """Items created in a table of this layout."""
    owned = max(0, self._position - layout.history - layout.lookahead)
    return min(owned // layout.block_length, -(-self._rows // layout.block_length))

  @property
  def _owned(self) -> int:
    """Rows that are an own row of an item in every table."""
    owned = (self._items(layout) * layout.block_length for layout in self._layouts.values())
    return min(self._rows, *owned)

  @property
  def _names(self) -> str:
    return f'table{"s"[: len(self._layouts) > 1]} {", ".join(self._layouts)}'

  def _fill(self, rows: tables.Row):
    """Puts rows [N, ...] into the open step, and sends it whenever it is full."""
    count, done = len(rows.number), 0
    rows_per_step = len(self._step.number)
    while done < count:
      free = slice(self._filled, self._filled + count - done)
      for column, values in zip(self._step, rows):
        taken = len(column[free])
        column[free] = values[done : done + taken]
      done += taken
      self._filled += taken
      if self._filled == rows_per_step:
        self._filled = 0
        self._send()

  def _send(self):
    """Appends the full step and creates the items whose windows it completes."""
    items = {name: self._items(layout) for name, layout in self._layouts.items()}
    self._writer.append(tables.frame_differences(tables.pack(self._step)))
    self._position += len(self._step.number)
    sent = np.stack([self._step.number, self._step.step_type], axis=1)
    self._recent = np.concatenate([self._recent, sent])[-self._longest_window :]
    for name, layout in self._layouts.items():
      if self._items(layout) > items[name]:
        steps = layout.window // layout.rows_per_step
        window = tables.StoredRow(*(column[-steps:] for column in self._writer.history))
        self._writer.create_item(name, priority=self._priority(layout), trajectory=window)

  def _priority(self, layout: tables.Layout) -> float:
    """Of the item of the newest window."""
    number, step_type = self._recent[-layout.window :].T
    start = transitions.starts(step_type[:-1], step_type[1:])
    own = slice(layout.history, layout.history + layout.block_length)
    numbers = number[:-1][own][start[own]]
    return float(max(self._priority_of(numbers), default=0.0))

  def _wait(self, pending_items: int):
    for _ in range(self._timeout_seconds):
      try:
        self._writer.flush(pending_items, timeout_ms=1000)
        return
      except reverb.errors.DeadlineExceededError:
        self._check_server()
    raise TimeoutError(
      f'Replay server {self._client.server_address} did not confirm items for {self._names} '
      f'within {self._timeout_seconds} s: {self._rows} rows written, {self._owned} of them '
      f'in items, {self._acknowledged} rows acknowledged. Is the server running?'
    )

  def _check_tables(self):
    """Also keeps the native writer from waiting for ever for a server that is not there."""
    address = self._client.server_address
    try:
      known = self._client.server_info(timeout=max(1, int(self._timeout_seconds)))
    except reverb.errors.DeadlineExceededError as error:
      raise TimeoutError(
        f'Replay server {address} did not answer within {self._timeout_seconds} s, so that '
        f'{self._names} cannot be written. Is the server running?'
      ) from error
    missing = sorted(self._layouts.keys() - known.keys())
    if missing:
      raise ValueError(
        f'Replay server {address} has no table {", ".join(missing)}; '
        f'it has {", ".join(sorted(known))}.'
      )


def _batch_of_one(row: tables.Row) -> tables.Row:
  """The row with a leading dimension of 1."""
  return tables.Row(*(value if value is None else np.asarray(value)[np.newaxis] for value in row))


def pixels_row(trajectory: trajectory_lib.Trajectory, frame_channels: int) -> tables.Row:
  """The row of pixels that a driver's trajectory describes.

  Args:
    trajectory: of one agent step, without batch dimensions; observation uint8 [H, W, stacked].
    frame_channels: channels of one frame. Only the newest frame, the last ones, is kept; the
      transition builder stacks again.

  Returns:
    a row with observation uint8 [H, W, frame_channels].
  """
  return _row(trajectory, np.asarray(trajectory.observation)[..., -frame_channels:])


def latents_row(
  trajectory: trajectory_lib.Trajectory, encode: Callable[[np.ndarray], np.ndarray]
) -> tables.Row:
  """The row of latents that a driver's trajectory describes.

  Args:
    trajectory: of one agent step, without batch dimensions, from a policy that gives the latents
      of the observation's K crops as its info, float32 [K, D].
    encode: of a codec.

  Returns:
    a row with observation [K, D] as the codec stores it.
  """
  return _row(trajectory, encode(np.asarray(trajectory.policy_info)))


def _row(trajectory, observation) -> tables.Row:
  return tables.Row(
    observation=observation,
    action=np.asarray(trajectory.action),
    reward=np.asarray(trajectory.reward, np.float32),
    discount=np.asarray(trajectory.discount, np.float32),
    step_type=np.asarray(trajectory.step_type, np.int32),
  )
