import time

import hypothesis
from hypothesis import strategies as st
import numpy as np
import psutil
import pytest
import reverb
from tf_agents.drivers import py_driver
from tf_agents.environments import random_py_environment
from tf_agents.policies import random_py_policy
from tf_agents.specs import array_spec
from tf_agents.trajectories import trajectory as trajectory_lib

from seer_tf.replay import tables, writers

FIRST, MID, LAST = 0, 1, 2


def make_config(**changes):
  return tables.ReplayConfig(
    **{
      'frame_shape': (1, 2, 3),
      'frame_stack': 3,
      'action_shape': (2,),
      'action_dtype': 'float32',
      'latent_size': 3,
      'stored_crops': 2,
      'n_step': 1,
      'pixels_capacity': 1000,
      'latents_capacity': 1000,
      'block_length': 4,
      **changes,
    }
  )


def stream(spec, lengths):
  """Rows of episodes of `lengths` agent steps (a LAST row more); all fields tell the row apart."""
  step_types = [kind for length in lengths for kind in [FIRST] + [MID] * (length - 1) + [LAST]]
  fill = lambda leaf, value: np.full(leaf.shape, value, leaf.dtype.as_numpy_dtype)
  return [
    tables.Row(
      observation=fill(spec.observation, i % 256),
      action=fill(spec.action, -i),
      reward=np.float32(i + 0.5),
      discount=np.float32(i % 2),
      step_type=np.int32(kind),
      number=np.int64(i),
    )
    for i, kind in enumerate(step_types)
  ]


def windows(rows, layout, padding):
  """All items that the stream of `rows` should end as, by brute force."""
  expected = []
  for start in range(0, len(rows), layout.block_length):
    picked = range(start - layout.history, start - layout.history + layout.window)
    expected.append([rows[i] if 0 <= i < len(rows) else padding for i in picked])
  return [tables.Row(*map(np.stack, zip(*window))) for window in expected]


def items(client, table, samples, spec):
  """Different items among `samples` drawn, in the order in which they first came."""
  drawn = client.sample(table, samples, emit_timesteps=False, unpack_as_table_signature=True)
  different = {sample.info.key: sample.data for sample in drawn}
  return [tables.unpack(data, spec) for data in different.values()]


def assert_equal_items(actual, expected):
  assert len(actual) == len(expected)
  for got, wanted in zip(actual, expected):
    for name, left, right in zip(tables.Row._fields, got, wanted):
      np.testing.assert_array_equal(left, right, err_msg=name)
      assert left.dtype == right.dtype, name


@hypothesis.settings(
  max_examples=25,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
  lengths=st.lists(st.integers(1, 9), max_size=4),
  frame_stack=st.integers(1, 4),
  n_step=st.integers(1, 5),
  block_length=st.integers(1, 6),
  pixels_block_length=st.integers(1, 4),
  chunk_length=st.integers(1, 9),
  flush_after=st.sets(st.integers(1, 30), max_size=3),
)
def test_each_row_is_owned_by_one_item_with_its_neighbours(
  replay_servers,
  lengths,
  frame_stack,
  n_step,
  block_length,
  pixels_block_length,
  chunk_length,
  flush_after,
):
  config = make_config(
    frame_stack=frame_stack,
    n_step=n_step,
    block_length=block_length,
    pixels_block_length=pixels_block_length,
    pixels_chunk_length=chunk_length,
    latents_chunk_length=chunk_length,
  )
  address = replay_servers.start(config)
  client = reverb.Client(address)
  for layouts, spec in [
    (config.pixels_layouts, config.pixels_row),
    (config.latents_layouts, config.latents_row),
  ]:
    padding = tables.padding_row(spec)
    rows = stream(spec, lengths)
    numbered = rows if 'drain' in layouts else [row._replace(number=None) for row in rows]
    writer = writers.RowWriter(client, layouts, padding, flush_every_rows=7)
    for row in numbered:
      writer.append(row)
      if writer.rows in flush_after:
        writer.flush()
    writer.close()
    assert writer.rows == writer.acknowledged == len(rows)

    for name, layout in layouts.items():
      expected = windows(rows, layout, padding)
      assert client.server_info(timeout=20)[name].current_size == len(expected)
      if not rows:
        continue
      # Missing one of 40 items in 1,500 uniform draws has a chance of 1e-15. The drain is a queue.
      found = items(client, name, len(expected) if name == 'drain' else 1500, spec)
      if name != 'drain':
        found.sort(key=lambda item: item.reward[layout.history])
      assert_equal_items(found, expected)
  replay_servers.stop(address)


@pytest.mark.parametrize('block_length', [1, 2])
def test_items_have_the_largest_priority_of_their_starts(replay_servers, block_length):
  """None starts at a LAST row, before a cut, or at the write head."""
  config = make_config(pixels_block_length=block_length, n_step=3)
  client = reverb.Client(replay_servers.start(config))
  rows = stream(config.pixels_row, [3, 1, 2])
  kinds = [FIRST, MID, MID, LAST, FIRST, LAST, FIRST, FIRST, MID]
  rows = [row._replace(step_type=np.int32(kind)) for row, kind in zip(rows, kinds)]
  starts = {0, 1, 2, 4, 7}
  asked = set()

  def priority_of(numbers):
    asked.update(numbers.tolist())
    return 10.0 - numbers

  padding = tables.padding_row(config.pixels_row)
  writer = writers.RowWriter(client, config.pixels_layouts, padding, priority_of=priority_of)
  for row in rows:
    writer.append(row)
  writer.close()
  found, history = {}, config.pixels_layout.history
  draws = client.sample('pixels', 300, emit_timesteps=False, unpack_as_table_signature=True)
  for sample in {sample.info.key: sample for sample in draws}.values():
    number = tables.unpack(sample.data, config.pixels_row).number[history]
    found[int(number)] = sample.info.priority
  blocks = range(0, len(rows), block_length)
  largest = lambda block: max((10 - i for i in block if i in starts), default=0)
  assert found == {first: largest(range(first, first + block_length)) for first in blocks}
  assert asked == starts


@pytest.mark.parametrize('block_length, chunk_length', [(1, 5), (3, 5), (4, 4)])
def test_full_tables_evict_the_oldest(replay_servers, block_length, chunk_length):
  config = make_config(
    pixels_capacity=12, pixels_block_length=block_length, pixels_chunk_length=chunk_length
  )
  client = reverb.Client(replay_servers.start(config))
  padding = tables.padding_row(config.pixels_row)
  rows = stream(config.pixels_row, [9, 14, 3, 8])
  writer = writers.RowWriter(client, config.pixels_layouts, padding)
  for row in rows:
    writer.append(row)
  writer.close()
  assert writer.acknowledged == len(rows)
  newest = windows(rows, config.pixels_layout, padding)[-12 // block_length :]
  found = items(client, 'pixels', 600, config.pixels_row)
  history = config.pixels_layout.history
  assert_equal_items(sorted(found, key=lambda item: item.reward[history]), newest)
  # The queue goes back at least as far: 12 rows in blocks of 32, and a block more.
  queued = items(client, 'drain', 2, config.pixels_row)
  assert_equal_items(queued, windows(rows, config.drain_layout, padding)[-2:])
  assert queued[0].number[history] <= newest[0].number[history]


def test_frames_are_stored_once(replay_servers):
  side, count = 64, 1000
  config = make_config(frame_shape=(side, side, 3), n_step=5, pixels_capacity=count)
  client = reverb.Client(replay_servers.start(config))
  server = psutil.Process(replay_servers.pid)
  before = server.memory_info().rss
  padding = tables.padding_row(config.pixels_row)
  writer = writers.RowWriter(client, config.pixels_layouts, padding)
  random = np.random.default_rng(0)
  for row in stream(config.pixels_row, [count - 1]):
    frame = random.integers(256, size=(side, side, 3), dtype=np.uint8)  # nothing to compress
    writer.append(row._replace(observation=frame))
  writer.close()
  frames = count * side * side * 3
  # Items themselves take about half as much again; each frame lies in 16 windows.
  assert server.memory_info().rss - before < 2.5 * frames


def test_acknowledged_counts_rows_of_confirmed_items(replay_servers):
  config = make_config(block_length=4, n_step=2, latents_chunk_length=2)
  client = reverb.Client(replay_servers.start(config))
  padding = tables.padding_row(config.latents_row)
  writer = writers.RowWriter(client, config.latents_layouts, padding)
  seen = []
  for row in stream(config.latents_row, [12]):
    writer.append(row)
    assert writer.acknowledged == (seen[-1] if seen else 0)  # not before a flush
    writer.flush()
    seen.append(writer.acknowledged)
    assert 4 * client.server_info(timeout=20)['latents'].current_size == writer.acknowledged
  # A block of 4 is complete with its 2 rows of lookahead: at rows 6 and 10.
  assert seen == [0] * 5 + [4] * 4 + [8] * 4
  writer.close()
  assert writer.acknowledged == writer.rows == 13
  writer.close()
  assert client.server_info(timeout=20)['latents'].current_size == 4
  with pytest.raises(ValueError, match='closed'):
    writer.append(row)


def test_an_append_that_a_signal_has_cut_short_is_the_last(replay_servers, monkeypatch):
  """Its rows may be in part where the next ones belong."""
  config = make_config(block_length=4, n_step=1)
  client = reverb.Client(replay_servers.start(config))
  writer = writers.RowWriter.of_table(client, config, 'latents')
  rows = stream(config.latents_row, [20])
  for row in rows[:13]:
    writer.append(row)
  writer.flush()

  def leave(step):
    raise SystemExit(143)

  with monkeypatch.context() as patch, pytest.raises(SystemExit):
    patch.setattr(tables, 'pack', leave)
    for row in rows[13:]:  # until a step is full
      writer.append(row)
  assert not writer.is_whole
  with pytest.raises(ValueError, match='closed'):
    writer.append(rows[-1])
  writer.close()
  assert writer.acknowledged == 8
  assert client.server_info(timeout=20)['latents'].current_size == 2


def test_rows_that_another_server_has_taken_are_not_acknowledged(replay_servers):
  config = make_config()
  client, is_same = reverb.Client(replay_servers.start(config)), True
  writer = writers.RowWriter.of_table(client, config, 'latents', is_same_server=lambda: is_same)
  row = tables.padding_row(config.latents_row)._replace(step_type=np.int32(MID), number=None)
  for _ in range(9):
    writer.append(row)
  writer.flush()
  acknowledged, is_same = writer.acknowledged, False
  assert acknowledged > 0
  with pytest.raises(TimeoutError, match='has started anew'):
    writer.close()
  assert writer.acknowledged == acknowledged


def test_rows_arrive_without_an_explicit_flush(replay_servers):
  config = make_config()
  client = reverb.Client(replay_servers.start(config))
  padding = tables.padding_row(config.pixels_row)
  writer = writers.RowWriter(client, config.pixels_layouts, padding, flush_every_rows=50)
  for row in stream(config.pixels_row, [499]):
    writer.append(row)
  # 499 items were created in each table; those of the last chunk of 16 may still be on their way.
  assert client.server_info(timeout=20)['pixels'].current_size >= 499 - 2 * 16


def test_a_server_that_is_gone_is_named_in_time(replay_servers):
  config = make_config()
  address = replay_servers.start(config)
  client = reverb.Client(address)
  arguments = (config.pixels_layouts, tables.padding_row(config.pixels_row))
  writer = writers.RowWriter(client, *arguments, flush_every_rows=5, timeout_seconds=1)
  rows = stream(config.pixels_row, [99])
  for row in rows[:4]:
    writer.append(row)
  writer.flush()
  replay_servers.stop(address)
  # No item is confirmed any more: as soon as more than a chunk of 16 rows waits, `append` notices.
  message = (
    f'{address} did not confirm items for tables pixels, drain within 1 s: '
    '25 rows written, 0 of them in items, 0 rows acknowledged'
  )
  with pytest.raises(TimeoutError, match=message):
    for row in rows[4:]:
      writer.append(row)
  with pytest.raises(TimeoutError, match='25 rows written, 25 of them in items, 0 rows'):
    writer.close()
  with pytest.raises(TimeoutError, match=f'{address} did not answer within 1 s'):
    writers.RowWriter(client, *arguments, timeout_seconds=1)
  # A server in the place of this one would get the rows, if somebody did not give up.
  writer.abandon()
  writer.abandon()
  with pytest.raises(ValueError, match='closed'):
    writer.append(rows[0])


def test_wrong_rows_and_tables_are_refused(replay_servers):
  config = make_config()
  client = reverb.Client(replay_servers.start(config))
  padding = tables.padding_row(config.latents_row)
  with pytest.raises(ValueError, match='no table latent; it has actors, drain, latents'):
    writers.RowWriter(client, {'latent': config.latents_layout}, padding)
  writer = writers.RowWriter(client, config.latents_layouts, padding)
  wide = np.zeros((2, 4), np.float32)
  with pytest.raises(ValueError, match=r'observation float32 \[2, 4\]; expected float32 \[2, 3\]'):
    writer.append(padding._replace(observation=wide))
  with pytest.raises(ValueError, match=r'reward float64 \[\]; expected float32 \[\]'):
    writer.append(padding._replace(reward=0.5))
  assert writer.rows == 0


@pytest.mark.filterwarnings('ignore:invalid value encountered in cast')  # TF-Agents' sampler
def test_a_driver_writes_what_it_saw(replay_servers):
  config = make_config(frame_shape=(4, 4, 3))
  client = reverb.Client(replay_servers.start(config))
  environment = random_py_environment.RandomPyEnvironment(
    observation_spec=array_spec.BoundedArraySpec((4, 4, 9), np.uint8, 0, 255),
    action_spec=array_spec.BoundedArraySpec((2,), np.float32, -1, 1),
    episode_end_probability=0.2,
    seed=1,
  )
  policy = random_py_policy.RandomPyPolicy(
    environment.time_step_spec(), environment.action_spec(), seed=1
  )
  seen = []
  padding = tables.padding_row(config.pixels_row)
  writer = writers.RowWriter(client, config.pixels_layouts, padding)
  observers = [seen.append, lambda step: writer.append(writers.pixels_row(step, 3))]
  driver = py_driver.PyDriver(environment, policy, observers, max_steps=40)
  driver.run(environment.reset())
  writer.close()

  assert any(step.is_boundary() for step in seen)
  block = config.drain_layout.block_length
  for first, item in enumerate(items(client, 'drain', -(-len(seen) // block), config.pixels_row)):
    for i, step in enumerate(seen[first * block : (first + 1) * block], start=2):
      np.testing.assert_array_equal(item.observation[i], step.observation[..., 6:])
      np.testing.assert_array_equal(item.action[i], step.action)
      own = (item.reward[i], item.discount[i], item.step_type[i])
      assert own == (step.reward, step.discount, step.step_type)


@hypothesis.given(clocks=st.lists(st.floats(-1e10, 1e10), min_size=2, max_size=20))
def test_creation_times_never_go_back(clocks):
  """However the system's clock is set meanwhile."""
  with pytest.MonkeyPatch.context() as patch:
    times = []
    for clock in clocks:
      patch.setattr(time, 'time', lambda now=clock: now)
      times.extend(writers.creation_times(np.arange(3)))
  assert times == sorted(times) and len(times) == 3 * len(clocks)
  assert abs(times[-1] - time.time()) < 3600


def test_latents_come_from_the_policy_info():
  latents = np.arange(6, dtype=np.float32).reshape(2, 3)
  step = trajectory_lib.mid(
    observation=np.zeros((4, 4, 9), np.uint8),
    action=np.float32([1, 2]),
    policy_info=latents,
    reward=np.float64(0.5),
    discount=np.float64(1),
  )
  row = writers.latents_row(step, lambda x: x.astype(np.float16))
  np.testing.assert_array_equal(row.observation, latents.astype(np.float16), strict=True)
  np.testing.assert_array_equal(row.action, [1, 2])
  assert (row.reward, row.discount, row.step_type) == (0.5, 1, MID)
  assert (row.reward.dtype, row.step_type.dtype) == (np.float32, np.int32)
