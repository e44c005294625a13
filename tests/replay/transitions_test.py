"""The transition builder against a reference that replays each episode in plain Python."""

import collections
from typing import List, NamedTuple

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy import stats
import tensorflow as tf

from seer_tf.replay import tables, transitions

FIRST, MID, LAST, PADDING = 0, 1, 2, tables.PADDING
SIDE = 2  # frames are SIDE x SIDE x 1


class Step(NamedTuple):
  """One row of the stream and what the live episode says about it."""

  episode: int
  row: tables.Row
  live_stack: List[int]  # frame numbers a frame-stacking environment showed
  rest: List['Step']  # later rows of the same episode, in order


# An episode: discounts of its agent steps, and whether its last observation was stored.
EPISODES = st.lists(
  st.tuples(
    st.lists(st.sampled_from([1.0, 1.0, 1.0, 0.5]), max_size=6),
    st.sampled_from(['terminal', 'time limit', 'cut']),
  ),
  min_size=1,
  max_size=6,
)
CASES = st.fixed_dictionaries(
  {
    'episodes': EPISODES,
    'front': st.integers(0, 4),
    'behind': st.integers(0, 6),
    'n_step': st.integers(1, 5),
    'frame_stack': st.integers(1, 4),
    'gamma': st.floats(0.5, 1.0),
    'seed': st.integers(0, 2**16),
  }
)
SETTINGS = hypothesis.settings(max_examples=60, deadline=None)


def live_stream(case):
  """Plays the episodes; returns the stream's Steps in order. Frame numbers count from 1."""
  rng = np.random.default_rng(case['seed'])
  stream, frame = [], 0
  for number, (first_discounts, end) in enumerate(case['episodes']):
    # At a cut the observation after the last of these steps was never stored.
    last_discount = {'terminal': 0.0, 'time limit': 1.0, 'cut': float(rng.choice([0.0, 1.0]))}[end]
    discounts = [*first_discounts, last_discount]
    stack = collections.deque(maxlen=case['frame_stack'])
    steps = []
    for t in range(len(discounts) + (end != 'cut')):
      frame += 1
      stack.extend([frame] * (case['frame_stack'] if t == 0 else 1))
      over = t == len(discounts)
      row = tables.Row(
        observation=frame,
        action=rng.normal(size=2),
        reward=np.nan if over else rng.normal(),
        discount=np.nan if over else discounts[t],
        step_type=LAST if over else (MID if t else FIRST),
      )
      steps.append(Step(number, row, list(stack), []))
    stream += [step._replace(rest=steps[t + 1 :]) for t, step in enumerate(steps)]
  return stream


def expected_targets(step, n_step, gamma):
  """(k, return, discount) of the transition that starts at `step`, by the definition."""
  total, factor, k = 0.0, 1.0, 0
  row = step.row
  for following in step.rest[:n_step]:
    total += factor * row.reward
    factor *= gamma * row.discount
    row = following.row
    k += 1
  return k, total, factor


def as_batch(windows):
  """Lists of rows (None: padding) -> Row of arrays [B, W, ...]; frames filled with their number."""

  def column(name, filler, dtype):
    return tf.constant(
      np.array([[filler if r is None else getattr(r, name) for r in w] for w in windows], dtype)
    )

  frames = column('observation', 0, np.uint8)
  return tables.Row(
    observation=tf.tile(frames[..., None, None, None], [1, 1, SIDE, SIDE, 1]),
    action=column('action', np.full(2, np.nan), np.float32),
    reward=column('reward', np.nan, np.float32),
    discount=column('discount', np.nan, np.float32),
    step_type=column('step_type', PADDING, np.int32),
    number=tf.zeros([len(windows), len(windows[0])], tf.int64),
  )


def check(transition, valid, stream, starts, case, observation_of):
  """Compares a batch of transitions that start at the `starts` of `stream` with the reference."""
  for b, t in enumerate(starts):
    k, n_step_return, discount = expected_targets(stream[t], case['n_step'], case['gamma'])
    assert valid[b] == (k > 0), (b, t)
    if k == 0:
      continue
    start, end = stream[t], stream[t + k]
    assert end.episode == start.episode
    assert transition.time_step.step_type[b] == start.row.step_type
    assert transition.next_time_step.step_type[b] == end.row.step_type
    np.testing.assert_allclose(transition.action_step.action[b], start.row.action, rtol=1e-6)
    np.testing.assert_allclose(
      transition.next_time_step.reward[b], n_step_return, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(transition.next_time_step.discount[b], discount, rtol=1e-5)
    np.testing.assert_array_equal(transition.time_step.observation[b], observation_of(start))
    np.testing.assert_array_equal(transition.next_time_step.observation[b], observation_of(end))


def stack_of(step):
  return np.broadcast_to(np.array(step.live_stack, np.uint8), (SIDE, SIDE, len(step.live_stack)))


@SETTINGS
@hypothesis.given(CASES)
def test_whole_stream_in_one_window(case):
  stream = live_stream(case)
  rows = [None] * case['front'] + [step.row for step in stream] + [None] * case['behind']
  batch = as_batch([rows])
  count = len(stream)
  batch = tf.nest.map_structure(lambda x: tf.repeat(x, count, axis=0), batch)
  position = tf.range(count) + case['front']
  transition, valid = transitions.pixels_transition(
    batch, position, case['frame_stack'], case['n_step'], case['gamma']
  )
  check(transition, valid, stream, range(count), case, stack_of)


@SETTINGS
@hypothesis.given(CASES)
def test_shortest_windows_hold_all_that_is_needed(case):
  """History of a stack and lookahead of n rows give the same as the whole stream does."""
  stream = live_stream(case)
  history, n_step = case['frame_stack'] - 1, case['n_step']
  rows = [None] * history + [step.row for step in stream] + [None] * n_step
  windows = [rows[t : t + history + 1 + n_step] for t in range(len(stream))]
  position = tf.fill([len(stream)], history)
  transition, valid = transitions.pixels_transition(
    as_batch(windows), position, case['frame_stack'], n_step, case['gamma']
  )
  check(transition, valid, stream, range(len(stream)), case, stack_of)


@SETTINGS
@hypothesis.given(CASES, st.integers(1, 8), st.integers(1, 3))
def test_blocks_of_latents(case, block_length, crops):
  """Blocks of rows that overlap by n rows; the crop of an observation is one of its own."""
  stream = live_stream(case)
  rows = [step.row for step in stream] + [None] * (block_length + case['n_step'])
  starts = range(0, len(stream), block_length)
  for offset in range(block_length):
    kept = [s + offset for s in starts if s + offset < len(stream)]
    windows = [rows[t - offset : t - offset + block_length + case['n_step']] for t in kept]
    if not kept:
      continue
    batch = as_batch(windows)
    number = tf.cast(batch.observation[:, :, 0, 0, 0], tf.float16)
    latents = tf.stack([number + 0.25 * c for c in range(crops)], axis=-1)[..., None]
    batch = batch._replace(observation=tf.concat([latents, -latents], axis=-1))
    transition, valid = transitions.latents_transition(
      batch,
      tf.fill([len(kept)], offset),
      case['n_step'],
      case['gamma'],
      decode=lambda stored: tf.cast(stored, tf.float32),
    )
    for time_step in (transition.time_step, transition.next_time_step):
      observation = time_step.observation.numpy()
      assert observation.dtype == np.float32 and observation.shape == (len(kept), 2)
      np.testing.assert_array_equal(observation[:, 0], -observation[:, 1])
      assert np.all((observation[:, 0] % 1) * 4 < crops)
    whole = tf.nest.map_structure(tf.identity, transition)
    whole = whole._replace(
      time_step=whole.time_step._replace(observation=tf.floor(whole.time_step.observation[:, 0])),
      next_time_step=whole.next_time_step._replace(
        observation=tf.floor(whole.next_time_step.observation[:, 0])
      ),
    )
    check(whole, valid, stream, kept, case, lambda step: step.row.observation)


def test_worked_example_of_the_docstring():
  step_type = tf.constant([[FIRST, MID, MID, LAST, FIRST, MID, PADDING]] * 7)
  ones = tf.ones([7, 7])
  targets = transitions.n_step_targets(step_type, ones, ones, tf.range(7), n_step=3, gamma=0.5)
  np.testing.assert_array_equal(targets.steps, [3, 2, 1, 0, 1, 0, 0])
  np.testing.assert_array_equal(targets.valid, [True, True, True, False, True, False, False])
  np.testing.assert_allclose(targets.n_step_return.numpy()[[0, 1, 2, 4]], [1.75, 1.5, 1.0, 1.0])
  np.testing.assert_allclose(targets.discount.numpy()[[0, 1, 2, 4]], [0.125, 0.25, 0.5, 0.5])


def test_stacks_end_where_a_stream_begins_or_lost_rows():
  """Also where no FIRST row says so: a writer began in mid-episode, or rows went missing."""
  step_type = tf.constant([[PADDING, PADDING, MID, MID, LAST, MID, MID]] * 4)
  indices = transitions.stack_indices(step_type, tf.constant([2, 3, 4, 6]), frame_stack=3)
  np.testing.assert_array_equal(indices, [[2, 2, 2], [2, 2, 3], [2, 3, 4], [5, 5, 6]])


def test_time_limit_bootstraps_and_terminal_does_not():
  step_type = tf.constant([[FIRST, MID, LAST]] * 2)
  reward = tf.ones([2, 3])
  discount = tf.constant([[1.0, 1.0, 9.0], [1.0, 0.0, 9.0]])  # time limit, terminal
  targets = transitions.n_step_targets(step_type, reward, discount, tf.zeros(2, tf.int32), 5, 0.9)
  np.testing.assert_array_equal(targets.steps, [2, 2])
  np.testing.assert_allclose(targets.n_step_return, [1.9, 1.9], rtol=1e-6)
  np.testing.assert_allclose(targets.discount, [0.81, 0.0], rtol=1e-6)


def test_rows_behind_the_window_count_as_unwritten():
  step_type = tf.constant([[FIRST, MID, MID]])
  ones = tf.ones([1, 3])
  targets = transitions.n_step_targets(step_type, ones, ones, tf.constant([1]), 4, 1.0)
  assert targets.steps.numpy() == [1]
  last = transitions.n_step_targets(step_type, ones, ones, tf.constant([2]), 4, 1.0)
  assert not last.valid.numpy()[0]


def test_crops_are_uniform_and_independent():
  crops, batch_size = 4, 512
  latents = tf.broadcast_to(tf.range(crops, dtype=tf.float32)[:, None], [batch_size, 2, crops, 1])
  rows = tables.Row(
    observation=latents,
    action=tf.zeros([batch_size, 2, 1]),
    reward=tf.zeros([batch_size, 2]),
    discount=tf.ones([batch_size, 2]),
    step_type=tf.tile([[FIRST, MID]], [batch_size, 1]),
  )
  tf.random.set_seed(0)
  counts = np.zeros([crops, crops])
  build = tf.function(
    lambda: transitions.latents_transition(rows, tf.zeros([batch_size], tf.int32), 1, 0.9, seed=1)
  )
  for _ in range(20):
    transition, _ = build()
    now = transition.time_step.observation[:, 0].numpy().astype(int)
    then = transition.next_time_step.observation[:, 0].numpy().astype(int)
    np.add.at(counts, (now, then), 1)
  assert stats.chisquare(counts.ravel()).pvalue > 1e-4


@pytest.mark.parametrize('frame_stack', [1, 3])
def test_traces_with_unknown_batch_size(frame_stack):
  """As in a tf.data pipeline, where the batch is not known when the graph is built."""
  config = tables.ReplayConfig((SIDE, SIDE, 1), frame_stack, (2,), 'float32', 2, 1, 2, 10, 10)
  spec = tables.window_spec(config.pixels_row, config.pixels_layout)
  dataset = tf.data.Dataset.from_tensors(
    tables.StoredRow(*(tf.zeros(leaf.shape, leaf.dtype) for leaf in spec))
  )
  dataset = dataset.repeat(3).batch(2)

  def build(stored):
    rows = tables.unpack(stored, config.pixels_row)
    position = tf.fill([tf.shape(rows.reward)[0]], frame_stack - 1)
    return transitions.pixels_transition(rows, position, frame_stack, 2, 0.9)

  dataset = dataset.map(build)
  sizes = [transition.time_step.observation.shape for transition, _ in dataset]
  assert sizes == [(2, SIDE, SIDE, frame_stack), (1, SIDE, SIDE, frame_stack)]
  assert dataset.element_spec[0].time_step.observation.shape[1:] == (SIDE, SIDE, frame_stack)
