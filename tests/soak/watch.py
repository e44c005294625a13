"""What the harness sees of a run from outside: its server's answers and checkpoints."""

import os
import pathlib
import threading
import time
from typing import Dict, List, NamedTuple, Optional

import reverb

from seer_tf.replay import messages, server

_PERIOD_SECONDS = 0.04


class Death(NamedTuple):
  """Of a start of the server, on `time.monotonic`'s clock.

  Attributes:
    kept_until: rows that were acknowledged before are in the checkpoint that came after it.
    at: rows that were acknowledged later were so by the start that followed.
  """

  kept_until: float
  at: float


class Folder:
  """Watches checkpoints come: when each was begun, at the earliest."""

  def __init__(self, root_dir: pathlib.Path):
    """Sees nothing yet; call it often."""
    self._path = root_dir / 'replay'
    self._begun: Dict[int, float] = {}  # inode -> a time at which it was not there yet
    self._last = time.monotonic()

  def __call__(self):
    now = time.monotonic()
    for inode in self._inodes('reverb', '*'):
      self._begun.setdefault(inode, self._last)
    self._last = now

  def _inodes(self, *parts) -> List[int]:
    found = []
    for path in self._path.glob('/'.join(parts)):
      try:
        found.append(path.stat().st_ino)
      except FileNotFoundError:
        continue
    return found

  def kept_until(self) -> float:
    """Begin of the newest complete checkpoint; what was acknowledged before is in it."""
    names = [name for name in os.listdir(self._path) if name.startswith('checkpoint-')]
    numbers = [int(name.split('-')[1]) for name in names if not name.endswith('.partial')]
    if not numbers:
      return 0.0
    newest = self._path / f'checkpoint-{max(numbers)}'
    return self._begun.get(newest.stat().st_ino, 0.0)


class Watch:
  """Reads what learner and server publish, in a thread of its own, as a server may hang.

  Attributes:
    phase: newest that was seen, -1 before the first.
    is_over: whether the learner has said so.
    rows: of replay, as its server last counted them.
    deaths: of the server, those by its own new starts included.
    folder_seen: `Folder` of the server.
  """

  def __init__(self, address: str, root_dir: pathlib.Path):
    """Begins to watch."""
    self._address = address
    self.folder_seen = Folder(root_dir)
    self.phase, self.version, self.is_over = -1, -1, False
    self.agent_steps = self.rows = 0
    self.deaths: List[Death] = []
    self.learner_sign = self.server_sign = time.monotonic()
    self._incarnation: Optional[int] = None
    self._report = None
    self._ends = threading.Event()
    self._threads = [
      threading.Thread(target=self._watch, args=(look, pause), daemon=True)
      for look, pause in ((self.folder_seen, 0.005), (self._look, _PERIOD_SECONDS))
    ]
    for thread in self._threads:
      thread.start()

  def _watch(self, look, pause):
    while not self._ends.wait(pause):
      try:
        look()
      except (OSError, RuntimeError, reverb.errors.ReverbError):
        continue  # the server is away

  def _look(self):
    client = reverb.Client(self._address)
    client.server_info(timeout=2)
    report = server.report(client, 2)
    if report.incarnation != self._incarnation:
      if self._incarnation is not None:
        self.deaths.append(Death(self.folder_seen.kept_until(), time.monotonic()))
      self._incarnation = report.incarnation
    if report != self._report:
      self._report, self.server_sign = report, time.monotonic()
      self.rows = report.rows
    variables = messages.read(client, 2)
    if variables.version >= 0:
      self.phase, self.is_over = variables.phase, bool(variables.is_over)
      self.agent_steps = variables.agent_steps
    if variables.version != self.version:
      self.version, self.learner_sign = variables.version, time.monotonic()

  def end(self):
    """Watches no more."""
    self._ends.set()
    for thread in self._threads:
      thread.join(20)
