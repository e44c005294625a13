"""Finds rows of replay that are lost, doubled, or not what they must be."""

import collections
from typing import Callable, Dict, List, Mapping, NamedTuple, Sequence

import numpy as np
import reverb
import tensorflow as tf

from seer_tf.replay import server, tables
from tests.soak import environment

_SHOWN = 5  # faults of a kind that are named
_READ_SECONDS = 300  # limit of reading one table


class Held(NamedTuple):
  """What a table holds.

  Attributes:
    windows: items, as `tables.Row`s of arrays [window, ...].
    layout: of the items.
  """

  windows: Sequence[tables.Row]
  layout: tables.Layout

  @property
  def own(self) -> tables.Row:
    """Own rows of all items, without padding, as arrays [N, ...]."""
    own = slice(self.layout.history, self.layout.history + self.layout.block_length)
    rows = tables.Row(
      *(np.concatenate([column[own] for column in columns]) for columns in zip(*self.windows))
    )
    return tables.Row(*(column[rows.step_type != tables.PADDING] for column in rows))

  @property
  def numbers(self) -> np.ndarray:
    """Of own rows, int64."""
    return self.own.number if self.windows else np.zeros(0, np.int64)


class Faults(NamedTuple):
  """Descriptions of what is wrong."""

  lost: List[str]
  doubled: List[str]
  stale: List[str]


def read(client: reverb.Client, config: tables.ReplayConfig) -> Dict[str, Held]:
  """Everything in tables `pixels`, `drain` and `latents`; empties `drain`."""
  tables_of = [
    ('drain', config.drain_layout, config.pixels_row),
    ('pixels', config.pixels_layout, config.pixels_row),
    ('latents', config.latents_layout, config.latents_row),
  ]
  return {
    name: server.with_limit(
      lambda name=name, layout=layout, row=row: _read(client, name, layout, row),
      _READ_SECONDS,
      f'table {name}, all items',
    )
    for name, layout, row in tables_of
  }


def _read(client: reverb.Client, name: str, layout: tables.Layout, row: tables.Row) -> Held:
  """All items of a table: table `drain` gives each once, the others any at random."""
  count = client.server_info(20)[name].current_size
  if not count:
    return Held([], layout)
  spec, is_drain = tables.window_spec(row, layout), name == 'drain'
  samples = tables.windows(
    client.server_address, name, spec, 1 if is_drain else 64, 10, count if is_drain else -1
  )
  windows = {}
  for sample in samples.batch(64):
    for i, key in enumerate(sample.info.key.numpy().tolist()):
      if key not in windows:
        window = tables.unpack(
          tf.nest.map_structure(lambda column, i=i: column[i], sample.data), row
        )
        windows[key] = tables.Row(*(column.numpy() for column in window))
    if len(windows) == count:
      break
  assert len(windows) == count, f'{len(windows)} of {count} items of table {name} could be read'
  return Held(list(windows.values()), layout)


def audit(
  held: Mapping[str, Held],
  acknowledged: np.ndarray,
  are_strange: Callable[[np.ndarray, np.ndarray], np.ndarray],
  may_evict: bool = False,
) -> Faults:
  """Compares what replay holds at the end of a run with what it must hold.

  Args:
    held: by table.
    acknowledged: numbers of rows that no death of the server can have taken, int64 [N].
    are_strange: (stacks uint8 [N, C] of one colour each, stored latents [N, K, D]) -> bool [N],
      whether these are not the latents of those: see `comparison`.
    may_evict: whether rows that come before all others of their stream may be missing.
  """
  numbers = held['latents'].numbers
  doubled = [
    f'row {_name(number)} is {count} times in latents'
    for number, count in zip(*np.unique(numbers, return_counts=True))
    if count > 1
  ]
  left = np.union1d(held['pixels'].numbers, held['drain'].numbers)
  doubled += [
    f'row {_name(number)} is in latents and in pixels' for number in np.intersect1d(left, numbers)
  ]
  missing = np.setdiff1d(acknowledged, numbers)
  if may_evict and len(missing):
    firsts = _firsts(numbers)
    missing = np.array([n for n in missing if n > firsts.get(tables.stream_of(n), np.inf)])
  lost = [
    f'row {_name(number)} is {"still pixels" if number in left else "nowhere"}'
    for number in missing.tolist()
  ]
  stale = _across(held['latents']) + _contents(held['latents'], are_strange)
  return Faults(lost, doubled, stale)


def comparison(lower, image_size: int, codec) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
  """What `audit` compares latents by.

  Args:
    lower: encoder of the run.
    image_size: of the images that it takes.
    codec: its codec, as it was calibrated.
  """

  def are_strange(stacks, stored):
    images = np.tile(stacks[:, None, None], [1, image_size, image_size, 1])
    latents = lower(tf.constant(images)).numpy()
    expected = np.repeat(latents[:, None], stored.shape[1], axis=1)
    error = np.abs(codec.decode(tf.constant(stored)).numpy() - expected)
    return (error > codec.error_bound(expected) + 2e-4).any(axis=(1, 2))

  return are_strange


def _firsts(numbers) -> Dict[int, int]:
  """Stream -> its lowest number."""
  firsts = {}
  for number in np.sort(numbers)[::-1].tolist():
    firsts[tables.stream_of(number)] = number
  return firsts


def _name(number: int) -> str:
  return f'{tables.stream_of(int(number))}:{int(number) % tables.STREAM_ROWS}'


def _across(held: Held) -> List[str]:
  """Items whose rows do not follow each other."""
  faults = []
  for window in held.windows:
    numbers = window.number[window.step_type != tables.PADDING]
    if (np.diff(numbers) != 1).any() or (window.number[: len(numbers)] != numbers).any():
      faults.append(f'an item has rows {", ".join(map(_name, numbers))}')
  return faults


def _contents(held: Held, are_strange) -> List[str]:
  """Rows that are not what their stream says."""
  if not held.windows:
    return []
  rows, faults = held.own, []
  by_stream = collections.defaultdict(list)
  for position, stream in enumerate(tables.stream_of(rows.number).tolist()):
    by_stream[stream].append(position)
  for stream, positions in by_stream.items():
    own = tables.Row(*(column[positions] for column in rows))
    index = own.number - tables.first_number(stream)
    acted = own.step_type != 2
    if not acted.any():
      continue
    identity, count = environment.told(own.reward[acted])
    base = np.median(count - index[acted]).astype(np.int64)
    expected = environment.rows(np.median(identity).astype(np.int64), base, index)
    wrong = own.step_type != expected.step_type
    wrong |= acted & ((own.reward != expected.reward) | (own.discount != expected.discount))
    faults += [f'row {_name(number)} is another agent step' for number in own.number[wrong]]
    strange = are_strange(expected.stack, own.observation)
    faults += [f'row {_name(number)} has other latents' for number in own.number[strange & ~wrong]]
  return faults


def shown(faults: Faults) -> str:
  """The first few of each kind, a line each."""
  lines = []
  for kind, found in faults._asdict().items():
    lines += [f'  {kind}: {line}' for line in found[:_SHOWN]]
    if len(found) > _SHOWN:
      lines.append(f'  {kind}: and {len(found) - _SHOWN} more')
  return '\n'.join(lines)
