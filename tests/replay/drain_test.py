"""The conversion, on real servers in other processes: in order, exactly once, without a seam."""

import collections
import contextlib
import dataclasses
import math
import os
import queue
import signal

import hypothesis
from hypothesis import strategies as st
import numpy as np
import psutil
import pytest
import reverb
import tensorflow as tf

from seer_tf.replay import drain as drain_lib
from seer_tf.replay import server, tables, writers

FIRST, MID, LAST = 0, 1, 2
SIDE = 4
CROPS = 2


def make_config(frame_stack=3, n_step=2, block_length=4, capacity=40, **kwargs):
  return tables.ReplayConfig(
    frame_shape=(SIDE, SIDE, 3),
    frame_stack=frame_stack,
    action_shape=(2,),
    action_dtype='float32',
    latent_size=frame_stack,
    stored_crops=CROPS,
    n_step=n_step,
    pixels_capacity=capacity,
    latents_capacity=4000,
    block_length=block_length,
    **kwargs,
  )


def play(config, lengths, seed=0, stream_id=0):
  """Rows of whole episodes, with the observation [h, w, C * stack] a live environment shows.

  Frames are filled with their number in the stream, from 1, and 1000 times the stream's, in base
  256. An episode ends by a terminal or by a time limit, in turn.
  """
  rng = np.random.default_rng(seed)
  stream = []
  for episode, length in enumerate(lengths):
    stack = collections.deque(maxlen=config.frame_stack)
    for t in range(length + 1):
      number = len(stream) + 1 + 1000 * stream_id
      frame = np.full((SIDE, SIDE, 3), (number // 256, number % 256, 7), np.uint8)
      stack.extend([frame] * (config.frame_stack if t == 0 else 1))
      ended = t == length - 1
      row = tables.Row(
        observation=frame,
        action=rng.normal(size=2).astype(np.float32),
        reward=np.float32(rng.normal()),
        discount=np.float32(episode % 2 if ended else 1),
        step_type=np.int32(LAST if t == length else MID if t else FIRST),
        number=np.int64(tables.first_number(stream_id) + len(stream)),
      )
      stream.append((row, np.concatenate(stack, axis=-1)))
  return stream


def encode(observations):
  """The numbers of the stacked frames, oldest first, and once more with a half for crop 1."""
  assert observations.dtype == tf.uint8
  pixel = tf.cast(observations[:, 1, 2], tf.float32)
  numbers = 256 * pixel[:, 0::3] + pixel[:, 1::3]
  return tf.stack([numbers + 0.5 * crop for crop in range(CROPS)], axis=1)


def latents_of(step):
  row, observation = step
  return row._replace(observation=encode(tf.constant(observation[None]))[0].numpy())


def write_pixels(client, config, stream):
  writer = writers.RowWriter.of_table(client, config, 'pixels')
  for row, _ in stream:
    writer.append(row)
  writer.close()
  assert writer.acknowledged == len(stream)


def held_rows(config, stream):
  """Numbers of the rows of a whole stream that table `pixels` still holds."""
  block = config.pixels_block_length
  evicted = max(0, math.ceil(len(stream) / block) - math.ceil(config.pixels_capacity / block))
  return range(evicted * block, len(stream))


def latents_writer(client, config):
  return writers.RowWriter.of_table(client, config, 'latents')


def stored_blocks(client, config):
  """Every item of table `latents`, in the order of its rows."""
  items, size = {}, client.server_info(10)['latents'].current_size
  while len(items) < size:
    for sample in client.sample(
      'latents', 4 * size, emit_timesteps=False, unpack_as_table_signature=True
    ):
      items[sample.info.key] = sample.data  # unpacking each draw would take long
  blocks = [tables.unpack(data, config.latents_row) for data in items.values()]
  return sorted(blocks, key=lambda rows: rows.number[0])


def check_blocks(client, config, *streams):
  """The table holds the expected rows, all of them, once, and each window goes on correctly.

  Streams are lists of rows, the ones with smaller numbers first.
  """
  layout = config.latents_layout
  padding = tables.padding_row(config.latents_row)
  windows = [
    (expected + [padding] * layout.window)[first:][: layout.window]
    for expected in streams
    for first in range(0, len(expected), layout.block_length)
  ]
  blocks = stored_blocks(client, config)
  assert len(blocks) == len(windows)
  for block, window in zip(blocks, windows):
    for name in tables.Row._fields:
      np.testing.assert_array_equal(
        getattr(block, name), np.stack([getattr(row, name) for row in window]), err_msg=name
      )


@hypothesis.example(lengths=[50] * 20, cut=30, config=make_config(capacity=700), batch_size=32)
@hypothesis.settings(
  max_examples=15,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
  lengths=st.lists(st.integers(1, 12), min_size=1, max_size=8),
  cut=st.integers(1, 10),
  config=st.builds(
    make_config,
    frame_stack=st.integers(1, 4),
    n_step=st.integers(1, 4),
    block_length=st.integers(1, 8),
    capacity=st.integers(1, 60),
    pixels_block_length=st.integers(1, 4),
    pixels_chunk_length=st.integers(1, 5),
    latents_chunk_length=st.integers(1, 5),
  ),
  batch_size=st.integers(1, 16),
)
def test_rows_come_out_in_order_exactly_once(replay_servers, lengths, cut, config, batch_size):
  """Drained rows are the acknowledged ones less the evicted oldest; later ones join on."""
  stream = play(config, lengths)
  before, after = stream[:-cut], stream[-cut:]  # the freeze falls anywhere, also before row 1
  address = replay_servers.start(config)
  client = server.connect(address, config)
  write_pixels(client, config, before)
  writer = latents_writer(client, config)
  seen = []
  held = held_rows(config, before)
  converted = drain_lib.drain(
    client,
    config,
    held,
    encode,
    lambda _: writer,
    batch_size,
    lambda *counts: seen.append(counts),
    20,
  )
  kept = before[held.start :]
  # The table holds whole blocks, of which the last need not be full.
  capacity, block = config.pixels_capacity, config.pixels_block_length
  assert abs(len(kept) - min(len(before), capacity)) < block
  assert converted == len(kept) == writer.rows
  done = [0, *range(0, len(kept), batch_size), len(kept)]
  assert seen == [(count, len(kept)) for count in (done if kept else [0])]
  assert client.server_info(10)['drain'].current_size == 0
  assert client.server_info(10)['pixels'].current_size == 0
  for step in after:
    writer.append(latents_of(step))
  writer.close()
  check_blocks(client, config, [latents_of(step) for step in kept + after])
  replay_servers.stop(address)


@hypothesis.settings(
  max_examples=8,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
  lengths=st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=8), min_size=1, max_size=4),
  order=st.randoms(use_true_random=False),
  config=st.builds(
    make_config,
    n_step=st.integers(1, 3),
    block_length=st.integers(1, 8),
    capacity=st.integers(10, 300),
    pixels_block_length=st.integers(1, 4),
  ),
  batch_size=st.integers(1, 40),
)
def test_streams_are_converted_side_by_side(replay_servers, lengths, order, config, batch_size):
  """Each row once, to the writer of its stream, in order; a full table has dropped first ones."""
  streams = {i: play(config, ends, i, i) for i, ends in enumerate(lengths, start=3)}
  address = replay_servers.start(config)
  client = server.connect(address, config)
  turns = [stream for stream, steps in streams.items() for _ in steps]
  order.shuffle(turns)
  open_writers, steps_left = {}, {stream: list(steps) for stream, steps in streams.items()}
  for stream in turns:
    if stream not in open_writers:
      padding = tables.padding_row(config.pixels_row)
      open_writers[stream] = writers.RowWriter(client, config.pixels_layouts, padding)
    open_writers[stream].append(steps_left[stream].pop(0)[0])
    if not steps_left[stream]:
      open_writers[stream].close()
  items = client.server_info(10)['drain'].current_size
  latents, seen = {}, []

  def writer_of(stream):
    if stream not in latents:
      latents[stream] = latents_writer(client, config)
    return latents[stream]

  converted = drain_lib.drain(
    client, config, None, encode, writer_of, batch_size, lambda *counts: seen.append(counts), 20
  )
  for writer in latents.values():
    writer.close()
  assert converted == sum(writer.rows for writer in latents.values())
  assert seen[0] == (0, items * config.drain_layout.block_length)
  assert seen[-1] == (converted, converted) and seen[0][1] >= converted
  assert converted == len(turns) or items == client.server_info(10)['drain'].max_size
  kept = [streams[stream][-latents[stream].rows :] for stream in sorted(latents)]
  check_blocks(client, config, *([latents_of(step) for step in steps] for steps in kept))
  assert client.server_info(10)['drain'].current_size == 0
  assert client.server_info(10)['pixels'].current_size == 0
  replay_servers.stop(address)


def test_items_of_several_streams_taken_by_someone_else_are_noticed(replay_servers):
  config = make_config(capacity=1000)
  client = server.connect(replay_servers.start(config), config)
  write_pixels(client, config, play(config, [799], stream_id=1))

  def encode_less(observations):
    client.reset('drain')
    return encode(observations)

  writer = latents_writer(client, config)
  with pytest.raises(TimeoutError, match='of 800 rows read.* something else'):
    drain_lib.drain(client, config, None, encode_less, lambda _: writer, 3, timeout_seconds=1)


def test_a_server_that_is_silent_when_its_rows_are_to_be_read(replay_servers, monkeypatch):
  """No other attempt follows in this process: this one may still read when the server goes on."""
  config = make_config()
  client = reverb.Client(replay_servers.start(config))
  write_pixels(client, config, play(config, [30]))
  opened, made = drain_lib._Reader, queue.SimpleQueue()
  with contextlib.ExitStack() as stack:

    def opened_in_silence(batches):
      stack.enter_context(replay_servers.silent())
      made.put(opened(batches))

    monkeypatch.setattr(drain_lib, '_Reader', opened_in_silence)
    with pytest.raises(server.ReplayServerError) as error:
      drain_lib.drain(client, config, None, None, None, timeout_seconds=8)
  text = str(error.value)
  assert f'{client.server_address}, table drain: no answer within 8 s. Stop this process' in text
  with made.get(timeout=300):  # once the server goes on
    pass


def test_stacks_survive_the_eviction_of_their_older_frames(replay_servers):
  """The oldest row left keeps the frames before it, though their own rows are gone."""
  config = make_config(frame_stack=3, capacity=5)
  stream = play(config, [20])
  client = server.connect(replay_servers.start(config), config)
  write_pixels(client, config, stream)
  writer = latents_writer(client, config)
  drain_lib.drain(client, config, held_rows(config, stream), encode, lambda _: writer)
  writer.close()
  first = stored_blocks(client, config)[0].observation[0, 0]
  np.testing.assert_array_equal(first, [15, 16, 17])  # rows 17 to 21 were kept


def test_nothing_to_convert(replay_servers):
  config = make_config()
  client = server.connect(replay_servers.start(config), config)
  seen = []
  writer = latents_writer(client, config)
  progress = lambda *counts: seen.append(counts)
  assert drain_lib.drain(client, config, range(0), encode, lambda _: writer, progress=progress) == 0
  assert seen == [(0, 0)]


def test_encoder_of_another_width_is_refused(replay_servers):
  config = make_config()
  client = server.connect(replay_servers.start(config), config)
  stream = play(config, [5])
  write_pixels(client, config, stream)
  writer = latents_writer(client, config)
  with pytest.raises(ValueError, match=r'shape \(6, 2, 2\); expected \(6, 2, 3\)'):
    narrow = lambda images: encode(images)[..., 1:]
    drain_lib.drain(client, config, held_rows(config, stream), narrow, lambda _: writer)


def test_no_item_has_rows_of_both_sides_of_a_gap(replay_servers):
  """Rows of two streams are missing: inside a block of table `drain`, and between batches."""
  config, expected, opened = make_config(capacity=100), [], []
  client = server.connect(replay_servers.start(config), config)
  for stream, missing in [(1, {3, 4, 17}), (2, {9})]:
    writer = writers.RowWriter.of_table(client, config, 'pixels')
    for row, _ in play(config, [6, 7, 8]):
      if int(row.number) not in missing:
        expected.append(row.number + tables.first_number(stream))
        writer.append(row._replace(number=expected[-1]))
    writer.close()

  def open_writer(stream):
    opened.append(latents_writer(client, config))
    return opened[-1]

  converted = drain_lib.drain(client, config, None, encode, open_writer, 3)
  for writer in opened:
    writer.close()
  assert converted == len(expected) and len(opened) == 5
  owned = []
  for window in stored_blocks(client, config):
    numbers = window.number[window.number >= 0]
    assert (np.diff(numbers) == 1).all()
    own = window.number[: config.block_length]
    owned.extend(own[own >= 0])
  assert sorted(owned) == expected


def test_rows_taken_by_someone_else_are_noticed(replay_servers):
  config = make_config(capacity=1000)
  client = server.connect(replay_servers.start(config), config)
  stream = play(config, [79])
  write_pixels(client, config, stream)
  assert len(list(client.sample('drain', 2))) == 2  # the blocks of rows 0 to 63

  writer = latents_writer(client, config)
  with pytest.raises(TimeoutError) as error:
    drain_lib.drain(
      client, config, held_rows(config, stream), encode, lambda _: writer, 3, timeout_seconds=1
    )
  text = str(error.value)
  assert client.server_address in text and 'table drain, 16 of 80 rows read' in text
  assert 'something else' in text and '\n' not in text


EMBEDDED = dataclasses.replace(
  make_config(capacity=5000),
  frame_shape=(64, 64, 3),
  latent_size=100,
  latents_dtype='uint8',
  action_shape=(1,),
)
BINDINGS = (
  'Experiment.total_agent_steps = 100',
  'Experiment.environment_fn = @dm_control.load',
  "dm_control.load.domain = 'cartpole'",
  "dm_control.load.task = 'swingup'",
  'dm_control.load.image_size = 64',
  'RandomCrop.image_size = 40',
  'ReplayConfig.stored_crops = 2',
  'ReplayConfig.n_step = 2',
  'ReplayConfig.block_length = 4',
  'ReplayConfig.pixels_capacity = 5000',
  'ReplayConfig.latents_capacity = 4000',
)


def write_noise(client, rows):
  rng = np.random.default_rng(0)
  row = tables.padding_row(EMBEDDED.pixels_row)._replace(number=None)
  frames = (rng.integers(0, 256, EMBEDDED.frame_shape, np.uint8) for _ in range(rows))
  write_pixels(
    client,
    EMBEDDED,
    [(row._replace(observation=frame, step_type=np.int32(MID)), None) for frame in frames],
  )


def encode_noise(observations):
  assert observations.shape[1:] == (64, 64, 9)
  return tf.zeros([observations.shape[0], CROPS, 100], tf.uint8)


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGSTOP])
def test_server_lost_while_draining(number):
  with server.EmbeddedServer(gin_bindings=BINDINGS, stop_timeout_seconds=1) as embedded:
    client = server.connect(embedded.address, EMBEDDED)
    write_noise(client, 2000)

    def progress(done, total):
      if done == 64:
        os.kill(embedded.pid, number)

    writer = writers.RowWriter(
      client,
      EMBEDDED.latents_layouts,
      tables.padding_row(EMBEDDED.latents_row),
      timeout_seconds=2,
    )
    with pytest.raises(TimeoutError) as error:
      drain_lib.drain(
        client,
        EMBEDDED,
        range(2000),
        encode_noise,
        lambda _: writer,
        32,
        progress,
        timeout_seconds=2,
      )
  text = str(error.value)
  assert embedded.address in text and '\n' not in text
  assert 'of 2000 rows read' in text or 'table latents' in text


def test_server_frees_frames_as_they_leave():
  """Memory stays below the peak with pixels plus the latents, and falls while draining."""
  rows, batch_size = 5000, 50
  frame_bytes = rows * np.prod(EMBEDDED.frame_shape)
  latent_bytes = rows * CROPS * 100
  slack = 10_000_000  # buffers of connections
  with server.EmbeddedServer(gin_bindings=BINDINGS) as embedded:
    client = server.connect(embedded.address, EMBEDDED)
    write_noise(client, rows)
    empty = server.report(client).empty_bytes
    process = psutil.Process(embedded.pid)
    peak = process.memory_info().rss
    assert peak - empty > frame_bytes
    highest = []

    def progress(done, total):
      highest.append(process.memory_info().rss)
      if done == rows // 2:
        wait_for_memory(client, peak - 0.3 * frame_bytes)
        queued = client.server_info(10)['drain'].current_size * EMBEDDED.drain_layout.block_length
        # And this process holds little, however slow: batches read, encoded and being written.
        assert total - queued - done <= 6 * batch_size

    writer = latents_writer(client, EMBEDDED)
    drain_lib.drain(
      client, EMBEDDED, range(rows), encode_noise, lambda _: writer, batch_size, progress
    )
    assert max(highest) < peak + latent_bytes + slack
    wait_for_memory(client, empty + 0.3 * frame_bytes + 2 * latent_bytes)


def wait_for_memory(client, bound):
  """Waits until the server publishes less than `bound` resident bytes."""
  published = []
  for _ in range(20):
    published.append(server.next_report(client).resident_bytes)
    if published[-1] < bound:
      return
  raise AssertionError(f'resident bytes published: {published}; expected below {bound}')
