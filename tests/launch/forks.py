"""Command lines of `launch` in forks of a process that has imported everything.

Importing takes longer than most of what they do in a test. Arguments, both outputs, signals and
exit code are as if the line had been run; what happens at imports is not seen here.
"""

import os
import pathlib
import re
import subprocess
import tempfile
import time
from typing import Optional, Sequence

from tests.soak import programs

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 900  # seconds for what takes some; it only keeps a broken test from hanging


class Process:
  """A line that runs; its context kills it in the end."""

  def __init__(self, line: Sequence[str], **environment: str):
    """Starts it at the top of the project.

    Args:
      line: [python, '-m', module, arguments ...].
      **environment: added to this process's.
    """
    self.line = list(map(str, line))
    _, option, module, *arguments = self.line
    assert option == '-m'
    self._folder = tempfile.TemporaryDirectory()
    self._outputs = [pathlib.Path(self._folder.name, name) for name in ('stdout', 'stderr')]
    for path in self._outputs:
      path.touch()
    outputs = tuple(map(str, self._outputs))
    self._process = programs.FORKED.Process(
      target=_become, args=(module, arguments, environment, outputs)
    )
    self._process.start()
    self.pid = self._process.pid

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.kill()

  @property
  def stdout(self) -> str:
    """All that it has printed."""
    return self._outputs[0].read_text()

  @property
  def stderr(self) -> str:
    """All that it has printed there."""
    return self._outputs[1].read_text()

  @property
  def returncode(self) -> Optional[int]:
    """As in `subprocess`: negative for a signal, None while it runs."""
    return self._process.exitcode

  @property
  def address(self) -> str:
    """Where it answers, once it is ready; of a replay server."""
    return f'localhost:{self.prints("ready on port ([0-9]+)")[1]}'

  def wait(self, timeout: float = LIMIT) -> int:
    """Its exit code; fails if it takes longer than `timeout` seconds."""
    self._process.join(timeout)
    if self.returncode is None:
      self.kill()
      raise TimeoutError(f'{self.line} did not end within {timeout} s: {self.stderr[-3000:]}')
    return self.returncode

  def prints(self, pattern: str) -> re.Match:
    """Waits until a part of what it prints, in either way, matches; fails if it ends before."""
    deadline = time.monotonic() + LIMIT
    while True:
      has_ended = self.returncode is not None
      found = re.search(pattern, self.stdout) or re.search(pattern, self.stderr)
      if found:
        return found
      if has_ended or time.monotonic() > deadline:
        raise AssertionError(f'{self.line} did not print {pattern!r}: {self.stderr[-3000:]}')
      time.sleep(0.02)

  def send_signal(self, number: int):
    """Sends it a signal, unless it has ended."""
    if self.returncode is None:
      os.kill(self.pid, number)

  def kill(self):
    """Ends it by SIGKILL, with all that it has started."""
    if self.returncode is None:
      programs.kill(self.pid)
    self._process.join()


def run(line: Sequence[str], timeout: float = LIMIT, **environment: str):
  """Runs a line to its end: a `subprocess.CompletedProcess`; see `Process`."""
  with Process(line, **environment) as process:
    process.wait(timeout)
    return subprocess.CompletedProcess(line, process.returncode, process.stdout, process.stderr)


def _become(module, arguments, environment, outputs):
  os.environ.update(environment)
  os.chdir(ROOT)
  programs.become(module, arguments, *outputs)
