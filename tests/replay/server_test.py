"""The embedded server as a real child process, through every way in which it can end."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from seer_tf.replay import server, tables

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = tables.ReplayConfig(
  frame_shape=(24, 24, 3),
  frame_stack=3,
  action_shape=(1,),
  action_dtype='float32',
  latent_size=100,
  latents_dtype='uint8',
  stored_crops=2,
  n_step=1,
  pixels_capacity=50,
  latents_capacity=64,
)
BINDINGS = (
  'Experiment.total_agent_steps = 100',
  'Experiment.environment_fn = @dm_control.load',
  "dm_control.load.domain = 'cartpole'",
  "dm_control.load.task = 'swingup'",
  'dm_control.load.image_size = 24',
  'RandomCrop.image_size = 20',
  'ReplayConfig.stored_crops = 2',
  'ReplayConfig.n_step = 1',
  'ReplayConfig.pixels_capacity = 50',
  'ReplayConfig.latents_capacity = 64',
)
LIMIT = 120  # seconds for what takes one or two; it only keeps a broken test from hanging


@pytest.fixture(scope='module')
def embedded():
  with server.EmbeddedServer(gin_bindings=BINDINGS) as child:
    yield child


def gone(pid):
  """Waits for the process `pid`, which need not be our child, to end."""
  with contextlib.suppress(psutil.NoSuchProcess):
    psutil.Process(pid).wait(LIMIT)
  return not psutil.pid_exists(pid)


def one_line(error, *parts):
  text = str(error.value)
  assert '\n' not in text
  for part in parts:
    assert part in text, text


def start_parent(body):
  """Runs a script that owns an embedded server; returns (process, pid of the server)."""
  script = f'import sys, time\nfrom seer_tf.replay import server\nBINDINGS = {BINDINGS!r}\n'
  parent = subprocess.Popen(
    [sys.executable, '-c', script + textwrap.dedent(body)],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
    start_new_session=True,
  )
  return parent, int(parent.stdout.readline())


def test_serves_the_configured_tables(embedded):
  client = server.connect(embedded.address, CONFIG)
  assert set(client.server_info(10)) == {
    *('pixels', 'drain', 'latents', 'variables', 'actors', 'server')
  }
  embedded.check()


def test_runs_in_a_session_of_its_own(embedded):
  assert os.getsid(embedded.pid) == embedded.pid != os.getsid(0)


def test_publishes_its_resident_memory(embedded):
  client = server.connect(embedded.address, CONFIG)
  report = server.report(client)
  resident, empty = report.resident_bytes, report.empty_bytes
  assert resident == pytest.approx(psutil.Process(embedded.pid).memory_info().rss, rel=0.1)
  assert 0.9 * resident < empty <= resident
  later = server.next_report(client)
  assert later.resident_bytes == pytest.approx(resident, rel=0.1) and later.empty_bytes == empty


def test_memory_of_a_server_that_publishes_none(replay_servers):
  client = server.connect(replay_servers.start(CONFIG), CONFIG)
  with pytest.raises(TimeoutError) as error:
    server.report(client, timeout_seconds=0.5)
  one_line(error, client.server_address, 'table server', '0.5 s')


def test_stop_ends_the_child_and_can_be_repeated():
  child = server.EmbeddedServer(gin_bindings=BINDINGS)
  child.stop()  # before it was started
  with child:
    pid = child.pid
    assert psutil.pid_exists(pid)
  assert gone(pid)
  child.stop()


def test_check_raises_once_the_child_was_killed():
  with server.EmbeddedServer(gin_bindings=BINDINGS) as child:
    child.check()
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # leaves the exit code to its owner
    with pytest.raises(server.ReplayServerError) as error:
      child.check()
    one_line(error, child.address, 'SIGKILL', 'start the run again')


def test_child_is_killed_if_it_ignores_the_polite_request():
  with server.EmbeddedServer(gin_bindings=BINDINGS, stop_timeout_seconds=1) as child:
    os.kill(child.pid, signal.SIGSTOP)
  assert gone(child.pid)


def test_child_exits_when_its_parent_is_killed():
  parent, pid = start_parent("""
    with server.EmbeddedServer(gin_bindings=BINDINGS) as child:
      print(child.pid, flush=True)
      time.sleep(600)
  """)
  parent.kill()
  parent.wait()
  assert gone(pid)


def test_ctrl_c_reaches_the_parent_alone_which_stops_the_child():
  parent, pid = start_parent("""
    try:
      with server.EmbeddedServer(gin_bindings=BINDINGS) as child:
        try:
          print(child.pid, flush=True)
          time.sleep(600)
        finally:
          time.sleep(0.5)  # time for a signal that it must not get
          child.check()
          print('child alive', flush=True)
    except KeyboardInterrupt:
      print('interrupted', flush=True)
  """)
  os.killpg(parent.pid, signal.SIGINT)  # what a terminal does
  output, _ = parent.communicate(timeout=LIMIT)
  assert output.split('\n') == ['child alive', 'interrupted', '']
  assert not psutil.pid_exists(pid)


def test_child_that_refuses_its_configuration():
  bindings = [*BINDINGS, 'ReplayConfig.no_such_thing = 1']
  with (
    pytest.raises(server.ReplayServerError) as error,
    server.EmbeddedServer(gin_bindings=bindings),
  ):
    pass
  one_line(error, 'did not start', 'exit code 2', 'no_such_thing')


def test_child_that_is_not_ready_in_time_is_not_left_behind():
  child = server.EmbeddedServer(gin_bindings=BINDINGS, start_timeout_seconds=0.1)
  with pytest.raises(server.ReplayServerError) as error, child:
    pass
  one_line(error, 'not ready within 0.1 s')
  assert not psutil.pid_exists(child.pid)


def test_connect_to_a_server_that_accepts_and_never_answers():
  with socket.create_server(('localhost', 0)) as mute:
    address = f'localhost:{mute.getsockname()[1]}'
    start = time.monotonic()
    with pytest.raises(server.ReplayServerError) as error:
      server.connect(address, CONFIG, timeout_seconds=2)
    assert time.monotonic() - start < 2 + 20
  one_line(error, address, 'limit 2 s', 'hangs or is no replay server', 'launch.replay_server')


def test_connect_where_nothing_listens():
  with socket.create_server(('localhost', 0)) as closed_soon:
    address = f'localhost:{closed_soon.getsockname()[1]}'
  with pytest.raises(server.ReplayServerError) as error:
    server.connect(address, CONFIG, timeout_seconds=1)
  one_line(error, address, 'connection refused')


@pytest.mark.parametrize('address', ['localhost', ':8000', 'localhost:http', ''])
def test_connect_to_what_is_no_address(address):
  with pytest.raises(server.ReplayServerError) as error:
    server.connect(address, CONFIG)
  one_line(error, repr(address), 'host:port')


def test_connect_to_an_unknown_host():
  with pytest.raises(server.ReplayServerError) as error:
    server.connect('no-such-host.invalid:8000', CONFIG)
  one_line(error, 'no-such-host.invalid', 'cannot be resolved')


def test_connect_names_every_entry_that_differs(replay_servers):
  address = replay_servers.start(CONFIG)
  other = tables.ReplayConfig(**{**vars(CONFIG), 'latent_size': 64, 'pixels_capacity': 51})
  with pytest.raises(server.ReplayServerError) as error:
    server.connect(address, other)
  one_line(
    error,
    address,
    'another configuration',
    *tables.differences(other, server.connect(address, CONFIG).server_info(10)),
  )


def test_with_limit_hands_over_results_and_errors():
  assert server.with_limit(lambda: 3, 5, 'three') == 3
  with pytest.raises(KeyError):
    server.with_limit(lambda: {}['missing'], 5, 'nothing')
