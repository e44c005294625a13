"""Prioritised replay on real servers: what is drawn how often, its weights, and the freeze."""

import dataclasses
from types import SimpleNamespace

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import reverb
from scipy import stats
import tensorflow as tf

from seer_tf.replay import datasets, drain, priorities, tables, writers

FIRST, MID, LAST = 0, 1, 2
OMEGA = 0.7
CONFIG = tables.ReplayConfig(
  frame_shape=(1, 1, 1),
  frame_stack=2,
  action_shape=(),
  action_dtype='int64',
  latent_size=2,
  stored_crops=1,
  n_step=3,
  pixels_capacity=40,
  latents_capacity=60,
  block_length=1,
  priority_exponent=OMEGA,
)
LENGTHS = [9, 1, 14, 6, 11]  # agent steps of episodes; with their LAST rows more than 40


def make_replay(client, config=CONFIG, learning=(0, 100), **kwargs):
  return priorities.PrioritisedReplay(client, config, learning, **kwargs)


def pixel_rows():
  kinds = [kind for n in LENGTHS for kind in [FIRST] + [MID] * (n - 1) + [LAST]]
  for i, kind in enumerate(kinds):
    frame = np.full([1, 1, 1], i, np.uint8)
    yield tables.Row(frame, np.int64(i), np.float32(i), np.float32(1), np.int32(kind))


def error_of(numbers):
  """Of both signs, and one of them 0."""
  return (np.where(numbers % 2, -1, 1) * (numbers % 5)).astype(np.float32)


def expected_priorities(numbers):
  return np.abs(error_of(numbers)).astype(np.float64) + 1e-6


def make_dataset(address, table, batch_size, **kwargs):
  return datasets.make_dataset(
    address, table, CONFIG, batch_size, gamma=0.9, timeout_seconds=20, **kwargs
  )


def learn_all(replay, address, table, starts):
  """Updates of batches until each start was in one; their errors are `error_of` the rows."""
  # Little is drawn ahead, and so by priorities of long ago.
  iterator = iter(make_dataset(address, table, 8, max_in_flight=8, prefetch=0))

  @tf.function
  def learn():
    transition, drawn = next(iterator)
    td_error = tf.numpy_function(error_of, [drawn.number], tf.float32)
    replay.learned(drawn, SimpleNamespace(extra=SimpleNamespace(td_error=td_error)))
    return transition.action_step.action, drawn

  seen = set()
  for _ in range(500):
    action, drawn = learn()
    np.testing.assert_array_equal(action, drawn.number)
    assert drawn.table == table.encode()
    seen.update(drawn.number.numpy().tolist())
    if seen == starts:
      return
  raise AssertionError(f'not drawn: {starts - seen}; drawn, but starting none: {seen - starts}')


def check_frequencies(address, table, starts):
  """Draws by |error|^omega, and says so."""
  numbers = np.array(sorted(starts))
  share = expected_priorities(numbers) ** OMEGA
  share /= share.sum()
  counts = np.zeros(len(numbers))
  for _, drawn in make_dataset(address, table, 100).take(60):
    places = np.searchsorted(numbers, drawn.number)
    np.testing.assert_array_equal(numbers[places], drawn.number)
    np.testing.assert_allclose(drawn.probability, share[places], rtol=1e-5)
    np.add.at(counts, places, 1)
  often = share * counts.sum() > 5
  assert counts[~often].sum() <= 3  # of less than 0.1 expected
  expected = share[often] / share[often].sum() * counts[often].sum()
  assert stats.chisquare(counts[often], expected).pvalue > 1e-5


def test_transitions_are_drawn_by_priority_through_the_freeze(replay_servers):
  address = replay_servers.start(CONFIG)
  client = reverb.Client(address)
  replay = make_replay(client)
  rows = list(pixel_rows())
  held = range(len(rows) - 40, len(rows))
  assert held.start > 0
  starts = {i for i in held if rows[i].step_type != LAST}

  pixels = writers.RowWriter(
    client, CONFIG.pixels_layouts, tables.padding_row(CONFIG.pixels_row), priority_of=replay.of
  )
  for row in rows:
    pixels.append(row)
  pixels.close()
  learn_all(replay, address, 'pixels', starts)
  check_frequencies(address, 'pixels', starts)

  latents = writers.RowWriter(
    client, CONFIG.latents_layouts, tables.padding_row(CONFIG.latents_row), priority_of=replay.of
  )
  encode = lambda observations: tf.cast(observations[:, 0], tf.float32)
  drain.drain(client, CONFIG, held, encode, lambda stream: latents)
  # Rows that come later have the largest priority there has been.
  for t, kind in enumerate([FIRST, MID, LAST]):
    latent = np.zeros([1, 2], np.float32)
    latents.append(tables.Row(latent, np.int64(t), np.float32(0), np.float32(1), np.int32(kind)))
  latents.close()
  draws = client.sample('latents', 4000, emit_timesteps=False, unpack_as_table_signature=True)
  in_server = {}
  for sample in {sample.info.key: sample for sample in draws}.values():
    number = int(tables.unpack(sample.data, CONFIG.latents_row).number[0])
    in_server[number] = sample.info.priority
  largest = expected_priorities(4)
  new = {len(rows): largest, len(rows) + 1: largest}
  expected = {**{i: expected_priorities(i) for i in starts if i % 5}, **new}
  assert {i: p for i, p in in_server.items() if p > 1e-3} == pytest.approx(expected)
  assert set(in_server) <= starts | set(new)


@hypothesis.given(
  st.lists(st.tuples(st.floats(1e-7, 1), st.integers(1, 10**6)), min_size=1, max_size=40),
  st.floats(0, 1),
)
def test_importance_weights_against_brute_force(drawn, beta):
  probability, table_size = zip(*drawn)
  weights = priorities.importance_weights(
    tf.constant(probability, tf.float64), tf.constant(table_size, tf.int64), beta
  )
  expected = [(1 / (n * p)) ** beta for p, n in drawn]
  expected = [weight / max(expected) for weight in expected]
  np.testing.assert_allclose(weights, expected, rtol=1e-5)
  assert weights.dtype == tf.float32 and np.max(weights) == 1


@pytest.mark.parametrize(
  'agent_steps, beta', [(0, 0.4), (10, 0.4), (60, 0.7), (110, 1.0), (1000, 1.0)]
)
def test_beta_grows_from_the_first_to_the_last_agent_step_of_learning(agent_steps, beta):
  replay = make_replay(None, learning=(10, 110))
  probability = tf.constant([0.5, 0.02], tf.float64)
  drawn = priorities.Drawn('pixels', None, None, probability, tf.constant([7, 7], tf.int64))
  weights = replay.weights(drawn, tf.Variable(agent_steps, dtype=tf.int64))
  np.testing.assert_allclose(weights, [(0.02 / 0.5) ** beta, 1], rtol=1e-5)


def test_priorities_by_number_are_no_more_than_replay_holds(replay_servers):
  """New rows get the largest, evicted ones are forgotten, and a checkpoint's arrays know all."""
  client = reverb.Client(replay_servers.start(CONFIG))
  replay = make_replay(client)
  numbers = np.arange(50)
  np.testing.assert_array_equal(replay.of(numbers), np.ones(50))
  keys = np.arange(3, dtype=np.uint64)  # of no item any more
  replay.update('pixels', keys, np.array([4, 7, 4]), np.float32([-2, 5, 0.5]))
  np.testing.assert_allclose(replay.of(np.array([3, 4, 7])), [1, 0.5, 5], rtol=1e-5)
  np.testing.assert_allclose(replay.of(np.array([50])), [5], rtol=1e-5)

  restored = make_replay(client)
  restored.restore(replay.state())
  every = np.arange(60)
  np.testing.assert_array_equal(restored.of(every), replay.of(every))

  later = np.arange(1000, 1200)
  np.testing.assert_allclose(replay.of(later), np.full(200, 5), rtol=1e-5)
  assert len(replay.state()['numbers']) < 100
  replay.update('pixels', keys[:1], np.array([7]), np.float32([0.1]))  # evicted: nothing to keep
  np.testing.assert_allclose(replay.of(later[-60:]), np.full(60, 5), rtol=1e-5)


def test_senseless_numbers_are_refused():
  with pytest.raises(ValueError, match='initial_beta is 1.5'):
    make_replay(None, initial_beta=1.5)
  with pytest.raises(ValueError, match='least_priority is 0'):
    make_replay(None, least_priority=0)
  with pytest.raises(ValueError, match='1 of 2 TD errors are not finite.*diverged'):
    numbers = np.arange(2)
    make_replay(None).update('pixels', numbers, numbers, np.float32([1, np.nan]))


def test_a_server_that_is_gone_is_named_in_time(replay_servers):
  address = replay_servers.start(CONFIG)
  replay = make_replay(reverb.Client(address), timeout_seconds=1)
  replay_servers.stop(address)
  with pytest.raises(TimeoutError, match=f'{address}, table latents, new priorities: no answer'):
    replay.update('latents', np.array([1]), np.array([1]), np.float32([1]))


def test_uniform_replay_has_neither_weights_nor_priorities():
  client, uniform = reverb.Client('localhost:1'), dataclasses.replace(CONFIG, priority_exponent=0.0)
  replay = priorities.of_replay(client, uniform, (0, 100), 1)
  assert isinstance(replay, priorities.UniformReplay)
  assert replay.weights((), 0) is None
  assert isinstance(priorities.of_replay(client, CONFIG, (0, 100), 1), priorities.PrioritisedReplay)
