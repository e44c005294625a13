"""Replay's tables and the shape of what they hold, as one function of a configuration.

Rows. A writer feeds replay one stream of rows that never ends; episodes follow each other in it.
Row t says what happened from agent step t to t + 1, as a TF-Agents `Trajectory` does.

Items. An item (what a table holds, evicts and samples) is a window over consecutive rows:

    [ history rows | own rows | lookahead rows ]

Each row is an *own* row of exactly one item of a table; as history and lookahead it is shared with
its neighbours, chunk by chunk, so that it is stored once. History rebuilds frame stacks, lookahead
n-step returns. Items own blocks of rows where they can, because an item costs the server about 2 KB
whatever it holds, which is more than a latent. Prioritised replay is the exception: a priority
belongs to a transition, so that each row then pays for an item of its own.

Steps. What Reverb calls a step is `rows_per_step` consecutive rows: of pixels as many as an item
owns, of latents as many as are compressed together, so that a row costs hardly any work by itself.
Of the frames in a step the first is stored as it is and each other as its difference to the one
before, which compresses better.

Columns. A table stores two: the observation, and all else of a row packed into bytes, because each
chunk of each column costs the server about 1 KB, and each column of a sample its time. `pack` and
`unpack` turn rows into stored ones and back.
"""

import dataclasses
import functools
import math
from typing import Any, List, Mapping, NamedTuple, Tuple

import gin
import numpy as np
import reverb
import tensorflow as tf
import tree

# Step type of rows that only fill a window at the two ends of a stream. FIRST, MID and LAST are
# 0, 1 and 2, as in TF-Agents.
PADDING = 3


# Rows of one item of table `drain`: longer ones drain faster, and keep frames alive for longer.
_DRAIN_BLOCK = 32


class Row(NamedTuple):
  """One row of a stream, or with a leading dimension of `window` the rows of an item.

  Attributes:
    observation: at t. Pixels: the newest frame only, uint8 [H, W, C]. Latents: [K, D], of K crops,
      as a codec stores them.
    action: taken at t.
    reward: float32, r_{t+1}.
    discount: float32, the environment's discount d_{t+1}: 0 where the episode truly ends, else 1.
    step_type: int32, of t: FIRST, MID, LAST or PADDING. A LAST row carries the observation that
      ended the episode; its action, reward and discount mean nothing.
    number: int64, of the row: `first_number` of its stream and one more for each row before it; it
      stays the same when pixels become latents. PADDING has -1. None in a row that is appended: one
      more than the row before.
  """

  observation: Any
  action: Any
  reward: Any
  discount: Any
  step_type: Any
  number: Any = None


class StoredRow(NamedTuple):
  """A row as tables store it.

  Attributes:
    observation: as in `Row`, but frames as their differences.
    rest: uint8 [bytes], the other fields of `Row`, one behind the other.
  """

  observation: Any
  rest: Any


@dataclasses.dataclass(frozen=True)
class Layout:
  """How one item divides its window, in rows, and how a writer groups and compresses them.

  Attributes:
    history: rows before the own ones.
    block_length: own rows.
    lookahead: rows after them.
    chunk_length: rows compressed together.
    rows_per_step: rows in one step of Reverb; history, block and lookahead are multiples of it.
  """

  history: int
  block_length: int
  lookahead: int
  chunk_length: int
  rows_per_step: int = 1

  @property
  def window(self) -> int:
    """Rows in one item."""
    return self.history + self.block_length + self.lookahead


@gin.configurable
@dataclasses.dataclass(frozen=True)
class ReplayConfig:
  """What replay holds. Server, writers and datasets must be given equal ones: see `differences`.

  Attributes:
    frame_shape: of one uint8 frame, (height, width, channels).
    frame_stack: frames in one observation of the agent.
    action_shape: shape of one action.
    action_dtype: name of its dtype.
    latent_size: D, numbers in one latent.
    latents_dtype: name of the dtype in which a codec stores them, such as uint8.
    stored_crops: K, random crops of each observation whose latents are stored.
    n_step: agent steps in the return of a sampled transition.
    pixels_capacity: rows the pixel table holds, rounded up to whole blocks; one row per agent step
      and one per episode.
    latents_capacity: rows the latent table holds, rounded up to whole blocks.
    block_length: own rows of one latent item. Longer blocks save bookkeeping in the server; a
      sample ships a whole block to use one row of it, so they cost CPU in proportion.
    pixels_block_length: own rows of one pixel item, with the same bargain: a sample ships that many
      frames and its stacks.
    pixels_chunk_length: frames compressed together. Longer chunks compress better; a sample ships
      and unpacks whole chunks.
    latents_chunk_length: latent rows compressed together, likewise.
    priority_exponent: omega; 0 for uniform replay. Above it, items of `pixels` and `latents` are
      drawn in proportion to priority ** omega (see `priorities`), and both block lengths must be 1.

  Raises:
    ValueError: if a value makes no sense; the message names it.
  """

  frame_shape: Tuple[int, int, int]
  frame_stack: int
  action_shape: Tuple[int, ...]
  action_dtype: str
  latent_size: int
  stored_crops: int
  n_step: int
  pixels_capacity: int
  latents_capacity: int
  latents_dtype: str = 'float32'
  block_length: int = 32
  pixels_block_length: int = 1
  pixels_chunk_length: int = 8
  latents_chunk_length: int = 32
  priority_exponent: float = 0.0

  def __post_init__(self):
    for name in ('frame_shape', 'action_shape'):  # gin and JSON give lists
      object.__setattr__(self, name, tuple(int(size) for size in getattr(self, name)))
    if len(self.frame_shape) != 3 or min(self.frame_shape) < 1:
      raise ValueError(
        f'frame_shape is {self.frame_shape}; give (height, width, channels), each at least 1.'
      )
    for name in ('action_dtype', 'latents_dtype'):
      try:
        np.dtype(getattr(self, name))
      except TypeError as error:
        raise ValueError(
          f'{name} is {getattr(self, name)!r}; give the name of a NumPy dtype, such as float32.'
        ) from error
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.type is int and (not isinstance(value, (int, np.integer)) or value < 1):
        raise ValueError(f'{field.name} is {value!r}; give a whole number of at least 1.')
    if not 0 <= self.priority_exponent < math.inf:
      raise ValueError(
        f'priority_exponent is {self.priority_exponent}; give a finite number of at least 0 '
        '(0: uniform replay).'
      )
    if self.prioritised and (self.block_length, self.pixels_block_length) != (1, 1):
      raise ValueError(
        f'priority_exponent is {self.priority_exponent}, but items own blocks of '
        f'{self.pixels_block_length} rows of pixels and {self.block_length} of latents: a priority '
        'belongs to a transition, and all rows of an item would share one. Bind '
        'ReplayConfig.pixels_block_length = 1, ReplayConfig.block_length = 1 and '
        'Experiment.draws_per_block = 1, or ReplayConfig.priority_exponent = 0 for uniform replay.'
      )

  @property
  def prioritised(self) -> bool:
    """Whether transitions are drawn by priority."""
    return self.priority_exponent > 0

  @property
  def pixels_layout(self) -> Layout:
    """How items of the `pixels` table divide their windows."""
    return self._frames_layout(self.pixels_block_length, self.n_step)

  @property
  def drain_layout(self) -> Layout:
    """How items of the `drain` table do: long blocks, as each is read but once, and no future."""
    rows = self._frames_layout(1, 0).rows_per_step
    return self._frames_layout(math.ceil(_DRAIN_BLOCK / rows) * rows, 0)

  def _frames_layout(self, block_length, lookahead) -> Layout:
    rows = math.gcd(self.pixels_block_length, self.pixels_chunk_length)
    whole_steps = lambda count: math.ceil(count / rows) * rows
    history, lookahead = whole_steps(self.frame_stack - 1), whole_steps(lookahead)
    return Layout(history, block_length, lookahead, self.pixels_chunk_length, rows)

  @property
  def latents_layout(self) -> Layout:
    """How items of the `latents` table divide their windows."""
    rows = math.gcd(self.block_length, self.latents_chunk_length)
    whole_steps = math.ceil(self.n_step / rows) * rows
    return Layout(0, self.block_length, whole_steps, self.latents_chunk_length, rows)

  @property
  def pixels_layouts(self) -> Mapping[str, Layout]:
    """Tables that a writer of pixels feeds."""
    return {'pixels': self.pixels_layout, 'drain': self.drain_layout}

  @property
  def latents_layouts(self) -> Mapping[str, Layout]:
    """Tables that a writer of latents feeds."""
    return {'latents': self.latents_layout}

  @property
  def rows_to_sample(self) -> int:
    """Rows that a stream must have before each table surely holds a transition to sample."""
    layouts = (self.pixels_layout, self.latents_layout)
    return max(layout.block_length + layout.lookahead for layout in layouts)

  @property
  def pixels_row(self) -> Row:
    """Specs of one row of the `pixels` and `drain` tables: `tf.TensorSpec`s without a window."""
    return self._row_spec(self.frame_shape, tf.uint8)

  @property
  def latents_row(self) -> Row:
    """Specs of one row of the `latents` table."""
    return self._row_spec((self.stored_crops, self.latent_size), tf.as_dtype(self.latents_dtype))

  def _row_spec(self, observation_shape, observation_dtype) -> Row:
    return Row(
      observation=tf.TensorSpec(observation_shape, observation_dtype, 'observation'),
      action=tf.TensorSpec(self.action_shape, tf.as_dtype(self.action_dtype), 'action'),
      reward=tf.TensorSpec((), tf.float32, 'reward'),
      discount=tf.TensorSpec((), tf.float32, 'discount'),
      step_type=tf.TensorSpec((), tf.int32, 'step_type'),
      number=tf.TensorSpec((), tf.int64, 'number'),
    )


# Rows of one stream, at most. Streams are told apart by what their rows' numbers have above that.
STREAM_ROWS = 2**32


def first_number(stream: int) -> int:
  """Number of the first row of a stream, 0 <= stream < 2**31."""
  return stream * STREAM_ROWS


def stream_of(number):
  """The stream that the rows of these numbers belong to; not for PADDING."""
  return number // STREAM_ROWS


# What learner and actors tell each other: tables `variables` and `actors`, see `messages`.
# Dictionaries, because Reverb pairs values by position and dictionaries are flattened by key.
# Write them with `Client.insert`; a sample then has shape [1] where the signature says ().
VARIABLES_SIGNATURE = {
  'phase': tf.TensorSpec((), tf.int32),
  'draining': tf.TensorSpec((), tf.int32),
  'fingerprint': tf.TensorSpec((), tf.string),
  'codec': tf.TensorSpec((), tf.string),
  'env_frames': tf.TensorSpec((), tf.int64),
  'agent_steps': tf.TensorSpec((), tf.int64),
  'updates': tf.TensorSpec((), tf.int64),
  'version': tf.TensorSpec((), tf.int64),
  'learner': tf.TensorSpec((), tf.int64),
  'weights': tf.TensorSpec((), tf.string),
  'configuration': tf.TensorSpec((), tf.string),
  'checkpoint_order': tf.TensorSpec((), tf.int64),
  'restore_order': tf.TensorSpec((), tf.int64),
  'may_act': tf.TensorSpec((), tf.int32),
  'is_over': tf.TensorSpec((), tf.int32),
  'flops': tf.TensorSpec((), tf.float64),
  'seconds': tf.TensorSpec((), tf.float64),
}
ACTORS_SIGNATURE = {
  'stream': tf.TensorSpec((), tf.int64),
  'phase': tf.TensorSpec((), tf.int32),
  'version': tf.TensorSpec((), tf.int64),
  'env_frames': tf.TensorSpec((), tf.int64),
  'agent_steps': tf.TensorSpec((), tf.int64),
  'rows': tf.TensorSpec((), tf.int64),
  'last_return': tf.TensorSpec((), tf.float64),
  'is_leaving': tf.TensorSpec((), tf.int32),
}
_MESSAGES = 1000  # of actors that wait for the learner; beyond that the oldest are dropped

# What a replay server publishes about itself, some times a second: table `server`.
SERVER_SIGNATURE = {
  # Memory of its process, in bytes: resident now; resident when it had started with its tables
  # empty; allocated now for what it holds; what it may allocate for that, infinite without a limit.
  'resident_bytes': tf.TensorSpec((), tf.int64),
  'empty_bytes': tf.TensorSpec((), tf.int64),
  'used_bytes': tf.TensorSpec((), tf.int64),
  'budget_bytes': tf.TensorSpec((), tf.float64),
  'machine_bytes': tf.TensorSpec((), tf.int64),  # memory of the machine it runs on
  # Of this start of its process; the newest `checkpoint_order` that it has carried out; checkpoints
  # that it has completed, those of earlier starts included.
  'incarnation': tf.TensorSpec((), tf.int64),
  'checkpoint_order': tf.TensorSpec((), tf.int64),
  'checkpoints': tf.TensorSpec((), tf.int64),
  # Of what a learner has published, as far as it has read.
  'version': tf.TensorSpec((), tf.int64),
  'learner': tf.TensorSpec((), tf.int64),
  # `capacity.Capacity` in words, and the phase from which on it kept to it: see `keeper.Keeper`.
  'capacity': tf.TensorSpec((), tf.string),
  'phase': tf.TensorSpec((), tf.int32),
  # Own rows of all items of `pixels`, of `latents` once that phase is over, and the number of the
  # first one that `pixels` holds, or held when its phase ended.
  'rows': tf.TensorSpec((), tf.int64),
  'pixels_first_row': tf.TensorSpec((), tf.int64),
}


def padding_row(spec: Row) -> Row:
  """The row of zeros, marked PADDING, with which a writer fills windows at a stream's ends."""
  zeros = Row(*(np.zeros(leaf.shape, leaf.dtype.as_numpy_dtype) for leaf in spec))
  return zeros._replace(step_type=np.asarray(PADDING, np.int32), number=np.asarray(-1, np.int64))


def pack(rows: Row) -> StoredRow:
  """Rows of arrays [N, ...] as tables store them, [N, ...]."""
  count = len(rows.step_type)
  parts = (np.ascontiguousarray(value).reshape(count, -1).view(np.uint8) for value in rows[1:])
  return StoredRow(rows.observation, np.concatenate(list(parts), axis=1))


def own_numbers(rest: np.ndarray, layout: Layout, spec: Row) -> np.ndarray:
  """Numbers of an item's own rows, int64 [block_length], from its column `rest` as stored."""
  rows = np.ascontiguousarray(rest.reshape(layout.window, -1)[layout.history :])
  return rows[: layout.block_length, -_packed_bytes(spec.number) :].copy().view(np.int64)[:, 0]


def _are_frames(row_shape) -> bool:
  return len(row_shape) == 3


def frame_differences(step: StoredRow) -> StoredRow:
  """A step of rows [rows_per_step, ...], its frames as stored; latents stay as they are.

  The first frame is itself and each other one its difference to the one before, modulo 256.
  """
  frames = step.observation
  if not _are_frames(frames.shape[1:]):
    return step
  return step._replace(observation=np.concatenate([frames[:1], frames[1:] - frames[:-1]]))


def _frames(differences):
  """Frames [..., rows_per_step, H, W, C] of what `frame_differences` made of them."""
  axis = differences.shape.rank - 4
  frames = []
  for difference in tf.unstack(differences, axis=axis):
    frames.append(frames[-1] + difference if frames else difference)
  return tf.stack(frames, axis=axis)


def unpack(stored: StoredRow, spec: Row) -> Row:
  """Rows from what tables store of them.

  Args:
    stored: tensors [..., steps, rows_per_step, ...], with any dimensions in front.
    spec: specs of one row.

  Returns:
    `Row` of tensors [..., window, ...], window = steps * rows_per_step.
  """
  if _are_frames(spec.observation.shape):
    stored = stored._replace(observation=_frames(tf.convert_to_tensor(stored.observation)))
  stored = StoredRow(*map(_rows_of_steps, stored, (spec.observation.shape.rank, 1)))
  leading = tf.shape(stored.rest)[:-1]
  fields, first = [], 0
  for leaf in spec[1:]:
    last = first + _packed_bytes(leaf)
    grouped = [] if leaf.dtype.size == 1 else [leaf.dtype.size]
    shape = tf.concat([leading, leaf.shape, grouped], axis=0)
    value = tf.bitcast(tf.reshape(stored.rest[..., first:last], shape), leaf.dtype)
    fields.append(tf.ensure_shape(value, stored.rest.shape[:-1] + leaf.shape))
    first = last
  return Row(stored.observation, *fields)


def _rows_of_steps(column, row_rank: int):
  """[..., steps, rows_per_step, ...] -> [..., steps * rows_per_step, ...]; rows have `row_rank`."""
  column = tf.convert_to_tensor(column)
  front = column.shape.rank - row_rank - 2
  steps, rows_per_step = column.shape[front : front + 2]
  shape = tf.shape(column)
  rows = tf.reshape(column, tf.concat([shape[:front], [-1], shape[front + 2 :]], axis=0))
  static = column.shape[:front] + [steps * rows_per_step] + column.shape[front + 2 :]
  return tf.ensure_shape(rows, static)


def _packed_bytes(leaf: tf.TensorSpec) -> int:
  return leaf.shape.num_elements() * leaf.dtype.size


def window_spec(spec: Row, layout: Layout) -> StoredRow:
  """Specs of one item, as stored: those of a row, led by the window.

  The names of the two specs carry the layout and the fields, so that two configurations whose
  windows are equally long but divided differently (a longer stack, a shorter return), or packed
  differently, are told apart.
  """
  divided = f'{layout.history}+{layout.block_length}+{layout.lookahead}'
  step = [layout.window // layout.rows_per_step, layout.rows_per_step]
  packed = ', '.join(f'{leaf.name} {leaf.dtype.name} {leaf.shape.as_list()}' for leaf in spec[1:])
  rest = [sum(map(_packed_bytes, spec[1:]))]
  return StoredRow(
    tf.TensorSpec(step + spec.observation.shape, spec.observation.dtype, divided),
    tf.TensorSpec(step + rest, tf.uint8, packed),
  )


def windows(
  server_address: str,
  table: str,
  spec: StoredRow,
  max_in_flight: int,
  timeout_seconds: float,
  max_samples: int = -1,
) -> reverb.TrajectoryDataset:
  """Items of a table of windows, as `ReplaySample`s whose data is a `StoredRow` like `spec`.

  One worker reads, so that a table with a Fifo sampler gives them in order.

  Args:
    server_address: 'host:port'.
    table: its name.
    spec: its signature, `window_spec`.
    max_in_flight: items asked for ahead.
    timeout_seconds: limit of a wait for the table's first item; the dataset just ends then. A
      server that is gone is waited for without limit: guard the reading itself.
    max_samples: items after which the dataset ends; -1 for none.
  """
  return reverb.TrajectoryDataset(
    server_address=server_address,
    table=table,
    dtypes=tf.nest.map_structure(lambda leaf: leaf.dtype, spec),
    shapes=tf.nest.map_structure(lambda leaf: leaf.shape, spec),
    max_in_flight_samples_per_worker=max_in_flight,
    num_workers_per_iterator=1,
    rate_limiter_timeout_ms=int(1000 * timeout_seconds),
    max_samples=max_samples,
  )


def make_tables(config: ReplayConfig) -> List[reverb.Table]:
  """All tables of a replay server.

  pixels: an item per row (or few) with frame stacks and n-step future, sampled uniformly, or by
    priority if the configuration says so.
  drain: the same rows in blocks. A writer puts each row into both, and each comes out of here once,
    in order: so pixels become latents at the freeze. Frames are shared between the two. Full, and
    of one stream, it holds a block or two of rows more than `pixels`, which has already evicted
    these. Each further stream that ends within it may leave up to a block of its room empty: so
    many of the oldest rows that a full `pixels` still holds are not converted.
  latents: an item per block of `block_length` rows. Blocks are sampled uniformly and a consumer
    draws rows uniformly inside, so every stored row is equally likely. By priority: one row.
  variables, server: one item each, the newest; actors: a queue; see their signatures above.

  No table ever blocks a writer: a full one evicts its oldest item. Readers wait for one item.
  Row order holds within one stream; several writers' items are interleaved.
  """
  pixels = window_spec(config.pixels_row, config.pixels_layout)
  drain = window_spec(config.pixels_row, config.drain_layout)
  latents = window_spec(config.latents_row, config.latents_layout)
  blocks = lambda rows, layout: math.ceil(rows / layout.block_length)
  pixel_blocks = blocks(config.pixels_capacity, config.pixels_layout)
  drain_blocks = blocks(pixel_blocks * config.pixels_block_length, config.drain_layout) + 1
  latent_blocks = blocks(config.latents_capacity, config.latents_layout)
  fifo, drawn = reverb.selectors.Fifo, reverb.selectors.Uniform
  if config.prioritised:
    drawn = functools.partial(reverb.selectors.Prioritized, config.priority_exponent)
  return [
    _table('pixels', drawn(), pixel_blocks, pixels),
    _table('drain', fifo(), drain_blocks, drain, max_times_sampled=1),
    _table('latents', drawn(), latent_blocks, latents),
    _table('variables', fifo(), 1, VARIABLES_SIGNATURE),
    _table('actors', fifo(), _MESSAGES, ACTORS_SIGNATURE, max_times_sampled=1),
    _table('server', fifo(), 1, SERVER_SIGNATURE),
  ]


def _table(name, sampler, max_size, signature, max_times_sampled=0) -> reverb.Table:
  return reverb.Table(
    name=name,
    sampler=sampler,
    remover=reverb.selectors.Fifo(),
    max_size=max_size,
    max_times_sampled=max_times_sampled,
    rate_limiter=reverb.rate_limiters.MinSize(1),
    signature=signature,
  )


def differences(config: ReplayConfig, server_info: Mapping[str, Any]) -> List[str]:
  """Says in words where a running server's tables are not those of `config`.

  Args:
    config: the configuration expected.
    server_info: what `reverb.Client.server_info` returned.

  Returns:
    One line per entry that differs, such as 'table pixels: max_size is 5000 on the server, 8000
    in the configuration'; empty if the server suits. Tables that the configuration does not
    know are ignored.
  """
  lines = []
  for table in make_tables(config):
    if table.name not in server_info:
      lines.append(f'table {table.name}: missing on the server')
      continue
    ours, theirs = _entries(table.info), _entries(server_info[table.name])
    for entry in sorted(ours.keys() | theirs.keys()):
      if ours.get(entry) != theirs.get(entry):
        lines.append(
          f'table {table.name}: {entry} is {theirs.get(entry, "absent")} on the server, '
          f'{ours.get(entry, "absent")} in the configuration'
        )
  return lines


def _entries(info) -> Mapping[str, Any]:
  """What defines a table, by name, in a form that can be compared and read."""
  limiter = info.rate_limiter_info
  entries = {
    'sampler': _in_words(info.sampler_options),
    'remover': _in_words(info.remover_options),
    'max_size': info.max_size,
    'max_times_sampled': info.max_times_sampled,
    'rate limiter': (
      f'min_size_to_sample {limiter.min_size_to_sample}, '
      f'samples_per_insert {limiter.samples_per_insert:g}, '
      f'min_diff {limiter.min_diff:g}, max_diff {limiter.max_diff:g}'
    ),
  }
  for path, spec in tree.flatten_with_path(info.signature or {}):
    name = '.'.join(str(key) for key in path)
    entries[name] = f'{spec.dtype.name} {spec.shape.as_list()}'
    if spec.name:
      named = {
        'observation': 'rows of an item (history+own+lookahead)',
        'rest': 'fields packed into rest',
      }
      entries[named[name]] = spec.name
  return entries


def _in_words(options) -> str:
  """`uniform`, `fifo`, ... with its parameters, from a Reverb KeyDistributionOptions message."""
  selector = options.WhichOneof('distribution')
  parameters = getattr(options, selector) if selector else ''
  return str(selector) if parameters is True else f'{selector} {parameters}'.strip()
