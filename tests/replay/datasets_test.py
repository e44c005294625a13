import threading
import time

import numpy as np
import pytest
import reverb
from scipy import stats
import tensorflow as tf

from seer_tf.replay import datasets, tables, writers

FIRST, MID, LAST = 0, 1, 2


def make_config(**changes):
  return tables.ReplayConfig(
    **{
      'frame_shape': (1, 1, 2),
      'frame_stack': 2,
      'action_shape': (),
      'action_dtype': 'int64',
      'latent_size': 2,
      'stored_crops': 2,  # divides the block: a crop must not follow from the row's place in it
      'n_step': 1,
      'pixels_capacity': 2000,
      'latents_capacity': 2000,
      'block_length': 8,
      **changes,
    }
  )


def write(client, config, table, streams):
  """Streams of episodes of given lengths; returns their rows, numbered through, by number.

  Row i has action i, reward i and discount 1; each number of its observation is i, but a latent's
  second one is its crop. The last step of every third episode has discount 0.
  """
  pixels = table == 'pixels'
  spec = config.pixels_row if pixels else config.latents_row
  layout = config.pixels_layout if pixels else config.latents_layout
  written = []
  for lengths in streams:
    writer = writers.RowWriter(client, {table: layout}, tables.padding_row(spec))
    for episode, length in enumerate(lengths):
      for t in range(length + 1):
        i = len(written)
        observation = np.full(spec.observation.shape, i, spec.observation.dtype.as_numpy_dtype)
        if not pixels:
          observation[:, 1] = range(config.stored_crops)
        terminal = t == length - 1 and episode % 3 == 2
        kind = LAST if t == length else FIRST if t == 0 else MID
        row = (observation, np.int64(i), np.float32(i), np.float32(not terminal), np.int32(kind))
        written.append(tables.Row(*row))
        writer.append(written[-1])
    writer.close()
  return written


@pytest.mark.parametrize(('table', 'draws'), [('latents', 1), ('latents', 2), ('pixels', 1)])
def test_each_stored_transition_is_equally_likely(replay_servers, table, draws):
  config = make_config()
  address = replay_servers.start(config)
  random = np.random.default_rng(3)
  # Blocks of 8 rows: 6 streams whose episodes end anywhere in a block, and whose last block is
  # half full (or holds a single row).
  streams = [list(random.integers(1, 30, size=4)) for _ in range(6)] + [[3], [7], [8, 3]]
  rows = write(reverb.Client(address), config, table, streams)
  assert any((sum(lengths) + len(lengths)) % 8 == 4 for lengths in streams)
  starts = [i for i, row in enumerate(rows) if row.step_type != LAST]

  rounds, batch_size = 60, 500
  dataset = datasets.make_dataset(
    address,
    table,
    config,
    batch_size,
    gamma=0.9,
    timeout_seconds=20,
    draws_per_window=draws,
    seed=5,
  )
  # Latents: each row with each choice of a crop now and of one later. Pixels: each row.
  choices = 4 if table == 'latents' else 1
  counts = np.zeros([len(rows), choices], int)
  for transition, _ in dataset.take(rounds):
    choice = 0
    if table == 'latents':
      now, later = transition.time_step.observation, transition.next_time_step.observation
      choice = (2 * now[:, 1] + later[:, 1]).numpy().astype(int)
    np.add.at(counts, (transition.action_step.action.numpy(), choice), 1)
  assert counts.sum() == counts[starts].sum() == batch_size * rounds
  assert stats.chisquare(counts[starts].ravel()).pvalue > 1e-5
  assert stats.chisquare(counts[starts].sum(axis=1)).pvalue > 1e-5


@pytest.mark.parametrize('table', ['pixels', 'latents'])
def test_batches_hold_the_stored_transitions(replay_servers, table):
  config = make_config(n_step=3, frame_stack=3, block_length=2)  # n reaches over two blocks
  address = replay_servers.start(config)
  rows = write(reverb.Client(address), config, table, [[1, 5, 2, 9], [4, 3, 6]])
  last_of = {}  # row -> the LAST row of its episode
  for i in reversed(range(len(rows))):
    last_of[i] = i if rows[i].step_type == LAST else last_of[i + 1]

  dataset = datasets.make_dataset(
    address, table, config, batch_size=33, gamma=0.5, timeout_seconds=20
  )
  spec = tf.TensorSpec([33, 1, 1, 6], tf.uint8) if table == 'pixels' else tf.TensorSpec([33, 2])
  assert dataset.element_spec[0].time_step.observation == spec
  crops = set()
  for transition, nothing in dataset.take(20):
    assert nothing == ()
    flat = tf.nest.map_structure(lambda tensor: tensor.numpy(), transition)
    for b in range(33):
      t = flat.action_step.action[b]
      k = min(3, last_of[t] - t)
      assert k > 0
      now, later = flat.time_step.observation[b], flat.next_time_step.observation[b]
      if table == 'pixels':
        first = max([i for i in range(t + 1) if rows[i].step_type == FIRST])
        assert list(now[0, 0, ::2]) == [max(first, i) for i in (t - 2, t - 1, t)]
        assert list(later[0, 0, ::2]) == [max(first, t + k - lag) for lag in (2, 1, 0)]
      else:
        assert (now[0], later[0]) == (t, t + k)
        crops.add((now[1], later[1]))
      # A terminal can only be the last of the k, so it never cuts a reward off.
      assert flat.next_time_step.reward[b] == sum(0.5**i * (t + i) for i in range(k))
      assert flat.next_time_step.discount[b] == 0.5**k * rows[t + k - 1].discount
      assert flat.time_step.step_type[b] == rows[t].step_type
      assert flat.next_time_step.step_type[b] == rows[t + k].step_type
  assert table == 'pixels' or len(crops) == 4


def learn_until_error(iterator):
  """Reads as a TF-Agents learner does, inside a function; returns the first error's message."""

  @tf.function
  def learn():
    transition, _ = next(iterator)
    return tf.reduce_sum(transition.next_time_step.reward)

  with pytest.raises(tf.errors.OpError) as caught:
    while True:
      learn()
  return str(caught.value)


def test_a_server_that_goes_away_is_an_error_in_time(replay_servers):
  config = make_config()
  address = replay_servers.start(config)
  write(reverb.Client(address), config, 'latents', [[20]])
  dataset = datasets.make_dataset(address, 'latents', config, 8, gamma=0.9, timeout_seconds=5)
  iterator = iter(dataset)
  next(iterator)
  replay_servers.stop(address)
  message = learn_until_error(iterator)
  assert f'{address}, table latents: no batch of 8 transitions within 5 s' in message
  assert 'does not answer' in message


def test_a_server_that_is_silent_from_the_first_is_an_error_in_time(replay_servers):
  """It accepts connections, but never answers."""
  config = make_config()
  address = replay_servers.start(config)
  write(reverb.Client(address), config, 'latents', [[20]])
  older, start = set(threading.enumerate()), time.monotonic()
  with replay_servers.silent():
    dataset = datasets.make_dataset(address, 'latents', config, 8, gamma=0.9, timeout_seconds=2)
    message = learn_until_error(iter(dataset))
  assert time.monotonic() - start < 60  # Reverb itself asks for longer, or for ever
  assert f'{address}, table latents: no batch of 8 transitions within 2 s' in message
  assert 'after 0 batches; the server does not answer' in message
  for thread in set(threading.enumerate()) - older:  # they go on with the server
    thread.join(timeout=120)


def test_nothing_to_sample_is_an_error_in_time(replay_servers):
  config = make_config()
  address = replay_servers.start(config)
  client = reverb.Client(address)
  arguments = (address, 'pixels', config, 8, 0.9)
  message = learn_until_error(iter(datasets.make_dataset(*arguments, timeout_seconds=1)))
  assert f'{address}, table pixels: no batch of 8 transitions within 1 s' in message
  assert 'after 0 batches; the table holds 0 items (capacity 2000)' in message, message

  # A row that starts nothing, as the write head follows: it is sampled and dropped for ever.
  write(client, config, 'pixels', [[1]])
  first = client.sample('pixels', 50, emit_timesteps=False, unpack_as_table_signature=True)
  kind = lambda sample: tables.unpack(sample.data, config.pixels_row).step_type[1]
  starts = {sample.info.key for sample in first if kind(sample) == FIRST}
  client.mutate_priorities('pixels', deletes=list(starts))
  message = learn_until_error(iter(datasets.make_dataset(*arguments, timeout_seconds=1)))
  assert 'after 0 batches; the table holds 1 items (capacity 2000)' in message


def test_a_dropped_iterator_is_gone_at_once(replay_servers):
  config = make_config()
  address = replay_servers.start(config)
  client = reverb.Client(address)
  write(client, config, 'latents', [[20]])
  older = set(threading.enumerate())
  dataset = datasets.make_dataset(
    address, 'latents', config, 8, gamma=0.9, timeout_seconds=4, max_in_flight=8, prefetch=1
  )
  iterator = iter(dataset)
  for _ in range(20):
    next(iterator)
  (reader,) = set(threading.enumerate()) - older
  client.reset('latents')  # so that the reader, which reads ahead, soon waits in vain
  begin = time.monotonic()
  del iterator
  assert time.monotonic() - begin < 2
  reader.join(timeout=20)  # Reverb lets it go when the rate limiter's time is up
  assert not reader.is_alive()


def test_senseless_requests_are_refused():
  config = make_config()
  with pytest.raises(ValueError, match="'drain' holds no transitions"):
    datasets.make_dataset('localhost:1', 'drain', config, 8, gamma=0.9)
  with pytest.raises(ValueError, match='draws_per_window is 9; a window of table latents holds 8'):
    datasets.make_dataset('localhost:1', 'latents', config, 8, gamma=0.9, draws_per_window=9)
