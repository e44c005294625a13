"""From a replay table to batches of transitions, for pixels and latents alike."""

import functools
import queue
import threading
import time
from typing import Callable, Optional

import numpy as np
import reverb
import tensorflow as tf

from seer_tf.replay import priorities, tables, transitions

# Limit of the question to a server that failed to deliver, how many items it holds.
_INFO_TIMEOUT_SECONDS = 3


def make_dataset(
  server_address: str,
  table: str,
  config: tables.ReplayConfig,
  batch_size: int,
  gamma: float,
  seed: Optional[int] = None,
  timeout_seconds: float = 60,
  draws_per_window: int = 1,
  decode: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
  max_in_flight: Optional[int] = None,
  prefetch: int = 2,
  waited: Callable[[float], None] = lambda seconds: None,
) -> tf.data.Dataset:
  """An endless dataset of `(Transition, ())`, each stored transition as likely as any other.

  If the configuration says that replay is prioritised, of `(Transition, priorities.Drawn)`, each
  stored transition as likely as its priority makes it; what follows is about uniform replay.

  Windows are sampled uniformly, and of each window an own row, uniformly over all `block_length`
  of them. Rows that start no transition (LAST, PADDING, the write head) are then dropped and the
  rest is batched anew, which leaves every start equally likely whatever the length of episodes and
  however full a block is. (Drawing among a window's valid rows only would favour those of windows
  with few of them.)

  A window costs the two processes about 0.1 ms of CPU, and hardly anything is spent after it has
  arrived: so `draws_per_window` of 2 halves the cost of sampling. Transitions stay equally likely,
  but those from one window are neighbours in time and appear in the same few batches.

  Not guaranteed: repeatability. `seed` fixes which row and crop of a window are drawn; which
  windows come is the server's choice, and it seeds itself. About `max_in_flight` windows and
  `prefetch` batches are drawn ahead of their use: at a switch of tables drop the old iterator
  before the table is reset, and start a new one.

  Args:
    server_address: 'host:port' of the replay server.
    table: 'pixels' or 'latents'.
    config: the server's configuration.
    batch_size: B, of every batch.
    gamma: discount per agent step; it enters the returns and the next time step's discount.
    seed: of the draws on this side; None for any.
    timeout_seconds: longest wait for one batch.
    draws_per_window: transitions drawn, independently, from one sampled window.
    decode: of the codec that wrote the latents, in the graph; not called for pixels.
    max_in_flight: windows asked for ahead; twice those of a batch if None.
    prefetch: batches prepared ahead.
    waited: called with the seconds for which the reader had to wait for a batch, each time.

  Returns:
    Dataset of `trajectory.Transition`s, with () or `Drawn`, as `transitions.pixels_transition` and
    `transitions.latents_transition` make them; observations uint8 [B, H, W, C * frame_stack] or
    float32 [B, D]. When no batch comes in time (the server is gone or hangs, the table is empty or
    holds nothing that starts a transition) the iterator raises a `tf.errors.OpError` whose message
    names server, table and counts; it never just ends.

  Raises:
    ValueError: if the table holds no transitions, or fewer own rows than draws.
  """
  row, layout, build = _parts(table, config, gamma, decode)
  if not 1 <= draws_per_window <= layout.block_length:
    raise ValueError(
      f'draws_per_window is {draws_per_window}; a window of table {table} holds '
      f'{layout.block_length} own rows, so give 1 to {layout.block_length}.'
    )

  # One seed for each random operation: with equal seeds two of them draw equal numbers, so that a
  # row's place in its block would decide its crop.
  row_seeds, crop_seeds, (order_seed,) = np.split(
    np.random.SeedSequence(seed).generate_state(2 * draws_per_window + 1),
    [draws_per_window, 2 * draws_per_window],
  )

  def how_drawn(sample, rows):
    """`Drawn` of windows [B, ...] with one own row each, but for the table; () if uniform."""
    if not config.prioritised:
      return ()
    info, number = sample.info, rows.number[:, layout.history]
    return priorities.Drawn((), info.key, number, info.probability, info.table_size)

  def draw(sample):
    """Transitions [<= draws_per_window * B, ...] from windows [B, ...], in random order."""
    rows, drawn = tables.unpack(sample.data, row), []
    for row_seed, crop_seed in zip(row_seeds, crop_seeds):
      own = tf.random.uniform([batch_size], 0, layout.block_length, tf.int32, int(row_seed))
      batch, valid = build(rows, layout.history + own, int(crop_seed))
      drawn.append(((batch, how_drawn(sample, rows)), valid))
    batch, valid = tf.nest.map_structure(lambda *leaves: tf.concat(leaves, 0), *drawn)
    chosen = tf.random.shuffle(tf.where(valid)[:, 0], int(order_seed))
    return tf.nest.map_structure(lambda leaf: tf.gather(leaf, chosen), batch)

  windows = tables.windows(
    server_address,
    table,
    tables.window_spec(row, layout),
    max_in_flight or -(-2 * batch_size // draws_per_window),
    timeout_seconds,
  )
  batches = windows.batch(batch_size, drop_remainder=True).map(draw)
  batches = batches.rebatch(batch_size, drop_remainder=True)
  if config.prioritised:
    batches = batches.map(lambda batch, drawn: (batch, drawn._replace(table=tf.constant(table))))
  describe = functools.partial(_describe, server_address, table, batch_size, timeout_seconds)
  return _within(timeout_seconds, batches, prefetch, describe, waited)


def _parts(table, config, gamma, decode):
  """Row spec, layout and builder (windows, position, seed) -> (Transition, valid) of a table."""

  def pixels(rows, position, seed):
    del seed  # frames are cropped by the agent
    return transitions.pixels_transition(
      rows, position, frame_stack=config.frame_stack, n_step=config.n_step, gamma=gamma
    )

  def latents(rows, position, seed):
    return transitions.latents_transition(
      rows, position, n_step=config.n_step, gamma=gamma, seed=seed, decode=decode
    )

  if table == 'pixels':
    return config.pixels_row, config.pixels_layout, pixels
  if table == 'latents':
    return config.latents_row, config.latents_layout, latents
  raise ValueError(f'Table {table!r} holds no transitions to sample; give pixels or latents.')


def _describe(server_address, table, batch_size, timeout_seconds, batches: int) -> str:
  """Why no batch came, as far as the server can still tell."""
  try:
    info = reverb.Client(server_address).server_info(timeout=_INFO_TIMEOUT_SECONDS).get(table)
  except (reverb.errors.ReverbError, RuntimeError):
    state = 'the server does not answer; is it running?'
  else:
    state = 'the server has no such table.'
    if info is not None:
      state = (
        f'the table holds {info.current_size} items (capacity {info.max_size}); '
        'is a writer running, and has it flushed a row that starts a transition?'
      )
  return (
    f'Replay server {server_address}, table {table}: no batch of {batch_size} transitions within '
    f'{timeout_seconds} s, after {batches} batches; {state}'
  )


def _within(
  timeout_seconds: float,
  dataset: tf.data.Dataset,
  prefetch: int,
  describe: Callable[[int], str],
  waited: Callable[[float], None],
) -> tf.data.Dataset:
  """`dataset`, but an element that does not come in time, or an end, is an error.

  Reverb's dataset ends without a word when the rate limiter's time is up, and waits for ever for a
  server that is gone, some of that while its iterator is made. Only a second thread can give up
  waiting for it. That thread also reads ahead: with `Dataset.prefetch` behind this one, dropping
  the iterator could take the whole limit.

  Args:
    timeout_seconds: limit of each wait.
    dataset: what to read.
    prefetch: elements to read ahead.
    describe: gives the error's message from the number of elements that had come before.
    waited: called with the seconds of each wait.
  """

  def elements():
    wanted, ready = queue.SimpleQueue(), queue.SimpleQueue()
    # A daemon, as it may be stuck in Reverb for ever when this generator has long given up.
    reader = (dataset, wanted, ready)
    threading.Thread(target=_fetch, args=reader, name='replay-reader', daemon=True).start()
    for _ in range(prefetch):
      wanted.put(True)
    count = 0
    try:
      while True:
        wanted.put(True)
        start = time.perf_counter()
        try:
          element, error = ready.get(timeout=timeout_seconds)
        except queue.Empty:
          element, error = None, None
        waited(time.perf_counter() - start)
        if error is not None:
          raise error
        if element is None:
          raise TimeoutError(describe(count))
        yield element
        count += 1
    finally:
      wanted.put(False)

  options = tf.data.Options()
  options.experimental_optimization.inject_prefetch = False
  limited = tf.data.Dataset.from_generator(elements, output_signature=dataset.element_spec)
  return limited.with_options(options)


def _fetch(dataset, wanted, ready):
  """Puts (element, error) into `ready` for each True in `wanted`; (None, None) at the end."""
  iterator = None
  while wanted.get():
    try:
      if iterator is None:
        iterator = iter(dataset)
      ready.put((next(iterator, None), None))
    except Exception as error:  # whatever it is, the generator raises it
      ready.put((None, error))
