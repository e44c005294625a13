r"""Bytes per row and rates of replay, by codec, block and chunk length: prints a JSON line each.

    python -m studies.codecs_data --dir=/tmp/codecs …
    python -m studies.codecs --dir=/tmp/codecs --what=control,atari > rows.jsonl

Bytes are the growth of a replay server's resident memory, trimmed, divided by the rows written.
Rates count both processes' work; pin them with taskset to compare rows.
"""

import itertools
import json
import os
import subprocess
import sys
import time

from absl import app, flags
import numpy as np
import reverb
import tensorflow as tf

from seer_tf.replay import codecs, tables, transitions

_DIR = flags.DEFINE_string('dir', None, 'Where codecs_data wrote its files.')
_WHAT = flags.DEFINE_list('what', ['control'], 'control, atari, masks, pixels')
_ROWS = flags.DEFINE_integer('rows', 20000, 'Rows of latents to write.')
_PIXEL_ROWS = flags.DEFINE_integer('pixel_rows', 2000, 'Rows of pixels to write.')
_SECONDS = flags.DEFINE_float('seconds', 2, 'Of sampling, each.')


# Prints the port; trims and says so for each line of standard input.
_SERVER = """
import ctypes, sys
import reverb

def table(name, sampler):
  limiter, oldest = reverb.rate_limiters.MinSize(1), reverb.selectors.Fifo()
  return reverb.Table(name, sampler, oldest, max_size=10**6, rate_limiter=limiter)

selectors = reverb.selectors
server = reverb.Server([table('rows', selectors.Uniform()), table('twin', selectors.Fifo())])
print(server.port, flush=True)
for _ in sys.stdin:
  ctypes.CDLL('libc.so.6').malloc_trim(0)
  print('trimmed', flush=True)
"""


class Server:
  """A server of tables `rows` and `twin` without signatures, in a process of its own."""

  def __enter__(self):
    command = [sys.executable, '-c', _SERVER]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    self._child = subprocess.Popen(command, text=True, **pipes)
    self.address = f'localhost:{self._child.stdout.readline().strip()}'
    self.empty = self.resident()
    return self

  def resident(self) -> int:
    """Resident bytes after trimming, once they have come to rest."""
    before, now = 0, self._trimmed()
    while abs(now - before) > 0.001 * now:
      time.sleep(0.5)
      before, now = now, self._trimmed()
    return now

  def _trimmed(self):
    self._child.stdin.write('\n')
    self._child.stdin.flush()
    self._child.stdout.readline()
    with open(f'/proc/{self._child.pid}/statm', encoding='ascii') as statm:
      return int(statm.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')

  def cpu_seconds(self) -> float:
    """Seconds of CPU that the server and this process have used."""
    with open(f'/proc/{self._child.pid}/stat', encoding='ascii') as stat:
      ticks = stat.read().rpartition(')')[2].split()[11:13]  # in user and in kernel mode
    return sum(map(int, ticks)) / os.sysconf('SC_CLK_TCK') + time.process_time()

  def __exit__(self, *_):
    self._child.stdin.close()
    self._child.wait()


class Masked(codecs.Uint8):
  """Rejected: a mask of the codes that are not 0, and these moved to the front. Encodes only."""

  def encode(self, latents):
    """Mask and codes, uint8 [..., K, D / 8 + D]."""
    codes = super().encode(latents)
    front = np.argsort(codes == 0, axis=-1, kind='stable')
    mask = np.packbits(codes != 0, axis=-1)
    return np.concatenate([mask, np.take_along_axis(codes, front, -1)], axis=-1)


def _unordered(codec):
  """The codec with its dimensions in their own order."""
  codec.restore(
    codec.state[: -4 * codec.latent_shape[1]]
    + np.arange(codec.latent_shape[1], dtype=np.int32).tobytes()
  )
  return codec


def _load(name):
  with np.load(os.path.join(_DIR.value, f'{name}.npz')) as stored:
    return tables.Row(**{key: stored[key] for key in stored.files})


def _row_spec(rows, stored):
  """Specs of one row whose observations are `stored`."""
  arrays = rows._replace(observation=stored, number=np.zeros(len(stored), np.int64))
  return tables.Row(*(
    tf.TensorSpec(array.shape[1:], array.dtype, name) for name, array in arrays._asdict().items()
  ))  # fmt: skip


def _write(client, layout, chunks, columns, rows, names=('rows',)):
  """Writes rows of columns (cycled) and items of `layout`; returns rows/s."""
  keep = max(layout.window, *chunks)
  writer = client.trajectory_writer(num_keep_alive_refs=keep)
  for name, chunk in zip(columns, chunks):
    writer.configure((name,), num_keep_alive_refs=keep, max_chunk_length=chunk)
  pending = len(names) * -(-max(chunks) // layout.block_length)
  start = time.perf_counter()
  for i in range(rows):
    writer.append({name: column[i % len(column)] for name, column in columns.items()})
    done = i + 1 - layout.window
    if done >= 0 and done % layout.block_length == 0:
      window = {name: column[-layout.window :] for name, column in writer.history.items()}
      for name in names:
        writer.create_item(name, 1.0, window)
    if i % 8 == 7:
      writer.flush(pending)
  writer.flush()
  writer.close()
  return rows / (time.perf_counter() - start)


def _packed(rows, stored):
  """uint8 [N, bytes]: all fields but the observation."""
  number = np.arange(len(stored))
  rest = [field.reshape(len(stored), -1) for field in (*rows[1:5], number)]
  return np.concatenate([np.ascontiguousarray(field).view(np.uint8) for field in rest], axis=1)


def _rate(server, layout, columns, batch_size, draws, build):
  """(transitions/s, microseconds of CPU in both processes per transition) of sampling.

  Of what comes out of `build(sampled columns, position)`, after a second's start.
  """
  shapes = {name: tf.TensorShape([layout.window, *c.shape[1:]]) for name, c in columns.items()}
  windows = reverb.TrajectoryDataset(
    server.address,
    'rows',
    dtypes={name: tf.as_dtype(column.dtype) for name, column in columns.items()},
    shapes=shapes,
    max_in_flight_samples_per_worker=-(-2 * batch_size // draws),
    num_workers_per_iterator=1,
  )

  def draw(sample):
    drawn = []
    for _ in range(draws):
      own = tf.random.uniform([batch_size], 0, layout.block_length, tf.int32)
      drawn.append(build(sample.data, layout.history + own))
    batch, valid = tf.nest.map_structure(lambda *leaves: tf.concat(leaves, 0), *drawn)
    return tf.nest.map_structure(lambda leaf: leaf[valid], batch)

  batches = iter(
    windows.batch(batch_size, True).map(draw).rebatch(batch_size, drop_remainder=True).prefetch(2)
  )
  start = time.perf_counter()
  while time.perf_counter() < start + 1:
    next(batches)
  start, count, cpu = time.perf_counter(), 0, server.cpu_seconds()
  while time.perf_counter() < start + _SECONDS.value:
    next(batches)
    count += batch_size
  cpu = server.cpu_seconds() - cpu
  return round(count / (time.perf_counter() - start)), round(1e6 * cpu / count, 1)


def latents(name, codec, n_step, batch_size, block, chunk, merged, sample=True, **labels):
  """Measures one layout of one codec; prints a line."""
  rows = _load(name)
  codec = codec(rows.observation.shape[1:])
  if codec.needs_calibration:
    codec.calibrate(rows.observation)
    if labels.get('order') is False:
      _unordered(codec)
  start = time.perf_counter()
  stored = np.stack([codec.encode(row) for row in rows.observation])
  encode_us = 1e6 * (time.perf_counter() - start) / len(stored)
  spec, rest = _row_spec(rows, stored), _packed(rows, stored)
  layout, chunks = tables.Layout(0, block, n_step, chunk), (chunk, max(chunk, 64))
  columns = {'observation': stored, 'rest': rest}
  observation_bytes = stored[0].nbytes
  if merged:
    flat = np.ascontiguousarray(stored.reshape(len(stored), -1)).view(np.uint8)
    columns, chunks = {'row': np.concatenate([flat, rest], axis=1)}, (chunk,)

  def build(data, position):
    if merged:
      observed = data['row'][..., :observation_bytes]
      width = [] if spec.observation.dtype.size == 1 else [spec.observation.dtype.size]
      shape = tf.concat([tf.shape(observed)[:2], spec.observation.shape, width], 0)
      observed = tf.bitcast(tf.reshape(observed, shape), spec.observation.dtype)
      observed = tf.ensure_shape(observed, [None, None, *spec.observation.shape])
      data = {'observation': observed, 'rest': data['row'][..., observation_bytes:]}
    unpacked = tables.unpack(tables.StoredRow(**data), spec)
    transition, valid = transitions.latents_transition(unpacked, position, n_step, 0.99)
    decode = lambda step: step._replace(observation=codec.decode(step.observation))
    return transition._replace(
      time_step=decode(transition.time_step), next_time_step=decode(transition.next_time_step)
    ), valid

  with Server() as server:
    client = reverb.Client(server.address)
    insert = _write(client, layout, chunks, columns, _ROWS.value)
    held = (server.resident() - server.empty) / _ROWS.value
    rates = {}
    for draws in (1, 4) if sample else ():
      rate, cpu = _rate(server, layout, columns, batch_size, draws, build)
      rates[f'transitions_per_second_draws_{draws}'] = rate
      rates[f'cpu_us_per_transition_draws_{draws}'] = cpu
  _emit(data=name, codec=type(codec).__name__, n_step=n_step, block_length=block,
        chunk_length=chunk, merged=merged, **labels, bytes_per_row=round(held, 1),
        insert_rows_per_second=round(insert), encode_us=round(encode_us, 1),
        batch_size=batch_size, **rates, rows=_ROWS.value)  # fmt: skip


def pixels(name, frame_stack, n_step, batch_size, how, block, chunk):
  """Measures frames, as they are, with Reverb's delta encoding, or less a reference frame.

  Every item is also one of the twin from which a drain would read.
  """
  rows = _load(name)
  frames = rows.observation
  reference = np.median(frames[::10], axis=0).astype(np.uint8)
  if how == 'reference':
    rows = rows._replace(observation=frames - reference)
  spec, rest = _row_spec(rows, frames), _packed(rows, frames)
  layout = tables.Layout(frame_stack - 1, block, n_step, chunk)
  columns = {'observation': rows.observation, 'rest': rest}

  def build(data, position):
    unpacked = tables.unpack(tables.StoredRow(**data), spec)
    if how == 'reference':
      unpacked = unpacked._replace(observation=unpacked.observation + reference)
    return transitions.pixels_transition(unpacked, position, frame_stack, n_step, 0.99)

  with Server() as server:
    client = reverb.Client(server.address)
    if how == 'delta':
      start = time.perf_counter()
      longest = max(layout.window, chunk)
      with client.writer(longest, delta_encoded=True, chunk_length=chunk) as writer:
        for i in range(_PIXEL_ROWS.value):
          writer.append({key: column[i % len(frames)] for key, column in columns.items()})
          done = i + 1 - layout.window
          if done >= 0 and done % block == 0:
            for table in ('rows', 'twin'):
              writer.create_item(table, layout.window, 1.0)
      insert = _PIXEL_ROWS.value / (time.perf_counter() - start)
    else:
      chunks = (chunk, max(chunk, 16))
      insert = _write(client, layout, chunks, columns, _PIXEL_ROWS.value, ('rows', 'twin'))
    held = (server.resident() - server.empty) / _PIXEL_ROWS.value
    rate, cpu = _rate(server, layout, columns, batch_size, 1, build)
  _emit(
    data=name,
    how=how,
    tables=2,
    frame_stack=frame_stack,
    n_step=n_step,
    block_length=block,
    chunk_length=chunk,
    bytes_per_row=round(held, 1),
    insert_rows_per_second=round(insert),
    batch_size=batch_size,
    transitions_per_second=rate,
    cpu_us_per_transition=cpu,
    rows=_PIXEL_ROWS.value,
  )


def _emit(**figures):
  print(json.dumps(figures), flush=True)


_LAYOUTS = [  # block length, chunk length, one column
  *((16, 8, False), (32, 8, False), (32, 32, False), (64, 64, False), (32, 16, False)),
  *((16, 8, True), (32, 32, True), (64, 64, True)),
]


def main(_):
  """Measures what was asked for."""
  floats = [(16, 8, False), (32, 32, False)]
  for what in _WHAT.value:
    domain = {'control': ('cartpole_trained', 1, 128), 'atari': ('Freeway_trained', 20, 32)}
    if what in domain:
      name, n_step, batch_size = domain[what]
      for layout in _LAYOUTS:
        latents(name, codecs.Uint8, n_step, batch_size, *layout)
      for codec, layout in itertools.product((codecs.Float16, codecs.Float32), floats):
        latents(name, codec, n_step, batch_size, *layout)
    elif what == 'masks':
      for name in ('Freeway_trained', 'Seaquest_initial', 'Pong_initial', 'cartpole_trained'):
        latents(name, codecs.Uint8, 1, 32, 32, 32, False, False, order=False)
        latents(name, codecs.Uint8, 1, 32, 32, 32, False, False, order=True)
        latents(name, Masked, 1, 32, 32, 32, False, False, order=False)
    elif what == 'pixels':
      control, atari = ('cartpole_frames', 3, 1, 128), ('Freeway_frames', 4, 20, 32)
      for frames, block, chunk in (
        *((control, 1, 8), (atari, 1, 8), (control, 4, 8), (atari, 8, 8), (control, 1, 32)),
        *((atari, 1, 32), (atari, 4, 8), (control, 1, 16), (control, 1, 64), (atari, 1, 64)),
      ):
        for how in ('plain', 'delta', 'reference'):
          pixels(*frames, how, block, chunk)


if __name__ == '__main__':
  app.run(main)
