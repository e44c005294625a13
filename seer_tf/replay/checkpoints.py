"""Checkpoints of a replay server on disk; `checkpointer` says when they are written.

    <root_dir>/replay/
      checkpoint-<number>/   complete: Reverb's files, and meta.json that says what they are
      *.partial              being put together or removed; of no use after a crash
      reverb/                where Reverb itself writes, and keeps one; emptied at every start
      lock                   held by the server that uses the folder

A checkpoint is put together under a name that nobody reads, brought to the disk (fsync), and then
renamed, so that one which is there under its own name is whole, whatever the server died of. What
may damage it later, from outside, is found by the sizes and CRCs in meta.json.

Each table is a snapshot of one moment, but not all of the same one: what is written while they are
taken, one after the other, may be in table `drain` and not in `pixels`, or the other way round.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import re
import shutil
import sys
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Union
import zlib

from seer_tf.replay import capacity as capacity_lib
from seer_tf.replay import server, tables

_FORMAT = 2
_META = 'meta.json'


class Found(NamedTuple):
  """A complete checkpoint.

  Attributes:
    number: counts the checkpoints of a folder from 1.
    path: of its folder, as Reverb reads it.
    phase: of the run.
    order: newest `checkpoint_order` that it carried out.
    keeper: state of the server's keeper.
  """

  number: int
  path: str
  phase: int
  order: int
  keeper: Mapping[str, Any]


def describe(config: tables.ReplayConfig, capacity: capacity_lib.Capacity) -> Dict[str, Any]:
  """What a checkpoint must agree with to be restored, as JSON gives it back."""
  return json.loads(json.dumps({**dataclasses.asdict(config), 'Capacity': str(capacity)}))


def say(line: str):
  """Writes a line to standard error, which is gone if the parent process was killed."""
  with contextlib.suppress(OSError):
    print(line, file=sys.stderr, flush=True)


class Folder:
  """Checkpoints on disk; see the top of this file. One process uses it at a time.

  Attributes:
    reverb_path: where Reverb may write.
  """

  def __init__(self, path: str, description: Mapping[str, Any], lock_seconds: float = 35):
    """Takes possession of the folder, which is made if there is none, and tidies it.

    Args:
      path: of the folder.
      description: `describe` of this server.
      lock_seconds: how long to wait for another server to end that uses the folder. One whose
        parent was killed may be writing its last checkpoint.

    Raises:
      ReplayServerError: if it cannot be written, or another server goes on using it.
    """
    self._path = pathlib.Path(path)
    self._description = description
    self._damaged: Dict[int, str] = {}  # number -> what is wrong
    self._said = set()
    self.reverb_path = str(self._path / 'reverb')
    try:
      self._path.mkdir(parents=True, exist_ok=True)
      self._lock = (self._path / 'lock').open('ab')
      self._acquire(lock_seconds)
      for partial in self._path.glob('*.partial'):
        shutil.rmtree(partial)
      shutil.rmtree(self.reverb_path, ignore_errors=True)
      probe = pathlib.Path(self.reverb_path) / 'probe'
      probe.parent.mkdir()
      probe.write_bytes(bytes(2**16))
      probe.unlink()
    except OSError as error:
      raise server.ReplayServerError(
        f'Checkpoints of replay cannot be written to {path} ({error.strerror}): make the folder '
        'writable and its disk not full, or give another --root_dir.'
      ) from error

  def _acquire(self, limit_seconds):
    deadline, is_first = time.monotonic() + limit_seconds, True
    while True:
      try:
        return fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        if time.monotonic() > deadline:
          raise server.ReplayServerError(
            f'Another replay server uses {self._path}: stop it, or give another --root_dir.'
          ) from None
        if is_first:
          say(f'waiting up to {limit_seconds:g} s for another replay server to leave {self._path}')
        is_first = False
        time.sleep(0.1)  # flock knows no time limit.

  def numbers(self) -> List[int]:
    """Of all checkpoints under their own name, damaged ones included, newest first."""
    names = (re.fullmatch(r'checkpoint-(\d+)', path.name) for path in self._path.iterdir())
    return sorted((int(name[1]) for name in names if name), reverse=True)

  def newest(self) -> Optional[Found]:
    """The newest one that is not damaged, None if there are none; says which damaged ones it skips.

    Raises:
      ReplayServerError: if all are damaged, or it is of another configuration or format.
    """
    for number in self.numbers():
      if number in self._damaged:
        continue
      try:
        found = self._read(number)
      except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, server.ReplayServerError):
          raise
        self._damaged[number] = self._reason(error)
        continue
      for skipped in sorted(self._damaged.keys() - self._said):
        self._said.add(skipped)
        say(
          f'warning: {self._folder(skipped)} is damaged ({self._damaged[skipped]}); going on from '
          f'{found.path} instead.'
        )
      return found
    if self._damaged:
      named = '; '.join(f'{self._folder(n).name}: {why}' for n, why in self._damaged.items())
      raise server.ReplayServerError(
        f'Every checkpoint in {self._path} is damaged ({named}). To start with empty replay, '
        'remove that folder.'
      )
    return None

  def give_up(self, found: Found, error: Exception):
    """Takes one for damaged that Reverb could not read."""
    self._damaged[found.number] = ' '.join(str(error).split())[-300:]

  def add(self, source: str, keep: int, **meta) -> int:
    """Makes a folder that Reverb has written a checkpoint, removes old ones, returns its number.

    Args:
      source: the folder; it is moved.
      keep: how many to keep, this one included.
      **meta: `phase`, `order`, `keeper` of `Found`.

    Raises:
      OSError: if it cannot be; then the others are still there.
    """
    number = max(self.numbers(), default=0) + 1
    folder = self._folder(number)
    partial = folder.with_name(folder.name + '.partial')
    os.rename(source, partial)
    try:
      files = {path.name: _size_and_crc(path) for path in sorted(partial.iterdir())}
      meta.update(format=_FORMAT, number=number, description=self._description, files=files)
      (partial / _META).write_text(json.dumps(meta, indent=1), encoding='utf-8')
      for path in [*partial.iterdir(), partial]:
        sync(path)
      os.rename(partial, folder)
    except OSError:
      shutil.rmtree(partial, ignore_errors=True)
      raise
    sync(self._path)
    good = [number for number in self.numbers() if number not in self._damaged]
    for old in {*good[keep:], *self._damaged}:
      self._remove(old)
    return number

  def _remove(self, number):
    folder = self._folder(number)
    doomed = folder.with_name(folder.name + '.partial')
    with contextlib.suppress(FileNotFoundError):  # somebody has removed it by hand
      os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)
    self._damaged.pop(number, None)

  def _folder(self, number) -> pathlib.Path:
    return self._path / f'checkpoint-{number}'

  def _read(self, number) -> Found:
    folder = self._folder(number)
    meta = json.loads((folder / _META).read_text(encoding='utf-8'))
    if meta['format'] != _FORMAT:
      raise server.ReplayServerError(
        f'{folder} has format {meta["format"]}, this version reads {_FORMAT}: restore it with the '
        'version that wrote it, or give another --root_dir.'
      )
    for name, expected in meta['files'].items():
      size = (folder / name).stat().st_size
      if size != expected[0]:
        raise ValueError(f'{name} has {size:,} bytes, not {expected[0]:,}')
      if _size_and_crc(folder / name) != expected:
        raise ValueError(f'{name} is not what was written')
    before, now = meta['description'], self._description
    different = '; '.join(
      f'{name} was {before.get(name, "absent")}, now {now.get(name, "absent")}'
      for name in sorted(before.keys() | now.keys())
      if before.get(name) != now.get(name)
    )
    if different:
      raise server.ReplayServerError(
        f'Checkpoint {folder} is of another configuration: {different}. Start with the gin files '
        'and bindings that it was written with, or give another --root_dir.'
      )
    return Found(number, str(folder), meta['phase'], meta['order'], meta['keeper'])

  @staticmethod
  def _reason(error) -> str:
    if isinstance(error, OSError):
      return f'{pathlib.Path(str(error.filename)).name}: {error.strerror}'
    if isinstance(error, (KeyError, TypeError, AttributeError, json.JSONDecodeError)):
      return f'{_META} cannot be read'
    return ' '.join(str(error).split())


def _size_and_crc(path: pathlib.Path) -> List[int]:
  crc = size = 0
  with path.open('rb') as file:
    while block := file.read(2**20):
      crc, size = zlib.crc32(block, crc), size + len(block)
  return [size, crc]


def sync(path: Union[str, os.PathLike]):
  """Brings a file, or what a folder says of its entries, to the disk."""
  number = os.open(path, os.O_RDONLY)
  try:
    os.fsync(number)
  finally:
    os.close(number)
