"""When a replay server writes checkpoints of itself, and which of them may be kept."""

import contextlib
import dataclasses
import pathlib
import shutil
import threading
import time
from typing import Any, Mapping, NamedTuple, Optional

import gin
import reverb

from seer_tf.replay import checkpoints, messages

_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 5.0, 60.0


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Checkpoints:
  """How often a replay server that has a root_dir writes a checkpoint, besides those ordered.

  Attributes:
    period_seconds: from the start of one to the start of the next.
    keep: how many are kept. While one is written the disk holds one more.

  Raises:
    ValueError: if a value makes no sense.
  """

  period_seconds: float = 600.0
  keep: int = 2

  def __post_init__(self):
    if not self.period_seconds > 0:
      raise ValueError(f'Checkpoints.period_seconds is {self.period_seconds!r}; give seconds > 0.')
    if not (isinstance(self.keep, int) and self.keep >= 1):
      raise ValueError(f'Checkpoints.keep is {self.keep!r}; give a whole number of at least 1.')


class Look(NamedTuple):
  """What decides whether a checkpoint may be kept: as the learner says, and reads of `drain`."""

  variables: messages.Variables
  drained: int

  def may_become(self, later: 'Look') -> bool:
    """Whether table `drain` was surely not being read by a learner in between."""
    phase = self.variables.phase
    return (
      not (self.variables.draining or later.variables.draining)
      and phase == later.variables.phase
      # In phase pixels the keeper reads it too.
      and (phase == 0 or self.drained == later.drained)
    )


class Checkpointer:
  """Writes a server's checkpoints when they are due, one at a time, each in a thread of its own.

  Attributes:
    order: newest `checkpoint_order` that a complete checkpoint has carried out: it holds all that
      the server had acknowledged before the order.
    completed: number of the newest complete checkpoint.
    is_spoilt: whether table `drain` lacks rows that it had in the checkpoint that the server was
      started from: a learner in the middle of a conversion has read on, unaware that this is
      another server. No checkpoint is made of that; the server must start anew.
  """

  def __init__(
    self,
    client: reverb.Client,
    folder: checkpoints.Folder,
    settings: Checkpoints,
    restored: Optional[checkpoints.Found],
  ):
    """Writes nothing yet.

    Args:
      client: in the server's own process.
      folder: of the checkpoints.
      settings: period, and how many to keep.
      restored: what the server was started from.
    """
    self._client = client
    self._folder = folder
    self._settings = settings
    self.order = restored.order if restored else 0
    self.completed = max(folder.numbers(), default=0)
    self._thread = threading.Thread(target=lambda: None)
    self._due = time.monotonic() + settings.period_seconds
    # Until the first checkpoint is complete. Whoever reads table `drain` orders one before.
    self._restored = self._look() if restored else None
    # Reads of table `drain` that are none of a learner's: the keeper's, in phase pixels.
    self._drained = self._restored.drained if restored else 0
    self.is_spoilt = False
    self._retry_at, self._pause = 0.0, _FIRST_RETRY_SECONDS

  @property
  def is_writing(self) -> bool:
    """Whether a checkpoint is being written."""
    return self._thread.is_alive()

  def __call__(self, variables: messages.Variables, keeper: Mapping[str, Any]):
    """Starts a checkpoint if one is due: a learner's order, or the schedule until its run is over.

    Args:
      variables: what the learner has published last.
      keeper: state of the server's keeper.
    """
    now = time.monotonic()
    if self._restored and variables.phase == 0:
      with contextlib.suppress(TimeoutError, RuntimeError, reverb.errors.ReverbError):
        self._drained = self._reads()
    if self.is_writing or variables.draining or now < self._retry_at:
      return
    is_scheduled = now >= self._due and not variables.is_over and not self._is_unheard(variables)
    if is_scheduled or variables.checkpoint_order > self.order:
      self._start(keeper, is_last=False)

  def finish(self, keeper: Mapping[str, Any], limit_seconds: float):
    """Writes a last checkpoint, unless the learner is draining or its run is over.

    Whoever calls this must look at `is_writing` then: Reverb cannot be told to give up a checkpoint
    that takes longer than the limit.
    """
    deadline = time.monotonic() + limit_seconds
    if self.is_writing:
      self._thread.join(limit_seconds)
    if not self.is_writing:
      self._start(keeper, is_last=True)
      self._thread.join(max(0.0, deadline - time.monotonic()))
    if self.is_writing:
      checkpoints.say(
        f'warning: the last checkpoint of replay was not written within {limit_seconds:g} s; '
        f'{self._still_there()}.'
      )

  def _start(self, keeper, is_last):
    self._thread = threading.Thread(target=self._run, args=(keeper, is_last), daemon=True)
    self._thread.start()

  def _run(self, keeper, is_last):
    start = time.monotonic()
    try:
      if self._write(keeper, is_last):
        self._due = start + self._settings.period_seconds
      self._pause = _FIRST_RETRY_SECONDS
    except Exception as error:  # Whatever it is, the server goes on; Reverb raises several kinds.
      self._clear()
      then = 'and the server ends' if is_last else f'trying again in {self._pause:g} s'
      checkpoints.say(
        f'warning: no checkpoint of replay could be written to {self._folder.reverb_path} '
        f'({_why(error)}); {self._still_there()}; {then}.'
      )
      self._retry_at = time.monotonic() + self._pause
      self._pause = min(2 * self._pause, _LAST_RETRY_SECONDS)

  def _write(self, keeper, is_last) -> bool:
    """Returns whether there is a new checkpoint."""
    before = self._look()
    if before.variables.draining or (is_last and before.variables.is_over):
      return False
    if self._restored and before.variables.phase > 0 and before.drained != self._drained:
      self.is_spoilt = True
      return False
    path = self._client.checkpoint()
    if not before.may_become(self._look()):
      shutil.rmtree(path)
      return False
    order = max(self.order, before.variables.checkpoint_order)
    self.completed = self._folder.add(
      path, self._settings.keep, phase=before.variables.phase, order=order, keeper=keeper
    )
    self.order = order
    self._restored = None
    return True

  def _is_unheard(self, variables: messages.Variables) -> bool:
    """Whether a learner that takes this server for the one before may be reading table `drain`."""
    restored = self._restored
    is_same = restored is not None and variables.version == restored.variables.version
    return is_same and variables.phase > 0

  def _look(self) -> Look:
    return Look(messages.read(self._client), self._reads())

  def _reads(self) -> int:
    return self._client.server_info(20)['drain'].rate_limiter_info.sample_stats.completed

  def _clear(self):
    """Removes what a failed checkpoint of Reverb's has left, which may be what fills the disk."""
    for path in pathlib.Path(self._folder.reverb_path).glob('*'):
      if not (path / 'DONE').exists():
        shutil.rmtree(path, ignore_errors=True)

  def _still_there(self) -> str:
    number = next(iter(self._folder.numbers()), 0)
    return f'checkpoint-{number} still holds' if number else 'there is none yet'


def _why(error: Exception) -> str:
  """The system's words for what went wrong; TensorFlow has them behind the path and a semicolon."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  return ' '.join(str(error).rpartition('; ')[2].split())[:300]
