import dataclasses

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import reverb
import tensorflow as tf

from seer_tf.replay import tables

CONFIG = tables.ReplayConfig(
  frame_shape=(4, 6, 3),
  frame_stack=3,
  action_shape=(2,),
  action_dtype='float32',
  latent_size=5,
  stored_crops=4,
  n_step=2,
  pixels_capacity=56,
  latents_capacity=100,
  block_length=8,
  latents_chunk_length=4,
)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'frame_shape': (84, 84)}, r'frame_shape is \(84, 84\)'),
    ({'frame_shape': (84, 0, 3)}, r'frame_shape is \(84, 0, 3\)'),
    ({'action_dtype': 'floating'}, "action_dtype is 'floating'"),
    ({'latents_dtype': 'tiny'}, "latents_dtype is 'tiny'"),
    ({'n_step': 0}, 'n_step is 0'),
    ({'latents_capacity': 2.5}, 'latents_capacity is 2.5'),
    ({'latents_chunk_length': -1}, 'latents_chunk_length is -1'),
    ({'priority_exponent': -0.5}, 'priority_exponent is -0.5'),
    ({'priority_exponent': float('nan')}, 'priority_exponent is nan'),
    (
      {'priority_exponent': 0.5},
      'blocks of 1 rows of pixels and 8 of latents: a priority belongs to a transition.*'
      'ReplayConfig.block_length = 1',
    ),
    (
      {'priority_exponent': 0.5, 'block_length': 1, 'pixels_block_length': 4},
      'blocks of 4 rows of pixels and 1 of latents: a priority belongs to a transition',
    ),
  ],
)
def test_senseless_configuration_is_named(change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(CONFIG, **change)


def test_windows_are_those_of_the_layouts():
  made = {table.name: table.info for table in tables.make_tables(CONFIG)}
  assert {name: info.max_size for name, info in made.items()} == {
    'pixels': 56,
    'drain': 3,  # 56 rows in blocks of 32, and one more
    'latents': 13,  # 100 rows in blocks of 8, rounded up
    'variables': 1,
    'actors': 1000,
    'server': 1,
  }
  shapes = {
    name: [tuple(spec.shape) for spec in made[name].signature]
    for name in ('pixels', 'drain', 'latents')
  }
  rest = 2 * 4 + 4 + 4 + 4 + 8  # action, reward, discount, step type, number
  pixels = [(5, 1, 4, 6, 3), (5, 1, rest)]  # 2 history + 1 + 2 lookahead
  latents = [(3, 4, 4, 5), (3, 4, rest)]  # steps of 4: 8 rows + 4 lookahead
  drain = [(34, 1, 4, 6, 3), (34, 1, rest)]  # 2 history + 32
  assert shapes == {'pixels': pixels, 'drain': drain, 'latents': latents}
  assert made['latents'].signature.observation.dtype == tf.float32
  assert made['pixels'].signature.observation.dtype == tf.uint8


def test_an_equal_configuration_differs_in_nothing(replay_servers):
  info = reverb.Client(replay_servers.start(CONFIG)).server_info(timeout=20)
  assert tables.differences(CONFIG, info) == []


def test_prioritised_items_share_chunks_of_many_rows():
  config = dataclasses.replace(CONFIG, block_length=1, priority_exponent=0.5)
  assert config.latents_layout == tables.Layout(0, 1, 2, chunk_length=4, rows_per_step=1)
  uniform = dataclasses.replace(config, priority_exponent=0.0)
  assert tables.differences(config, {t.name: t.info for t in tables.make_tables(uniform)}) == [
    f'table {table}: sampler is uniform on the server, prioritized priority_exponent: 0.5 in the '
    'configuration'
    for table in ('pixels', 'latents')
  ]


@pytest.mark.parametrize(
  ('change', 'expected'),
  [
    (
      {'pixels_capacity': 80},
      [
        'table pixels: max_size is 56 on the server, 80 in the configuration',
        'table drain: max_size is 3 on the server, 4 in the configuration',
      ],
    ),
    (
      {'latent_size': 6},
      [
        'table latents: observation is float32 [3, 4, 4, 5] on the server, '
        'float32 [3, 4, 4, 6] in the configuration'
      ],
    ),
    (
      # Equally long windows of pixels, divided differently.
      {'frame_stack': 2, 'n_step': 3},
      [
        f'table {table}: rows of an item (history+own+lookahead) is {server} on the server, '
        f'{ours} in the configuration'
        for table, server, ours in [
          ('pixels', '2+1+2', '1+1+3'),
          ('drain', '2+32+0', '1+32+0'),
        ]
      ],
    ),
  ],
)
def test_differences_in_words(replay_servers, change, expected):
  info = reverb.Client(replay_servers.start(CONFIG)).server_info(timeout=20)
  lines = tables.differences(dataclasses.replace(CONFIG, **change), info)
  shapes = [line for line in lines if 'table drain: rest' in line or 'drain: observation' in line]
  assert [line for line in lines if line not in shapes] == expected


@pytest.mark.parametrize(
  ('change', 'expected'),
  [
    ({'sampler': reverb.selectors.Lifo()}, 'sampler is lifo on the server, uniform'),
    ({'remover': reverb.selectors.Lifo()}, 'remover is lifo on the server, fifo'),
    (
      {'sampler': reverb.selectors.Prioritized(0.5)},
      'sampler is prioritized priority_exponent: 0.5 on the server, uniform',
    ),
    ({'max_times_sampled': 1}, 'max_times_sampled is 1 on the server, 0'),
    ({'rate_limiter': reverb.rate_limiters.MinSize(7)}, 'rate limiter is min_size_to_sample 7'),
  ],
)
def test_differences_of_selectors_and_limiters(change, expected):
  made = {table.name: table for table in tables.make_tables(CONFIG)}
  info = {name: table.info for name, table in made.items()}
  info['latents'] = made['latents'].replace(**change).info
  (line,) = tables.differences(CONFIG, info)
  assert line.startswith(f'table latents: {expected}')
  assert line.endswith('in the configuration')


def test_a_missing_table_is_named():
  info = {table.name: table.info for table in tables.make_tables(CONFIG)}
  del info['drain']
  assert tables.differences(CONFIG, info) == ['table drain: missing on the server']


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
  shape=st.sampled_from([(), (1,), (3,), (2, 2)]),
  dtype=st.sampled_from(['float32', 'float64', 'int64', 'int32', 'uint8', 'int8']),
  leading=st.sampled_from([(), (4,), (2, 3)]),
  steps=st.integers(1, 3),
  rows_per_step=st.integers(1, 3),
  seed=st.integers(0, 99),
)
def test_packed_rows_come_back_bit_by_bit(shape, dtype, leading, steps, rows_per_step, seed):
  config = dataclasses.replace(CONFIG, action_shape=shape, action_dtype=dtype)
  spec, rng = config.latents_row, np.random.default_rng(seed)
  stored_shape = (*leading, steps, rows_per_step)
  count = int(np.prod(stored_shape))
  random = lambda leaf: np.frombuffer(
    rng.bytes(count * leaf.shape.num_elements() * leaf.dtype.size), leaf.dtype.as_numpy_dtype
  ).reshape([count, *leaf.shape])
  rows = tables.Row(*map(random, spec))
  stored = [column.reshape(stored_shape + column.shape[1:]) for column in tables.pack(rows)]
  # As in a graph, where no size in front is known.
  unknown = [None] * len(leading)
  signature = [
    tf.TensorSpec(unknown + list(column.shape[len(leading) :]), column.dtype) for column in stored
  ]
  unpack = tf.function(lambda *columns: tables.unpack(tables.StoredRow(*columns), spec), signature)
  front = (*leading, steps * rows_per_step)
  for leaf, column, wanted, name in zip(spec, unpack(*stored), rows, tables.Row._fields):
    assert (column.shape, column.dtype) == (front + tuple(leaf.shape), leaf.dtype), name
    assert column.numpy().tobytes() == wanted.tobytes(), name
