"""Replay servers as seen from the other processes: reaching one, and owning one as a child.

A run that is given no server starts one of its own:

    with EmbeddedServer(gin_files, gin_bindings) as embedded:
      client = connect(embedded.address, config)
      ...
      embedded.check()  # now and then: raises if the server has died

It is the same program as a stand-alone server, `launch.replay_server`, reached over the same gRPC.
"""

import collections
import math
import os
import pathlib
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import reverb

from seer_tf.replay import tables

READY = 'Replay server ready on port'  # begins the one line that the server prints


class ReplayServerError(ValueError):
  """A replay server cannot be used; the message says in one line why and what to do."""


def with_limit(function: Callable[[], Any], timeout_seconds: float, what: str) -> Any:
  """Calls `function()`, which may wait for ever on another process, but waits with a limit.

  Most calls of Reverb's client try again and again once the server is gone, and take no timeout. A
  call given up is left behind in a thread of its own that does not keep the process alive.

  Args:
    function: called without arguments, in another thread.
    timeout_seconds: how long to wait.
    what: begins the error: who was asked for what.

  Returns:
    What the function returned; what it raised is raised.

  Raises:
    TimeoutError: if it has not returned within the limit.
  """
  outcome = queue.SimpleQueue()

  def call():
    try:
      outcome.put((function(), None))
    except Exception as error:  # Raised again in the caller's thread.
      outcome.put((None, error))

  threading.Thread(target=call, daemon=True).start()
  try:
    result, error = outcome.get(timeout=timeout_seconds)
  except queue.Empty:
    raise TimeoutError(f'{what}: no answer within {timeout_seconds:g} s.') from None
  if error is not None:
    raise error
  return result


def connect(
  address: str, config: tables.ReplayConfig, timeout_seconds: float = 20
) -> reverb.Client:
  """A client of the server at `address`, once it has answered and its tables are those of `config`.

  Args:
    address: 'host:port'. A server that is only just starting is waited for.
    config: the tables expected.
    timeout_seconds: limit of the wait, rounded up to whole seconds.

  Raises:
    ReplayServerError: if the address is none, nothing answers in time, or the tables differ.
  """
  host, _, port = address.rpartition(':')
  if not host or not port.isdigit():
    raise ReplayServerError(f'Replay server {address!r} is no address; give host:port.')
  try:
    socket.getaddrinfo(host.strip('[]'), int(port))
  except OSError as error:
    raise ReplayServerError(
      f'Replay server {address}: the host name cannot be resolved ({error.strerror}).'
    ) from error
  client = reverb.Client(address)
  limit = max(1, math.ceil(timeout_seconds))
  try:
    client.server_info(timeout=limit)
  except (reverb.errors.ReverbError, RuntimeError) as error:
    raise ReplayServerError(
      f'No replay server answers at {address} (limit {limit} s): {_why(host, int(port))}. Check '
      'host and port, and that `python -m launch.replay_server` runs there.'
    ) from error
  check_tables(address, client, config)
  return client


def check_tables(address: str, client: reverb.Client, config: tables.ReplayConfig):
  """Refuses a server whose tables are not those of `config`.

  Raises:
    ReplayServerError: naming the entries that differ.
  """
  lines = tables.differences(config, client.server_info(timeout=20))
  if lines:
    raise ReplayServerError(
      f'Replay server {address} was started with another configuration: {"; ".join(lines)}. Start '
      'it with the gin files and bindings of this run.'
    )


def await_answer(
  client: reverb.Client, deadline: float, check: Callable[[], None] = lambda: None
) -> Optional[Mapping[str, Any]]:
  """Asks a server that has not answered, ever less often, until it does.

  Args:
    client: its.
    deadline: on `time.monotonic`'s clock, when to give up.
    check: called between the questions; raises if there is nobody left to wait for.

  Returns:
    Its `server_info`; None if it has not answered.
  """
  pause = 0.5
  while True:
    try:
      return client.server_info(timeout=5)
    except (reverb.errors.ReverbError, RuntimeError):
      check()
    if time.monotonic() + pause > deadline:
      return None
    time.sleep(pause)  # Nothing tells when a server comes back.
    pause = min(2 * pause, 10)


def _why(host: str, port: int) -> str:
  """What a plain connection says about a server that did not answer."""
  try:
    with socket.create_connection((host.strip('[]'), port), timeout=2):
      return 'something accepts connections there, but it hangs or is no replay server'
  except OSError as error:
    return str(error.strerror or error).lower()


class Report(NamedTuple):
  """What a server last published about itself, some times a second: `tables.SERVER_SIGNATURE`."""

  resident_bytes: int
  empty_bytes: int
  used_bytes: int
  budget_bytes: float
  machine_bytes: int
  incarnation: int
  checkpoint_order: int
  checkpoints: int
  capacity: str
  phase: int
  rows: int
  pixels_first_row: int
  version: int = -1
  learner: int = 0

  @property
  def bytes_per_row(self) -> float:
    """Bytes that replay takes for a row it holds; NaN while there is none."""
    return self.used_bytes / self.rows if self.rows else math.nan


def report(client: reverb.Client, timeout_seconds: float = 20) -> Report:
  """What the server's process last published about itself.

  Raises:
    TimeoutError: if it does not answer, or publishes nothing (not a `launch.replay_server`).
  """
  return _report(client, timeout_seconds)[1]


def next_report(
  client: reverb.Client,
  timeout_seconds: float = 60,
  holds: Callable[[Report], bool] = lambda report: True,
) -> Report:
  """As `report`, but waits for one published from now on that `holds`: for what was just changed.

  Raises:
    TimeoutError: if none is published in time.
  """
  seen, deadline = _report(client, timeout_seconds)[0], time.monotonic() + timeout_seconds
  while time.monotonic() < deadline:
    key, latest = _report(client, timeout_seconds)
    if key != seen and holds(latest):
      return latest
    time.sleep(0.1)  # Reverb has no call that waits for a new item.
  raise TimeoutError(
    f'Replay server {client.server_address} published no news of itself for {timeout_seconds:g} s.'
  )


def _report(client, timeout_seconds) -> Tuple[int, Report]:
  """(key of the publication, what it says)."""

  def sample():
    [step] = next(client.sample('server', unpack_as_table_signature=True))
    values = {name: np.ravel(value).tolist()[0] for name, value in step.data.items()}
    values['capacity'] = bytes(values['capacity']).decode()
    return step.info.key, Report(**values)

  return with_limit(sample, timeout_seconds, f'Replay server {client.server_address}, table server')


class EmbeddedServer:
  """`launch.replay_server` as a child process, for as long as the context lasts.

  The child runs in a session of its own, so that Ctrl-C in a terminal reaches only the parent,
  which then stops the child in its own time. Should the parent vanish without doing so (SIGKILL),
  the child sees its standard input close and exits. With a root_dir it writes a last checkpoint
  before it ends, either way.

  Attributes:
    address: 'localhost:port', once started.
  """

  def __init__(
    self,
    gin_files: Sequence[str] = (),
    gin_bindings: Sequence[str] = (),
    root_dir: Optional[str] = None,
    start_timeout_seconds: float = 600,
    stop_timeout_seconds: float = 30,
  ):
    """Starts nothing yet.

    Args:
      gin_files: gin files that describe the experiment, as for the parent.
      gin_bindings: bindings on top of them.
      root_dir: the run's folder, for the server's checkpoints; None: it keeps none.
      start_timeout_seconds: limit from the start of the process to its being ready.
      stop_timeout_seconds: limit from SIGTERM to its end, its last checkpoint included; then
        follows SIGKILL.
    """
    self._command = [
      *(sys.executable, '-m', 'launch.replay_server', '--port=0', '--stop_on_stdin_eof'),
      *(f'--gin_file={path}' for path in gin_files),
      *(f'--gin_bindings={binding}' for binding in gin_bindings),
      *([f'--root_dir={root_dir}'] if root_dir else []),
    ]
    self._root_dir = root_dir
    self._start_timeout_seconds = start_timeout_seconds
    self._stop_timeout_seconds = stop_timeout_seconds
    self._log = collections.deque(maxlen=20)
    self._process = None
    self._threads = []
    self.address = ''

  @property
  def pid(self) -> int:
    """Process id of the child, once started."""
    return self._process.pid

  def __enter__(self) -> 'EmbeddedServer':
    try:
      self._start()
    except BaseException:  # Ctrl-C while it starts must not leave it behind either.
      self.stop()
      raise
    return self

  def __exit__(self, *_):
    self.stop()

  def check(self):
    """Raises ReplayServerError if the child has exited; costs microseconds."""
    code = self._process.poll()
    if code is not None:
      self._threads[-1].join(timeout=1)  # what it still said
      if self._root_dir:
        lost = 'Rows since its last checkpoint are lost; the same command resumes from it.'
      else:
        lost = 'What was in replay is lost; start the run again.'
      raise ReplayServerError(
        f'The replay server (pid {self.pid}, {self.address}) has died: {_in_words(code)}. {lost} '
        f'It said last: {self._last_words()}'
      )

  def stop(self):
    """Ends the child and waits for it. May be called at any time and more than once."""
    process = self._process
    if process is None:
      return
    process.terminate()
    try:
      process.wait(timeout=self._stop_timeout_seconds)
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
    for thread in self._threads:
      thread.join(timeout=1)
    process.stdin.close()

  def _start(self):
    # `python -m launch...` from any working directory, also when the project is not installed.
    here = str(pathlib.Path(__file__).resolve().parents[2])
    paths = [here, *filter(None, [os.environ.get('PYTHONPATH')])]
    self._process = subprocess.Popen(
      self._command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      errors='replace',
      start_new_session=True,
      env={'TF_CPP_MIN_LOG_LEVEL': '3', **os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
    )
    ready = queue.SimpleQueue()
    self._threads = [
      threading.Thread(target=self._await_ready, args=(self._process.stdout, ready), daemon=True),
      threading.Thread(target=self._log.extend, args=(self._process.stderr,), daemon=True),
    ]
    for thread in self._threads:
      thread.start()
    try:
      port = ready.get(timeout=self._start_timeout_seconds)
    except queue.Empty:
      raise ReplayServerError(
        f'The replay server was not ready within {self._start_timeout_seconds:g} s. It said last: '
        f'{self._last_words()}'
      ) from None
    if port is None:
      code = self._process.wait(timeout=self._stop_timeout_seconds)
      self._threads[-1].join(timeout=1)
      raise ReplayServerError(
        f'The replay server did not start: {_in_words(code)}. It said last: {self._last_words()}'
      )
    self.address = f'localhost:{port}'

  @staticmethod
  def _await_ready(stdout, ready):
    """Puts the port, or None if the child's output ends before it; reads on until it ends."""
    for line in stdout:
      found = re.match(rf'{READY} (\d+)', line)
      if found:
        ready.put(int(found.group(1)))
    ready.put(None)

  def _last_words(self) -> str:
    """The child's own one-line error if it gave one, else its last few lines, as one line."""
    lines = [line.strip() for line in list(self._log) if line.strip()]
    errors = [line for line in lines if line.startswith('error: ')]
    return ' | '.join(errors[-1:] or lines[-3:])[-800:] or '(nothing)'


def _in_words(code: int) -> str:
  return f'killed by {signal.Signals(-code).name}' if code < 0 else f'exit code {code}'
