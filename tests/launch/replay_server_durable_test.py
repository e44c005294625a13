"""What a replay server holds outlives it: checkpoints, restarts, crashes and bad disks."""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import zlib

import gin
import numpy as np
import portpicker
import psutil
import pytest
import reverb

from launch import cli, replay_server
from seer_tf.replay import capacity, checkpointer, checkpoints, messages, server, tables, writers
from tests.soak import programs

CONFIG = tables.ReplayConfig(
  frame_shape=(4, 4, 1),
  frame_stack=2,
  action_shape=(1,),
  action_dtype='float32',
  latent_size=4,
  stored_crops=2,
  n_step=1,
  pixels_capacity=5000,
  latents_capacity=64,
)
NOISE = dataclasses.replace(CONFIG, frame_shape=(57, 57, 3))  # 9.7 KB a row
PRIORITISED = dataclasses.replace(
  CONFIG, priority_exponent=0.6, block_length=1, pixels_block_length=1, latents_chunk_length=1
)
LIMIT = 300  # seconds for what takes a few; it only keeps a broken test from hanging
# Processes are forked from one that has imported everything, which takes longer than all they do.
FORKED = programs.FORKED


def serve_in_child(config, budget, bindings, flags, output, log):
  """Runs in a child: the program, but for where its configuration comes from."""
  os.dup2(output.fileno(), 1)
  os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), 2)
  sys.stdout, sys.stderr = os.fdopen(1, 'w'), os.fdopen(2, 'w')
  os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
  gin.parse_config(bindings)
  sys.argv = ['replay_server', *flags]
  cli.run(
    lambda: replay_server.serve(config, capacity.Capacity(budget), replay_server.take_port(0))
  )


class View:
  """A running server as its clients see it."""

  def __init__(self, root_dir, config, address):
    self.root_dir, self.config = pathlib.Path(root_dir), config
    self.client = server.connect(address, config)

  @property
  def folders(self):
    """Names of its complete checkpoints, oldest first."""
    names = os.listdir(self.root_dir / 'replay')
    found = filter(None, (re.fullmatch(r'checkpoint-(\d+)', name) for name in names))
    return [match[0] for match in sorted(found, key=lambda match: int(match[1]))]

  def order(self, number, **variables):
    """Orders a checkpoint and waits until it is reported."""
    messages.publish(self.client, messages.Variables(checkpoint_order=number, **variables))
    return self.report(lambda report: report.checkpoint_order == number)

  def report(self, holds=lambda report: True):
    """The next one that holds."""
    return server.next_report(self.client, LIMIT, holds)


class Run(View):
  """A server on a root_dir, in a process of its own, until the context ends (by SIGKILL)."""

  def __init__(self, root_dir, config=CONFIG, period=600, keep=2, budget=None):
    self._root_dir, self._config = root_dir, config
    self.log = pathlib.Path(tempfile.mkstemp(prefix='seer_tf_log_')[1])
    bindings = f'Checkpoints.period_seconds = {period}\nCheckpoints.keep = {keep}'
    self._output, output = FORKED.Pipe(duplex=False)
    self.process = FORKED.Process(
      target=serve_in_child,
      args=(config, budget, bindings, [f'--root_dir={root_dir}'], output, str(self.log)),
    )
    self.process.start()
    output.close()

  def __enter__(self):
    ready = b''
    while not ready.endswith(b'\n'):
      assert self._output.poll(LIMIT)
      ready += os.read(self._output.fileno(), 1000)
      assert ready, self.log.read_text()
    super().__init__(self._root_dir, self._config, f'localhost:{ready.split()[5].decode()}')
    return self

  def __exit__(self, *_):
    self.kill()
    self.log.unlink()

  def kill(self):
    """Ends it by SIGKILL."""
    self.process.kill()
    self.process.join(LIMIT)

  def lines(self, begin):
    """What it said on standard error and begins so."""
    return [line for line in self.log.read_text().splitlines() if line.startswith(begin)]

  def end(self, number=signal.SIGTERM):
    """Ends it; returns its exit code."""
    os.kill(self.process.pid, number)
    self.process.join(25)
    return self.process.exitcode

  def refuses(self):
    """Its one line, where it must not start."""
    self.process.join(LIMIT)
    assert self.process.exitcode == 2
    assert not self.lines('warning: ')
    [line] = self.lines('error: ')
    self.log.unlink()
    return line


def frame(config, number):
  return np.random.default_rng(number).integers(0, 256, config.frame_shape, np.uint8)


def write(run, count, stream=0, **kwargs):
  """Writes a stream of `count` rows, told by their numbers, all acknowledged at the end."""
  config = run.config
  writer = writers.RowWriter(
    run.client,
    config.pixels_layouts,
    tables.padding_row(config.pixels_row),
    first_number=tables.first_number(stream),
    **kwargs,
  )
  append(writer, config, count, stream)
  writer.close()


def append(writer, config, count, stream):
  row = tables.padding_row(config.pixels_row)._replace(step_type=np.int32(1), number=None)
  for _ in range(count):
    number = tables.first_number(stream) + writer.rows
    writer.append(row._replace(observation=frame(config, number)))


def held(run, unseen=0):
  """{number: priority} of the rows in `pixels`, each of which must be what was written.

  But for the `unseen` ones, whose priority of 0 keeps them from being sampled.
  """
  layout, found = run.config.pixels_layout, {}
  for _ in range(200):
    size = run.client.server_info(10)['pixels'].current_size - unseen
    if len(found) >= size:
      assert len(found) == size
      return found
    for sample in run.client.sample('pixels', 300, emit_timesteps=False):
      stored = tables.StoredRow(*sample.data)
      [number] = map(int, tables.own_numbers(stored.rest, layout, run.config.pixels_row))
      if number not in found:
        observation = stored.observation.reshape(-1, *run.config.frame_shape)[layout.history]
        np.testing.assert_array_equal(observation, frame(run.config, number))
      found[number] = sample.info.priority
  raise AssertionError(f'{len(found)} of {size} rows found')


def numbers(count, stream=0):
  first = tables.first_number(stream)
  return set(range(first, first + count))


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """A root_dir with two checkpoints: of 40 rows, and of 60."""
  root_dir = tmp_path_factory.mktemp('two') / 'root'
  with Run(root_dir) as run:
    write(run, 40)
    run.order(3)
    write(run, 20, stream=1)
    run.order(4)
    assert run.folders == ['checkpoint-1', 'checkpoint-2']
  return root_dir


@pytest.fixture
def copied(two, tmp_path):
  shutil.copytree(two, tmp_path / 'root')
  return tmp_path / 'root'


def test_orders_and_the_end_keep_what_was_acknowledged(tmp_path):
  with Run(tmp_path / 'root', keep=3) as run:
    write(run, 40)
    first = run.report()
    assert (first.checkpoint_order, first.checkpoints) == (0, 0)
    second = run.order(7, env_frames=11)
    assert second.checkpoints == 1
    write(run, 5, stream=1)
    run.kill()
  with Run(tmp_path / 'root', keep=3) as run:
    assert held(run).keys() == numbers(40)
    report = run.report()
    assert report.incarnation != first.incarnation
    assert (report.checkpoint_order, report.checkpoints) == (7, 1)
    assert (report.rows, report.pixels_first_row) == (40, 0)
    assert messages.read(run.client) == messages.Variables(checkpoint_order=7, env_frames=11)
    write(run, 20, stream=2)
    assert run.end() == 0
    assert run.folders == ['checkpoint-1', 'checkpoint-2']
  with Run(tmp_path / 'root', keep=3) as run:
    assert held(run).keys() == numbers(40) | numbers(20, stream=2)
    assert run.end(signal.SIGINT) == 0
    assert run.folders == ['checkpoint-1', 'checkpoint-2', 'checkpoint-3']


def test_schedule_keeps_as_many_as_asked(tmp_path):
  with Run(tmp_path / 'root', period=0.2, keep=3) as run:
    write(run, 3)
    completed = run.report(lambda report: report.checkpoints >= 5).checkpoints
    names = run.folders
    assert 3 <= len(names) <= 4  # the oldest is removed only when the newest is there
    assert int(names[-1].split('-')[1]) >= completed
    over = run.order(1, is_over=1).checkpoints  # the order and the end of the run in one message
    time.sleep(1)  # five periods
    assert run.report().checkpoints == over
    assert len(run.folders) == 3
    assert run.end() == 0
    assert run.folders[-1] == f'checkpoint-{over}'


def test_killed_at_any_moment_it_goes_on_from_every_reported_checkpoint(tmp_path):
  rng = random.Random(0)
  before = set()  # what must be there, and nothing else, of earlier streams
  covered = appended = total = 0
  for stream in range(9):
    with Run(tmp_path / 'root', period=0.2) as run:
      now = held(run).keys()
      of_last = {n for n in now if tables.stream_of(n) == stream - 1}
      assert now - of_last == before
      assert of_last == numbers(len(of_last), stream - 1)
      assert covered <= len(of_last) <= appended
      before, total, covered, appended = set(now), total + covered, 0, 0
      order = run.report().checkpoint_order
      writer = writers.RowWriter(
        run.client,
        {'pixels': CONFIG.pixels_layout},  # in which each row is acknowledged by itself
        tables.padding_row(CONFIG.pixels_row),
        first_number=tables.first_number(stream),
      )
      waiting = {}  # order -> rows it must cover
      # Half of them at any moment from the start on, half from the first report of a checkpoint on.
      deadline = time.monotonic() + (rng.uniform(0.1, 0.8) if stream % 2 else LIMIT)
      while time.monotonic() < deadline:
        append(writer, CONFIG, 1, stream)
        writer.flush()
        order += 1
        waiting[order] = writer.acknowledged
        messages.publish(run.client, messages.Variables(checkpoint_order=order))
        done = server.report(run.client).checkpoint_order
        time.sleep(0.01)  # so that reading all rows takes no longer than the rest
        if done in waiting and not covered:
          deadline = min(deadline, time.monotonic() + rng.uniform(0, 0.6))
        covered = waiting.get(done, covered)
      appended = writer.rows
      run.kill()
  assert total > 20


def settle(run):
  """Waits until no checkpoint is under way: nothing of one is there in two reports on end."""
  replay, quiet = run.root_dir / 'replay', 0
  while quiet < 2:
    run.report()
    under_way = [*replay.glob('*.partial'), *(replay / 'reverb').glob('*')]
    quiet = 0 if under_way else quiet + 1


def test_draining_forbids_checkpoints(tmp_path):
  with Run(tmp_path / 'root', period=0.2) as run:
    messages.publish(run.client, messages.Variables(phase=1, draining=1, checkpoint_order=5))
    run.report(lambda report: report.phase == 1)
    settle(run)  # A checkpoint under way is discarded; no call waits for it.
    folders = run.folders
    for _ in range(4):
      assert run.report().checkpoint_order == 0
    assert run.folders == folders
    assert run.order(6, phase=2).checkpoints > 0
    messages.publish(run.client, messages.Variables(phase=2, draining=1, checkpoint_order=7))
    time.sleep(1)  # So long it takes at most to hear of it; nothing tells that nothing happens.
    settle(run)
    folders = run.folders
    assert run.end() == 0
    assert run.folders == folders


def test_after_the_freeze_a_new_start_waits_for_the_learner(tmp_path):
  """Or a learner that reads table `drain` on, unaware, might have half of it kept."""
  with Run(tmp_path / 'root') as run:
    run.order(1, phase=1, version=7)
    run.kill()
  with Run(tmp_path / 'root', period=0.2) as run:
    time.sleep(1)  # No call waits for what is not to come.
    assert run.report().checkpoints == 1
    messages.publish(run.client, messages.Variables(phase=1, version=8, checkpoint_order=1))
    run.report(lambda report: report.checkpoints > 1)


@pytest.mark.parametrize('reads', [0, 1])
def test_what_an_unaware_learner_has_read_is_still_there_at_the_next_start(tmp_path, reads):
  with Run(tmp_path / 'root') as run:
    write(run, 70)
    run.order(1, phase=1, version=7)
    run.kill()
  with Run(tmp_path / 'root') as run:
    if reads:
      next(run.client.sample('drain', emit_timesteps=False))
    before, items = run.folders, run.client.server_info(timeout=20)['drain'].current_size
    assert run.end() == 0
    assert (run.folders == before) == bool(reads)
  with Run(tmp_path / 'root') as run:
    assert run.client.server_info(timeout=20)['drain'].current_size == items + reads


def test_the_keeper_goes_on_where_it_was(tmp_path):
  config = dataclasses.replace(CONFIG, pixels_capacity=30)
  with Run(tmp_path / 'root', config) as run:
    write(run, 40)
    assert run.order(1).pixels_first_row == 10
    run.kill()
  with Run(tmp_path / 'root', config) as run:
    assert run.report().pixels_first_row == 10
    assert held(run).keys() == numbers(40) - numbers(10)
    messages.publish(run.client, messages.Variables(phase=1))
    run.report(lambda report: report.phase == 1)
    run.client.reset('pixels')
    report = run.order(2, phase=2)
    assert (report.phase, report.pixels_first_row) == (2, 10)
    run.kill()
  with Run(tmp_path / 'root', config) as run:
    report = run.report()
    assert (report.phase, report.pixels_first_row) == (2, 10)


def test_a_drain_in_between_spoils_a_checkpoint():
  look = lambda phase, draining, drained: checkpointer.Look(
    messages.Variables(phase=phase, draining=draining), drained
  )
  assert look(0, 0, 3).may_become(look(0, 0, 9))  # the keeper's own reads
  assert look(1, 0, 3).may_become(look(1, 0, 3))
  assert not look(1, 0, 3).may_become(look(1, 1, 3))
  assert not look(1, 1, 3).may_become(look(1, 0, 3))
  assert not look(1, 0, 3).may_become(look(1, 0, 9))
  assert not look(1, 0, 3).may_become(look(2, 0, 3))


@pytest.mark.parametrize(
  'change, entry',
  [
    (dict(pixels_capacity=6000), 'pixels_capacity was 5000, now 6000'),
    (dict(frame_shape=(4, 5, 1)), 'frame_shape was [4, 4, 1], now [4, 5, 1]'),
    (dict(n_step=3), 'n_step was 1, now 3'),
  ],
)
def test_another_configuration_is_refused_by_name(two, change, entry):
  line = Run(two, dataclasses.replace(CONFIG, **change)).refuses()
  assert f'another configuration: {entry}. Start' in line


def test_what_a_budget_evicts_after_a_restart_is_no_reading_of_a_learner(tmp_path):
  """The keeper reads table `drain` to evict; the first checkpoint after it is that of a freeze."""
  reads = lambda: run.client.server_info(20)['drain'].rate_limiter_info.sample_stats.completed
  with Run(tmp_path / 'root', NOISE, budget='20MB') as run:
    write(run, 2500)
    run.order(1)
    run.kill()
  with Run(tmp_path / 'root', NOISE, budget='20MB') as run:
    restored, started = reads(), run.report()
    write(run, 500, stream=1)
    assert run.report(lambda report: reads() > restored + 3).rows < 2500
    report = run.order(2, phase=1)
    assert (report.incarnation, report.checkpoints) == (started.incarnation, 2)


def test_another_capacity_is_refused_by_name(two):
  line = Run(two, budget='1GB').refuses()
  assert 'Capacity was replay_budget none' in line and 'now replay_budget 1,000,000,000' in line


def damage(root_dir, number, name, how):
  """Damages a file of a checkpoint."""
  path = root_dir / 'replay' / f'checkpoint-{number}' / name
  content = path.read_bytes()
  path.unlink()
  if how == 'cut':
    path.write_bytes(content[: len(content) // 2])
  elif how == 'changed':
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


@pytest.mark.parametrize(
  'name, how',
  [
    *((f'{name}.tfrecord', how) for name in ('items', 'tables') for how in ('cut', 'missing')),
    *(('chunks.tfrecord', how) for how in ('cut', 'changed', 'missing')),
    *(('meta.json', how) for how in ('cut', 'missing')),
    ('DONE', 'missing'),
  ],
)
def test_a_damaged_checkpoint_is_passed_over(copied, capsys, name, how):
  damage(copied, 2, name, how)
  description = checkpoints.describe(CONFIG, capacity.Capacity())
  folder = checkpoints.Folder(str(copied / 'replay'), description)
  assert (folder.newest().number, folder.newest().order) == (1, 3)
  [line] = capsys.readouterr().err.splitlines()
  assert 'checkpoint-2 is damaged' in line and name in line


def test_a_server_goes_on_from_the_one_before_a_damaged_one(copied):
  folder = copied / 'replay'
  shutil.copytree(folder / 'checkpoint-2', folder / 'checkpoint-3.partial')
  # Whole by our own sums, but nothing that Reverb can read.
  (folder / 'checkpoint-2' / 'chunks.tfrecord').write_bytes(b'nonsense')
  meta = json.loads((folder / 'checkpoint-2' / 'meta.json').read_text())
  meta['files']['chunks.tfrecord'] = [8, zlib.crc32(b'nonsense')]
  (folder / 'checkpoint-2' / 'meta.json').write_text(json.dumps(meta))
  with Run(copied) as run:
    assert held(run).keys() == numbers(40)
    [line] = run.lines('warning: ')
    assert 'checkpoint-2 is damaged' in line and 'checkpoint-1 instead' in line
    assert not list(folder.glob('*.partial'))
    run.order(9)
    assert run.folders == ['checkpoint-1', 'checkpoint-3']


def test_all_damaged(copied):
  for number in (1, 2):
    damage(copied, number, 'chunks.tfrecord', 'cut')
  run = Run(copied)
  assert 'To start with empty replay, remove' in run.refuses()
  shutil.rmtree(copied / 'replay')
  with Run(copied) as run:
    assert run.report().rows == 0


def test_one_server_at_a_time(copied, capsys):
  with Run(copied), pytest.raises(server.ReplayServerError) as error:
    checkpoints.Folder(str(copied / 'replay'), {}, lock_seconds=0.1)
  assert 'Another replay server uses' in str(error.value)
  assert capsys.readouterr().err.count('\n') == 1


def test_a_full_and_a_read_only_disk(small_disk):
  root_dir = small_disk.path / 'root'
  with Run(root_dir, NOISE) as run:
    write(run, 20)
    run.order(1)
    write(run, 150, stream=1)
    messages.publish(run.client, messages.Variables(checkpoint_order=2))
    deadline = time.monotonic() + LIMIT
    while not run.lines('warning: ') and time.monotonic() < deadline:
      assert run.report().checkpoint_order == 1
    [line] = run.lines('warning: ')
    assert 'No space left on device' in line and str(root_dir) in line
    assert 'checkpoint-1 still holds; trying again in 5 s' in line
    small_disk.remount('size=20m')
    assert run.report(lambda report: report.checkpoint_order == 2).checkpoints == 2
  small_disk.remount('ro')
  with pytest.raises(server.ReplayServerError, match='Read-only file system'):
    checkpoints.Folder(str(root_dir / 'replay'), {})
  small_disk.remount('rw')
  with contextlib.suppress(OSError), (small_disk.path / 'filler').open('wb') as filler:
    while True:
      filler.write(bytes(4096))
      filler.flush()
  line = Run(root_dir, NOISE).refuses()
  assert 'No space left on device' in line and '--root_dir' in line


def test_a_root_dir_that_is_a_file(tmp_path):
  (tmp_path / 'root').write_text('')
  line = Run(tmp_path / 'root').refuses()
  assert 'Not a directory' in line and '--root_dir' in line


def test_used_bytes_are_the_same_after_a_restart(tmp_path):
  with Run(tmp_path / 'root', NOISE) as run:
    write(run, 2500)
    before = run.order(1).used_bytes
  with Run(tmp_path / 'root', NOISE) as run:
    after = run.report().used_bytes
  assert before > 2500 * 57 * 57 * 3
  assert after == pytest.approx(before, rel=0.2, abs=2e6)


def test_priorities_outlive_a_restart(tmp_path):
  priority_of = lambda numbers: 1.0 + numbers % 7
  with Run(tmp_path / 'root', PRIORITISED) as run:
    write(run, 50, priority_of=priority_of)
    before = held(run, unseen=1)
    assert run.end() == 0
  assert len(set(before.values())) > 5
  with Run(tmp_path / 'root', PRIORITISED) as run:
    assert held(run, unseen=1) == before


@pytest.fixture
def in_process(tmp_path):
  """(a server in this process, a folder for its checkpoints)."""
  folder = checkpoints.Folder(str(tmp_path / 'replay'), {})
  reader = reverb.checkpointers.DefaultCheckpointer(folder.reverb_path)
  one = reverb.Server(tables.make_tables(CONFIG), None, reader)
  yield one, folder
  one.stop()


def test_the_last_checkpoint_has_a_limit(in_process, capsys):
  one, folder = in_process
  write_checkpoint = checkpointer.Checkpointer(
    one.localhost_client(), folder, checkpointer.Checkpoints(), None
  )
  write_checkpoint.finish({}, limit_seconds=0)
  assert write_checkpoint.is_writing
  assert 'was not written within 0 s; there is none yet' in capsys.readouterr().err
  write_checkpoint.finish({}, limit_seconds=LIMIT)
  assert not write_checkpoint.is_writing and folder.numbers() == [2, 1]


@pytest.mark.parametrize('setting', [dict(period_seconds=0), dict(keep=0), dict(keep=1.5)])
def test_settings_that_make_no_sense(setting):
  with pytest.raises(ValueError, match=f'Checkpoints.{next(iter(setting))} is'):
    checkpointer.Checkpoints(**setting)


GIN = """
Experiment.total_agent_steps = 100
Experiment.environment_fn = @dm_control.load
dm_control.load.domain = 'cartpole'
dm_control.load.task = 'swingup'
dm_control.load.image_size = 24
RandomCrop.image_size = 20
ReplayConfig.stored_crops = 2
ReplayConfig.n_step = 1
ReplayConfig.pixels_capacity = 500
ReplayConfig.latents_capacity = 64
"""


def own_a_server(gin_file, root_dir, connection):
  """Runs in a child: a run, as far as its server is concerned."""
  os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
  with server.EmbeddedServer([gin_file], root_dir=root_dir) as embedded:
    connection.send((embedded.address, embedded.pid))
    connection.recv()


@contextlib.contextmanager
def owned(tmp_path):
  """Yields (`View` of a server that is configured by gin, its process, that of its owner)."""
  gin_file, root_dir = tmp_path / 'experiment.gin', tmp_path / 'root'
  gin_file.write_text(GIN)
  config = dataclasses.replace(
    CONFIG,
    frame_shape=(24, 24, 3),
    frame_stack=3,
    latent_size=100,
    latents_dtype='uint8',
    pixels_capacity=500,
  )
  connection, other = FORKED.Pipe()
  parent = FORKED.Process(target=own_a_server, args=(str(gin_file), str(root_dir), other))
  parent.start()
  try:
    assert connection.poll(LIMIT)
    address, pid = connection.recv()
    yield View(root_dir, config, address), psutil.Process(pid), parent
  finally:
    parent.kill()


@contextlib.contextmanager
def asked_for(port):
  """Yields a list that tells, over and over, whether the system would give away the port."""
  given, ended = [], threading.Event()

  def ask():
    while not ended.wait(0.01):
      given.append(bool(portpicker.is_port_free(port)))

  thread = threading.Thread(target=ask)
  thread.start()
  try:
    yield given
  finally:
    ended.set()
    thread.join()


def test_what_an_unaware_learner_has_read_is_back_before_another_one_converts(tmp_path):
  """It was killed before it noticed that the server is another one."""
  with owned(tmp_path) as (view, _, _):
    write(view, 70)
    first = view.order(1, phase=1, version=7).incarnation
    messages.publish(view.client, messages.Variables(phase=1, version=8, restore_order=first))
    second = view.report(lambda report: report.incarnation != first).incarnation
    items = lambda: view.client.server_info(timeout=20)['drain'].current_size
    whole = items()
    next(view.client.sample('drain', emit_timesteps=False))
    assert items() == whole - 1
    order = messages.Variables(phase=1, version=9, checkpoint_order=2)
    messages.publish(view.client, order)
    report = view.report(lambda report: report.incarnation not in (first, second))
    assert report.checkpoint_order == 1 and items() == whole
    messages.publish(view.client, order)
    assert (
      view.report(lambda report: report.checkpoint_order == 2).incarnation == report.incarnation
    )


def test_starting_anew_by_order_and_the_end_of_a_killed_parent(tmp_path):
  with owned(tmp_path) as (view, child, parent):
    write(view, 10)
    old = view.order(1).incarnation
    write(view, 7, stream=1)
    port = view.client.server_address.split(':')[1]
    order = messages.Variables(checkpoint_order=1, restore_order=old)
    with asked_for(int(port)) as given:
      messages.publish(view.client, order)
      assert view.report(lambda report: report.incarnation != old).checkpoint_order == 1
    assert len(given) > 10 and not any(given)  # Nobody else is given its port meanwhile.
    assert child.is_running() and child.cmdline()[-1] == f'--port={port}'
    assert held(view).keys() == numbers(10)
    assert messages.read(view.client) == messages.Variables(checkpoint_order=1)
    write(view, 5, stream=2)
    parent.kill()
    parent.join(LIMIT)
  with Run(view.root_dir, view.config) as run:  # waits for the other to end
    child.wait(25)
    assert held(run).keys() == numbers(10) | numbers(5, stream=2)
