"""Real replay servers in another process, so that nothing bypasses gRPC."""

import contextlib
import dataclasses
import json
import pathlib
import signal
import subprocess
import sys

import pytest

# One child hosts all servers of a test session: starting a process costs seconds, a server little.
_CHILD = """
import json, sys
import reverb
from seer_tf.replay import tables

servers = {}
for line in sys.stdin:
  command, value = json.loads(line)
  if command == 'start':
    server = reverb.Server(tables.make_tables(tables.ReplayConfig(**value)))
    servers[server.port] = server
    print(server.port, flush=True)
  else:
    servers.pop(value).stop()
    print('stopped', flush=True)
"""


class Servers:
  """Starts and stops servers of `make_tables` in the child process."""

  def __init__(self):
    self._ports = []
    self._child = subprocess.Popen(
      [sys.executable, '-c', _CHILD],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
      cwd=pathlib.Path(__file__).parents[2],
      start_new_session=True,
    )

  @property
  def pid(self) -> int:
    """The process that hosts every server."""
    return self._child.pid

  def start(self, config) -> str:
    """Starts a server of the configuration's tables; returns its address."""
    port = int(self._ask('start', dataclasses.asdict(config)))
    self._ports.append(port)
    return f'localhost:{port}'

  def stop(self, address):
    port = int(address.rpartition(':')[2])
    self._ports.remove(port)
    self._ask('stop', port)

  def stop_all(self):
    for port in list(self._ports):
      self.stop(f'localhost:{port}')

  @contextlib.contextmanager
  def silent(self):
    """While this lasts no server answers."""
    self._child.send_signal(signal.SIGSTOP)
    try:
      yield
    finally:
      self._child.send_signal(signal.SIGCONT)

  def end(self):
    self._child.stdin.close()
    self._child.wait(timeout=120)

  def _ask(self, command, value):
    self._child.stdin.write(json.dumps([command, value]) + '\n')
    self._child.stdin.flush()
    answer = self._child.stdout.readline().strip()
    assert answer, 'the server process died'
    return answer


@pytest.fixture(scope='session')
def _servers():
  servers = Servers()
  yield servers
  servers.end()


@pytest.fixture
def replay_servers(_servers):
  """`replay_servers.start(config)` -> 'localhost:port'; stopped when the test ends."""
  yield _servers
  _servers.stop_all()
