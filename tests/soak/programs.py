"""The programs of a run as children that are forked from a process that has imported everything.

What they do is what `python -m launch.<name>` does; only imports, which take longer than all else,
are done before. Besides, an actor notes which of its rows the server has acknowledged, and each one
leaves a sign of life.
"""

import contextlib
import faulthandler
import multiprocessing
import os
import pathlib
import runpy
import signal
import sys
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import psutil

from launch import cli, processes  # noqa: F401 - imported once for all children
from seer_tf.replay import writers
from seer_tf.training import actor, crew, evaluator, loop, subscription  # noqa: F401
from tests.soak import environment  # noqa: F401

FORKED = multiprocessing.get_context('forkserver')
FORKED.set_forkserver_preload(['tests.soak.programs'])
_FLUSH_ROWS = 12


class _NotedWriter(writers.RowWriter):
  """Flushes often, and appends to a file what was acknowledged when."""

  path: pathlib.Path

  def __init__(self, *args, first_number=0, **kwargs):
    super().__init__(*args, first_number=first_number, **kwargs)
    self._first, self._noted = first_number, 0

  def extend(self, rows):
    super().extend(rows)
    if self.rows - self._noted >= _FLUSH_ROWS:
      self.flush()

  def flush(self):
    super().flush()
    self._noted = self.rows
    with self.path.open('a', encoding='utf-8') as file:
      file.write(f'{time.monotonic()} {self._first} {self.acknowledged}\n')


def _leave_signs(path: pathlib.Path):
  refresh = subscription.Subscription.refresh

  def refreshed(self):
    path.touch()
    return refresh(self)

  subscription.Subscription.refresh = refreshed


def run(module: str, arguments, log: str, notes: str, name: str):
  """Runs one program in this process.

  Args:
    module: its name in `launch`.
    arguments: of its command line.
    log: file that takes what it prints.
    notes: folder of acknowledged rows (`<name>.rows`) and signs of life (`<name>.alive`).
    name: of the process.
  """
  folder = pathlib.Path(notes)
  _leave_signs(folder / f'{name}.alive')
  crew._SILENT_SECONDS = 4.0  # so that an actor that hangs need not do so for long
  if module == 'actor':
    _NotedWriter.path = folder / f'{name}.rows'
    writers.RowWriter = _NotedWriter
  become(f'launch.{module}', arguments, log, log)


def kill(pid: int):
  """Ends a process by SIGKILL, with all that it has started; nothing if it has just ended."""
  with contextlib.suppress(psutil.NoSuchProcess):
    process = psutil.Process(pid)
    for each in [process, *process.children(recursive=True)]:
      with contextlib.suppress(psutil.NoSuchProcess):
        each.kill()


def become(module: str, arguments, output: str, errors: str):
  """Runs a module as `python -m` does, with these arguments; what it prints goes to two files."""
  for path, descriptor in ((output, 1), (errors, 2)):
    os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), descriptor)
  sys.stdout, sys.stderr = os.fdopen(1, 'w', 1), os.fdopen(2, 'w', 1)  # by lines
  faulthandler.enable()
  faulthandler.register(signal.SIGUSR1, all_threads=True)  # where it hangs
  sys.argv = [module, *arguments]
  runpy.run_module(module, run_name='__main__', alter_sys=False)
