"""What every test needs: a quiet TensorFlow, hypothesis' profile, processes with an end."""

import contextlib
import os
import pathlib
import signal
import subprocess
from typing import Mapping, Optional, Sequence

import hypothesis
import pytest

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # before anything imports TensorFlow

# Examples share real servers and traced functions, so the first one may take seconds: no deadline.
hypothesis.settings.register_profile('here', deadline=None, max_examples=30)
hypothesis.settings.register_profile('ci', deadline=None, max_examples=30, derandomize=True)
hypothesis.settings.load_profile('ci' if os.environ.get('CI') else 'here')


@pytest.fixture(scope='session')
def root() -> pathlib.Path:
  """Top of the project."""
  return pathlib.Path(__file__).resolve().parents[1]


def _run(
  command: Sequence[str],
  cwd: pathlib.Path,
  timeout_seconds: float = 300.0,
  env: Optional[Mapping[str, str]] = None,
  **kwargs,
) -> subprocess.CompletedProcess:
  process = subprocess.Popen(
    [str(word) for word in command],
    cwd=cwd,
    # A make that is tested is none of `make test`'s own: that would have it print where it is.
    env={**os.environ, 'MAKEFLAGS': '', 'MAKELEVEL': '0', **(env or {})},
    stdin=kwargs.pop('stdin', subprocess.DEVNULL),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
    **kwargs,
  )
  late = False
  try:
    stdout, stderr = process.communicate(timeout=timeout_seconds)
  except subprocess.TimeoutExpired:
    late = True
  finally:
    # Mostly there is nobody left to kill: the command has ended with all that it started.
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
  if late:
    stdout, stderr = process.communicate()
    pytest.fail(f'{command} did not end within {timeout_seconds} s:\n{stdout}\n{stderr}')
  return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@pytest.fixture(scope='session')
def run(root):
  """A function that runs a command at the top of the project and returns a `CompletedProcess`.

  run(command, cwd=root, timeout_seconds=300, env={...}) captures both streams as text, adds `env`
  to this process's environment, and ends every process that the command has left in its session.
  """

  def run_at_root(command, cwd=root, **kwargs):
    return _run(command, cwd, **kwargs)

  return run_at_root
