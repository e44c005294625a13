"""The one-off conversion at the freeze: every stored row of pixels becomes a row of latents.

    pixels_writer.close()
    latents_writer = writers.RowWriter(client, ['latents'], config.latents_layout, ...)
    drain(client, config, encode, latents_writer)
    # The collector appends the next row of the running episode to latents_writer.

It streams: rows leave table `drain` in the order in which they were written, are encoded in batches
and appended to one stream of latents. No more than a few batches are ever in this process, and the
server frees each frame as soon as the last row that shows it has left.
"""

from typing import Callable

import numpy as np
import reverb
import tensorflow as tf

from seer_tf.replay import server, tables, transitions, writers


def drain(
  client: reverb.Client,
  config: tables.ReplayConfig,
  encode: Callable[[tf.Tensor], tf.Tensor],
  writer: writers.RowWriter,
  batch_size: int = 32,
  progress: Callable[[int, int], None] = lambda done, total: None,
  timeout_seconds: float = 60,
) -> int:
  """Converts all of table `drain` into latents, in order, exactly once; empties table `pixels`.

  The writer of pixels must have been closed, which is what puts its last rows into the table, and
  nothing may write pixels meanwhile. Reading is destructive: should this fail, the rows read so far
  that `writer` has not delivered are gone. Rows must be of one stream; the rows of several writers
  would be strung together in the order in which they arrived.

  The writer is neither flushed nor closed, so that blocks and chunks go on without a seam. The rows
  of its last, unfinished block can be sampled only after more rows or its `close`.

  Args:
    client: of the replay server.
    config: what its tables hold.
    encode: frozen lower encoder: observations uint8 [B, h, w, C * frame_stack], oldest frame first
      -> latents float32 [B, K, D]. B is batch_size, and smaller in the last batch.
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
  who = f'Replay server {client.server_address}'
  limit = max(1, int(timeout_seconds))
  info = server.with_limit(lambda: client.server_info(limit), limit + 1, f'{who}, server_info')
  total = info['drain'].current_size
  server.with_limit(lambda: client.reset('pixels'), limit, f'{who}, table pixels, reset')
  progress(0, total)
  if not total:
    return 0

  batches = iter(_batches(client.server_address, config, total, batch_size, limit))
  done = 0
  while done < total:
    what = f'{who}, table drain, {done} of {total} rows converted'
    # A second longer than the server itself waits for rows, which then says so.
    rows = server.with_limit(lambda: next(batches, None), limit + 1, what)
    if rows is None:
      raise TimeoutError(f'{what}: the table holds no more. Has something else read it?')
    latents = np.asarray(encode(rows.observation))
    expected = (len(rows.reward), *config.latents_row.observation.shape)
    if latents.shape != expected:
      raise ValueError(f'encode returned latents of shape {latents.shape}; expected {expected}.')
    columns = rows._replace(observation=latents)
    for row in zip(*(np.asarray(column) for column in columns)):
      writer.append(tables.Row(*row))
    done += expected[0]
    progress(done, total)
  return done


def _batches(address, config, total, batch_size, timeout_seconds) -> tf.data.Dataset:
  """Own rows with their frame stacks, in order: Rows of arrays [B, ...]."""
  spec = tables.window_spec(config.pixels_row, config.pixels_layout)
  # One sample in flight: if several travel in one message, Reverb's server (0.14) never frees the
  # data of those that this reading deletes, and memory would not fall. It costs no speed here.
  samples = tables.windows(address, 'drain', spec, 1, timeout_seconds, max_samples=total)

  def own_rows(sample):
    rows = tables.unpack(sample.data, config.pixels_row)
    position = tf.fill([tf.shape(rows.reward)[0]], config.pixels_layout.history)
    indices = transitions.stack_indices(rows.step_type, position, config.frame_stack)
    own = tables.Row(*(column[:, config.pixels_layout.history] for column in rows))
    return own._replace(observation=transitions.stack_frames(rows.observation, indices))

  # Reading and stacking the next batch goes on while this one is encoded.
  return samples.batch(batch_size).map(own_rows).prefetch(1)
