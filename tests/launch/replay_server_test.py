"""The replay server as a user runs it: a process with flags, signals and exit codes."""

import dataclasses
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import reverb

from seer_tf.replay import drain, keeper, messages, server, tables, writers
from tests import ports
from tests.launch import forks

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = tables.ReplayConfig(
  frame_shape=(64, 64, 3),
  frame_stack=3,
  action_shape=(1,),
  action_dtype='float32',
  latent_size=100,
  latents_dtype='uint8',
  stored_crops=2,
  n_step=1,
  pixels_capacity=6000,
  latents_capacity=64,
)
GIN = """
Experiment.total_agent_steps = 100
Experiment.environment_fn = @dm_control.load
dm_control.load.domain = 'cartpole'
dm_control.load.task = 'swingup'
dm_control.load.image_size = 64
RandomCrop.image_size = 60
ReplayConfig.stored_crops = 2
ReplayConfig.n_step = 1
ReplayConfig.pixels_capacity = 6000
ReplayConfig.latents_capacity = 64
"""
LIMIT = 300  # seconds for what takes a few; it only keeps a broken test from hanging


@pytest.fixture(scope='module')
def gin_file(tmp_path_factory):
  path = tmp_path_factory.mktemp('gin') / 'experiment.gin'
  path.write_text(GIN)
  return path


class Run:
  """A running server: process, port, and all that it prints."""

  def __init__(self, gin_file, *flags, **kwargs):
    self.process = subprocess.Popen(
      [sys.executable, '-m', 'launch.replay_server', f'--gin_file={gin_file}', *flags],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'},
      **kwargs,
    )

  def __enter__(self):
    guard = threading.Timer(LIMIT, self.process.kill)
    guard.start()
    self.ready = self.process.stdout.readline()
    guard.cancel()
    return self

  def __exit__(self, *_):
    self.process.kill()
    self.process.communicate(timeout=LIMIT)

  @property
  def address(self):
    return 'localhost:' + re.fullmatch(
      rf'{server.READY} (\d+) of every network interface, without authentication; '
      'tables: pixels, drain, latents, variables, actors, server\n',
      self.ready,
    ).group(1)


def failure(*flags):
  """Runs a server that must not start; returns the lines of its standard error."""
  done = forks.run([sys.executable, '-m', 'launch.replay_server', *flags])
  assert done.returncode == 2
  assert not done.stdout
  return done.stderr.strip().split('\n')


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_ready_line_then_clean_exit_on_a_signal(gin_file, number):
  with Run(gin_file) as run:
    server.connect(run.address, CONFIG)
    run.process.send_signal(number)
    output, log = run.process.communicate(timeout=LIMIT)
  assert run.process.returncode == 0
  assert output == ''
  assert 'Traceback' not in log


def test_ends_when_standard_input_closes_if_asked(gin_file):
  told, tell = os.pipe()
  with Run(gin_file, '--stop_on_stdin_eof', stdin=told) as run:
    os.close(told)
    os.write(tell, b'not the end')
    server.connect(run.address, CONFIG)
    os.close(tell)
    assert run.process.wait(LIMIT) == 0


def test_resident_memory_is_published_and_falls_when_replay_is_emptied(gin_file):
  rows, frame_bytes = 5000, 64 * 64 * 3
  rng = np.random.default_rng(0)
  with Run(gin_file, stdin=subprocess.DEVNULL) as run:  # whose end it was not asked to heed
    client = server.connect(run.address, CONFIG)
    writer = writers.RowWriter(
      client, {'pixels': CONFIG.pixels_layout}, tables.padding_row(CONFIG.pixels_row)
    )
    row = tables.padding_row(CONFIG.pixels_row)._replace(step_type=np.int32(1))
    for _ in range(rows):  # noise, so that nothing is gained by compression
      writer.append(row._replace(observation=rng.integers(0, 256, (64, 64, 3), np.uint8)))
    writer.close()
    process = psutil.Process(run.process.pid)
    grown = published(client, lambda resident, empty: resident - empty > rows * frame_bytes)
    assert grown == pytest.approx(process.memory_info().rss, rel=0.1)
    client.reset('pixels')
    # The allocator would keep it: that it falls shows that the heap is trimmed.
    published(client, lambda resident, empty: resident - empty < 0.3 * rows * frame_bytes)


def test_resident_memory_stays_within_the_budget_through_the_switch(gin_file):
  """Four times as many pixels as fit, their conversion, and three times as many latents."""
  # Seen of buffers: 45 to 49 MB; promised: 128 MiB. Without a keeper the rows alone take 94 MB.
  budget, slack = 20_000_000, 45_000_000
  most = budget + keeper.BUFFER_BYTES
  config = dataclasses.replace(CONFIG, pixels_capacity=50_000, latents_capacity=10**6)
  bindings = ['Capacity.budget = "20MB"', 'ReplayConfig.pixels_capacity = 50_000']
  bindings += ['ReplayConfig.latents_capacity = 1_000_000']
  rng = np.random.default_rng(0)
  bytes_of = lambda *shape: rng.integers(0, 256, shape, np.uint8)  # noise, not to be compressed
  with Run(gin_file, *(f'--gin_bindings={binding}' for binding in bindings)) as run:
    client = server.connect(run.address, config)
    process, resident = psutil.Process(run.process.pid), []

    def write(writer, count, observations):
      """Blocks of rows; the server publishes after each."""
      zeros = lambda spec: np.zeros((count, *spec.shape), spec.dtype.as_numpy_dtype)
      spec = config.pixels_row
      for _ in range(15):
        step_type = np.ones(count, np.int32)
        rest = map(zeros, (spec.action, spec.reward, spec.discount))
        writer.extend(tables.Row(observations(count), *rest, step_type))
        empty = server.next_report(client).empty_bytes
        resident.append(process.memory_info().rss - empty)

    pixels = writers.RowWriter.of_table(client, config, 'pixels')
    write(pixels, 480, lambda count: bytes_of(count, 64, 64, 3))
    report = server.next_report(client)
    assert report.budget_bytes == budget and 0.8 * budget < report.used_bytes < most
    assert pixels.rows * 64 * 64 * 3 > 4 * budget

    pixels.close()
    messages.publish(client, messages.Variables(phase=1))
    report = server.next_report(client, holds=lambda report: report.phase == 1)
    assert report.capacity == 'replay_budget 20,000,000 bytes, growth measured_growth'
    held = range(report.pixels_first_row, pixels.rows)
    assert 0.5 * budget < len(held) * 64 * 64 * 3 < budget
    latents = writers.RowWriter(
      client, config.latents_layouts, tables.padding_row(config.latents_row)
    )
    encode = lambda pixels: bytes_of(len(pixels), 2, 100)
    assert drain.drain(client, config, held, encode, lambda stream: latents) == len(held)
    write(latents, 15_000, lambda count: bytes_of(count, 2, 100))
    latents.close()
    report = server.next_report(client)
    assert 0.8 * budget < report.used_bytes < most
    assert 20 * len(held) < report.rows < 0.6 * latents.rows
    assert max(resident) < budget + slack


def published(client, holds):
  """Reads what the server publishes until it `holds`."""
  seen = []
  for _ in range(20):
    report = server.next_report(client)
    seen.append((report.resident_bytes, report.empty_bytes))
    if holds(*seen[-1]):
      return seen[-1][0]
  raise AssertionError(f'(resident, empty) bytes published: {seen}')


def test_port_in_use_by_another_program():
  with socket.create_server(('localhost', 0)) as other:
    port = other.getsockname()[1]
    [line] = failure(f'--port={port}')
  assert line.startswith(f'error: Port {port} ')
  assert 'address already in use' in line


def test_port_in_use_by_another_replay_server(replay_port):
  [line] = failure(f'--port={replay_port}')
  assert line.startswith(f'error: Port {replay_port} ')


@pytest.fixture
def replay_port():
  one = reverb.Server(tables.make_tables(CONFIG))
  yield one.port
  one.stop()


def test_chosen_port_is_used_and_free_again_at_once(gin_file):
  port = ports.fixed()
  for _ in range(2):
    with Run(gin_file, f'--port={port}') as run:
      assert run.address == f'localhost:{port}'
      server.connect(run.address, CONFIG)
      run.process.terminate()
      assert run.process.wait(LIMIT) == 0


def test_of_two_that_start_at_one_port_at_the_same_time_one_serves(gin_file):
  port = ports.fixed()
  lines = [sys.executable, '-m', 'launch.replay_server', f'--gin_file={gin_file}', f'--port={port}']
  with forks.Process(lines) as one, forks.Process(lines) as other:
    deadline = time.monotonic() + LIMIT
    while one.returncode is None and other.returncode is None:
      assert time.monotonic() < deadline
      time.sleep(0.02)
    refused, serves = (other, one) if one.returncode is None else (one, other)
    assert refused.wait() == 2 and refused.stderr.startswith(f'error: Port {port} ')
    assert serves.address == f'localhost:{port}'
    server.connect(serves.address, CONFIG)


def test_unknown_gin_name_is_one_line(gin_file):
  lines = failure(f'--gin_file={gin_file}', '--gin_bindings=ReplayConfig.colour = 3')
  assert lines[-1].startswith('error: ') and 'colour' in lines[-1]


def test_a_full_disk_under_a_checkpoint(gin_file, tmp_path):
  """It fails in a line; what was saved before is still there, and the server goes on."""
  with Run(gin_file, f'--root_dir={tmp_path}') as run:
    client = server.connect(run.address, CONFIG)
    before = client.checkpoint()
    writer = writers.RowWriter.of_table(client, CONFIG, 'pixels')
    row = tables.padding_row(CONFIG.pixels_row)._replace(step_type=np.int32(1))
    rng = np.random.default_rng(0)
    for _ in range(200):
      writer.append(row._replace(observation=rng.integers(0, 256, (64, 64, 3), np.uint8)))
    writer.close()
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    with pytest.raises(Exception) as error:
      server.with_limit(client.checkpoint, LIMIT, 'checkpoint')
    assert not isinstance(error.value, TimeoutError), error.value
    assert os.path.exists(before)
    assert client.server_info(10)['pixels'].current_size == 200


def test_checkpoint_of_another_configuration_is_refused(gin_file, tmp_path):
  with Run(gin_file, f'--root_dir={tmp_path}') as run:
    path = server.connect(run.address, CONFIG).checkpoint()
    assert path.startswith(str(tmp_path / 'replay'))
    run.process.terminate()
    assert run.process.wait(LIMIT) == 0
  lines = failure(
    f'--gin_file={gin_file}',
    f'--root_dir={tmp_path}',
    '--gin_bindings=ReplayConfig.pixels_capacity = 7000',
  )
  [line] = [line for line in lines if line.startswith('error: ')]
  assert 'pixels_capacity was 6000, now 7000' in line


@pytest.mark.parametrize('port', ['-1', '65536', 'http'])
def test_what_is_no_port_is_named(port):
  result = forks.run([sys.executable, '-m', 'launch.replay_server', f'--port={port}'])
  assert result.returncode == 1 and 'Traceback' not in result.stderr
  assert f'--port={port}' in result.stderr
