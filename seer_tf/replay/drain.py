"""The one-off conversion at the freeze: every stored row of pixels becomes a row of latents.

    pixels_writer.close()
    latents_writer = writers.RowWriter(client, ['latents'], config.latents_layout, ...)
    drain(client, config, numbers, encode, latents_writer)
    # The collector appends the next row of the running episode to latents_writer.

It streams: rows leave table `drain` in the order in which they were written, are encoded in batches
and appended to one stream of latents; reading, encoding and writing go on side by side. No more
than a few batches are ever in this process, and the server frees each frame as soon as the last row
that shows it has left.
"""

from concurrent import futures
from typing import Callable

import numpy as np
import reverb
import tensorflow as tf

from seer_tf.replay import server, tables, transitions, writers


def drain(
  client: reverb.Client,
  config: tables.ReplayConfig,
  numbers: range,
  encode: Callable[[tf.Tensor], tf.Tensor],
  writer: writers.RowWriter,
  batch_size: int = 32,
  progress: Callable[[int, int], None] = lambda done, total: None,
  timeout_seconds: float = 60,
) -> int:
  """Converts rows of table `drain` into latents, in order, exactly once; empties table `pixels`.

  The writer of pixels must have been closed, which is what puts its last rows into the table, and
  nothing may write pixels meanwhile. Reading is destructive: should this fail, the rows read so far
  that `writer` has not delivered are gone. Rows must be of one stream.

  The writer is neither flushed nor closed, so that blocks and chunks go on without a seam. The rows
  of its last, unfinished block can be sampled only after more rows or its `close`. Rows keep their
  numbers.

  Args:
    client: of the replay server.
    config: what its tables hold.
    numbers: of the rows that table `pixels` holds (the first one is what a server publishes);
      earlier ones are passed over.
    encode: frozen lower encoder, then codec: observations uint8 [B, h, w, C * frame_stack], oldest
      frame first -> stored latents [B, K, D]. B is batch_size, and smaller in the last batch.
    writer: of table `latents`.
    batch_size: observations encoded together.
    progress: called with (rows converted, rows in all), before the first batch and after each.
    timeout_seconds: limit of each single wait for the server.

  Returns:
    Rows converted, LAST rows included.

  Raises:
    TimeoutError: if the server does not answer in time; names it, the table and the counts.
    ValueError: if `encode` returns another shape.
  """
  who, limit = f'Replay server {client.server_address}', max(1, int(timeout_seconds))
  info = server.with_limit(lambda: client.server_info(limit), limit + 1, f'{who}, server_info')
  items = info['drain'].current_size
  server.with_limit(lambda: client.reset('pixels'), limit, f'{who}, table pixels, reset')
  total = len(numbers)
  progress(0, total)
  if not total:
    return 0

  def write(rows):
    writer.extend(rows)
    return len(rows.number)

  batches = iter(_batches(client.server_address, config, items, numbers, batch_size, limit))
  read = done = 0
  writing = futures.Future()
  writing.set_result(0)
  with futures.ThreadPoolExecutor(1) as thread:
    while read < total:
      what = f'{who}, table drain, {read} of {total} rows read, {done} converted'
      # A second longer than the server itself waits for rows, which then says so.
      rows = server.with_limit(lambda: next(batches, None), limit + 1, what)
      if rows is None:
        raise TimeoutError(f'{what}: the table holds no more. Has something else read it?')
      latents = np.asarray(encode(rows.observation))
      expected = (len(rows.number), *config.latents_row.observation.shape)
      if latents.shape != expected:
        raise ValueError(f'encode returned latents of shape {latents.shape}; expected {expected}.')
      read += expected[0]
      done += writing.result()
      progress(done, total)
      columns = rows._replace(observation=latents)
      writing = thread.submit(write, tables.Row(*map(np.asarray, columns)))
    done += writing.result()
  progress(done, total)
  return done


def _batches(address, config, items, numbers, batch_size, timeout_seconds) -> tf.data.Dataset:
  """Rows of these numbers with their frame stacks, in order: Rows of arrays [B, ...]."""
  layout, row = config.drain_layout, config.pixels_row
  # One sample in flight: if several travel in one message, Reverb's server (0.14) never frees the
  # data of those that this reading deletes, and memory would not fall. It costs no speed here.
  spec = tables.window_spec(row, layout)
  samples = tables.windows(address, 'drain', spec, 1, timeout_seconds, max_samples=items)

  def own_rows(sample):
    """Those of one block that are wanted."""
    rows = tables.unpack(sample.data, row)
    wanted = (rows.number >= numbers.start) & (rows.number < numbers.stop)
    position = tf.where(wanted & (tf.range(layout.window) >= layout.history))[:, 0]
    step_type = tf.repeat(rows.step_type[tf.newaxis], tf.size(position), axis=0)
    indices = transitions.stack_indices(step_type, position, config.frame_stack)
    own = tables.Row(*(tf.gather(column, position) for column in rows))
    stacks = transitions.as_stacks(tf.gather(rows.observation, indices))
    return own._replace(observation=stacks)

  return samples.map(own_rows).rebatch(batch_size).prefetch(2)
