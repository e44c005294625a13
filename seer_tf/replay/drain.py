"""The one-off conversion at the freeze: every stored row of pixels becomes a row of latents.

    pixels_writer.close()
    latents_writer = writers.RowWriter(client, ['latents'], config.latents_layout, ...)
    drain(client, config, numbers, encode, lambda stream: latents_writer)
    # The collector appends the next row of the running episode to latents_writer.

It streams: rows leave table `drain` in the order in which they came in, are encoded in batches and
appended to the latents of their stream; reading, encoding and writing go on side by side. No more
than a few batches are ever in this process, and the server frees each frame as soon as the last row
that shows it has left.
"""

from concurrent import futures
from typing import Callable, Optional

import numpy as np
import reverb
import tensorflow as tf
from tensorflow.python.eager import cancellation  # TensorFlow exports no way to cancel an op

from seer_tf.replay import server, tables, transitions, writers


def drain(
  client: reverb.Client,
  config: tables.ReplayConfig,
  wanted: Optional[range],
  encode: Callable[[tf.Tensor], tf.Tensor],
  writer_of: Callable[[int], writers.RowWriter],
  batch_size: int = 32,
  progress: Callable[[int, int], None] = lambda done, total: None,
  timeout_seconds: float = 60,
) -> int:
  """Converts rows of table `drain` into latents, in order, exactly once; empties table `pixels`.

  Where rows of a stream are missing, because a server was lost that had acknowledged them, another
  writer goes on: no item of latents has rows of both sides of the gap.

  Writers of pixels must have been closed, which is what puts their last rows into the table, and
  nothing may write pixels meanwhile. Reading is destructive: should this fail, the rows read so far
  that the writers of latents have not delivered are gone.

  These are neither flushed nor closed, so that blocks and chunks go on without a seam. The rows of
  a writer's last, unfinished block can be sampled only after more rows or its `close`. Rows keep
  their numbers, and frame stacks and latents' windows never mix streams.

  Args:
    client: of the replay server.
    config: what its tables hold.
    wanted: numbers of the rows that table `pixels` holds, if these are of one stream (the first one
      is what a server publishes); earlier ones are passed over. None: all rows of all streams. Some
      of them `pixels` has just evicted: as a rule no more than a block of table `drain` per stream.
    encode: frozen lower encoder, then codec: observations uint8 [B, h, w, C * frame_stack], oldest
      frame first -> stored latents [B, K, D]. B is batch_size, and smaller in the last batch. Rows
      of a batch may be of several streams.
    writer_of: opens the writer of table `latents` for a stream; called here, in this thread, at the
      first row of the stream and at the first one behind each gap.
    batch_size: observations encoded together.
    progress: called with (rows converted, rows in all), before the first batch and after each. Of
      several streams the last blocks need not be full: the second is then what there are at most,
      and exact in the end.
    timeout_seconds: limit of each single wait for the server.

  Returns:
    Rows converted, LAST rows included.

  Raises:
    TimeoutError: if the server does not answer in time; names it, the table and the counts.
    ReplayServerError: if it does not answer when its table is opened for reading; end this process
      then, which has begun to wait for what it must not read any more.
    ValueError: if `encode` returns another shape.
  """
  who, limit = f'Replay server {client.server_address}', max(1, int(timeout_seconds))
  info = server.with_limit(lambda: client.server_info(limit), limit + 1, f'{who}, server_info')
  items = info['drain'].current_size
  server.with_limit(lambda: client.reset('pixels'), limit, f'{who}, table pixels, reset')
  total = items * config.drain_layout.block_length if wanted is None else len(wanted)
  progress(0, total)
  if not total:
    return 0

  batches = _batches(client.server_address, config, items, wanted, batch_size, limit)
  items_read = read = done = 0
  streams, reader = _Streams(writer_of), _opened(batches, limit, f'{who}, table drain')
  writing = futures.Future()
  writing.set_result(0)
  with reader, futures.ThreadPoolExecutor(1) as thread:
    while items_read < items if wanted is None else read < total:
      what = f'{who}, table drain, {read} of {total} rows read, {done} converted'
      # Longer than the server itself waits for rows, which then says so.
      batch = server.with_limit(reader.next, limit + 5, what)
      if batch is None:
        raise TimeoutError(f'{what}: the table holds no more. Has something else read it?')
      rows, ends_item = batch
      latents = np.asarray(encode(rows.observation))
      expected = (len(rows.number), *config.latents_row.observation.shape)
      if latents.shape != expected:
        raise ValueError(f'encode returned latents of shape {latents.shape}; expected {expected}.')
      read += expected[0]
      items_read += np.count_nonzero(ends_item)
      done += writing.result()
      progress(done, total)
      columns = tables.Row(*map(np.asarray, rows._replace(observation=latents)))
      writing = thread.submit(_write, streams.parts(columns))
    done += writing.result()
  progress(done, done)
  return done


def _opened(batches: tf.data.Dataset, limit: int, what: str) -> '_Reader':
  """A reader, for which Reverb asks the server again, and may wait for ever.

  Raises:
    ReplayServerError: if that takes too long.
  """
  try:
    return server.with_limit(lambda: _Reader(batches), limit, what)
  except TimeoutError as error:
    # Nothing ends that wait but this process, and it would read, and so delete, rows of a server
    # that goes on, or takes the place of this one.
    raise server.ReplayServerError(
      f'{error} Stop this process and start it again by the same command.'
    ) from error


class _Reader:
  """Iterates over a dataset until its context ends, and surely no longer.

  A reader that merely is forgotten while it waits for a server that is gone would read, and so
  delete, rows of the one that takes its place.
  """

  def __init__(self, dataset: tf.data.Dataset):
    iterator = iter(dataset)
    get_next = tf.function(iterator.get_next_as_optional).get_concrete_function()
    self._cancellation = cancellation.CancellationManager()
    self._get_next = self._cancellation.get_cancelable_function(get_next)

  def next(self):
    """The next element; None behind the last one. May wait for ever."""
    get_next = self._get_next
    optional = get_next()
    return optional.get_value() if optional.has_value() else None

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._cancellation.start_cancel()
    self._get_next = None  # nobody else has the iterator, which reads ahead


class _Streams:
  """Knows who writes the rows of each stream."""

  def __init__(self, writer_of):
    self._writer_of = writer_of
    self._open = {}  # stream -> (writer, number of the row that follows)

  def parts(self, rows):
    """(writer, its rows in order), in the order in which they are to be written."""
    streams = tables.stream_of(rows.number)
    parts = []
    for stream in np.unique(streams).tolist():
      own = np.flatnonzero(streams == stream)
      gaps = 1 + np.flatnonzero(np.diff(rows.number[own]) != 1)
      for run in np.split(own, gaps):
        writer, following = self._open.get(stream, (None, None))
        if rows.number[run[0]] != following:
          writer = self._writer_of(stream)
        self._open[stream] = writer, rows.number[run[-1]] + 1
        parts.append((writer, tables.Row(*(column[run] for column in rows))))
    return parts


def _write(parts) -> int:
  """Appends rows to their writers; returns how many."""
  for writer, rows in parts:
    writer.extend(rows)
  return sum(len(rows.number) for _, rows in parts)


def _batches(address, config, items, wanted, batch_size, timeout_seconds) -> tf.data.Dataset:
  """Rows of these numbers with their frame stacks, in order: Rows of arrays [B, ...].

  Beside them, bool [B]: whether the row is the last one of its item.
  """
  layout, row = config.drain_layout, config.pixels_row
  # One sample in flight: if several travel in one message, Reverb's server (0.14) never frees the
  # data of those that this reading deletes, and memory would not fall. It costs no speed here.
  spec = tables.window_spec(row, layout)
  samples = tables.windows(address, 'drain', spec, 1, timeout_seconds, max_samples=items)

  def own_rows(sample):
    """Those of one block that are wanted."""
    rows = tables.unpack(sample.data, row)
    is_wanted = rows.number >= 0  # no padding
    if wanted is not None:
      is_wanted = (rows.number >= wanted.start) & (rows.number < wanted.stop)
    position = tf.where(is_wanted & (tf.range(layout.window) >= layout.history))[:, 0]
    step_type = tf.repeat(rows.step_type[tf.newaxis], tf.size(position), axis=0)
    indices = transitions.stack_indices(step_type, position, config.frame_stack)
    own = tables.Row(*(tf.gather(column, position) for column in rows))
    stacks = transitions.as_stacks(tf.gather(rows.observation, indices))
    ends_item = tf.range(tf.size(position)) == tf.size(position) - 1
    return own._replace(observation=stacks), ends_item

  return samples.map(own_rows).rebatch(batch_size).prefetch(2)
