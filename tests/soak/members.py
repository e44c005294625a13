"""The processes of one run, each of which can be killed and started again by the same command."""

import pathlib
import signal
import time
from typing import Optional, Sequence

import psutil

from tests.soak import programs


class Member:
  """One process of a run, whatever its start.

  Attributes:
    restart_at: when to start it again, on `time.monotonic`'s clock; None if it is not to be.
    starts: so far.
    last_start: on `time.monotonic`'s clock.
  """

  def __init__(self, name: str, module: str, arguments: Sequence[str], folder: pathlib.Path):
    """Starts nothing yet.

    Args:
      name: of the process.
      module: of `launch`.
      arguments: of its command line.
      folder: takes its log, signs of life and notes.
    """
    self.name = name
    self._module, self._arguments, self._folder = module, list(arguments), folder
    self._process = None
    self.restart_at: Optional[float] = 0.0
    self.starts = 0
    self.last_start = 0.0

  @property
  def log(self) -> pathlib.Path:
    """What all its starts have printed."""
    return self._folder / f'{self.name}.log'

  @property
  def last_line(self) -> str:
    """Of its log; what it says of its error, if it does."""
    text = self.log.read_text(errors='replace') if self.log.exists() else ''
    lines = text.partition('Thread 0x')[0].splitlines()  # `show_stacks` comes behind that
    said = [line for line in lines if line.strip()]
    errors = [line for line in said[-30:] if line.startswith('error: ')]
    return (errors or said or ['(nothing)'])[-1][-400:]

  def start(self):
    """Starts it, for the first time or again."""
    arguments = (self._module, self._arguments, str(self.log), str(self._folder), self.name)
    self._process = programs.FORKED.Process(target=programs.run, args=arguments)
    self._process.start()
    self.starts += 1
    self.restart_at, self.last_start = None, time.monotonic()

  @property
  def exit_code(self) -> Optional[int]:
    """Of its last start; None while it runs."""
    return self._process.exitcode if self._process else None

  @property
  def is_running(self) -> bool:
    """Whether it runs."""
    return self._process is not None and self._process.exitcode is None

  @property
  def last_sign(self) -> float:
    """Of life, on `time.monotonic`'s clock: its start, or what it has touched since."""
    path = self._folder / f'{self.name}.alive'
    if not path.exists():
      return self.last_start
    return max(self.last_start, time.monotonic() - (time.time() - path.stat().st_mtime))

  def stop(self):
    """Has it do nothing until `go_on`, as if it or its machine hung."""
    psutil.Process(self._process.pid).suspend()

  def go_on(self):
    """Lets it go on, if it is still there."""
    if self.is_running:
      psutil.Process(self._process.pid).resume()
      self.last_start = time.monotonic()

  def kill(self):
    """Ends it by SIGKILL, with all that it has started."""
    programs.kill(self._process.pid)
    self._process.join(20)

  def end(self, limit_seconds: float) -> Optional[int]:
    """Ends it by SIGTERM; returns its exit code, None if it has not ended in time."""
    self._process.terminate()
    self._process.join(limit_seconds)
    code = self._process.exitcode
    if code is None:
      self.show_stacks()
      self._process.kill()
      self._process.join(20)
    return code

  def show_stacks(self):
    """Has it print where its threads are, to its log."""
    psutil.Process(self._process.pid).send_signal(signal.SIGUSR1)
    time.sleep(1)  # nothing tells when it has
