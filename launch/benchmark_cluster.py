"""How fast a learner and several actors are together, as processes of their own on one machine."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from typing import Dict, Iterator, List, Sequence

from absl import flags

from launch import cli

_ACTORS = flags.DEFINE_list('actors', ['1', '2', '4', '8'], 'Numbers of actors, each in turn.')
_LIMIT_SECONDS = 600  # of each start; it only keeps what does not begin from being waited for


def bindings() -> List[str]:
  """From latents nearly at once, and for as long as it takes."""
  return [
    'Experiment.schedule_fn = @AtStart',
    'Experiment.total_agent_steps = 100_000_000',
    'Experiment.checkpoint_period = 100_000_000',
    'Checkpoints.period_seconds = 1e6',
  ]


class _Cluster:
  """Server, learner and actors, for as long as the context lasts."""

  def __init__(self, gin_arguments, folder: str, actors: int):
    files, further = gin_arguments
    self._gin = [
      *(f'--gin_file={path}' for path in files),
      *(f'--gin_bindings={b}' for b in further),
    ]
    self._folder = pathlib.Path(folder)
    self._actors = actors
    self._processes = []

  def __enter__(self):
    self._start('replay_server', '--port=0')
    port = self._until(lambda: re.search(r'ready on port (\d+)', self._said('replay_server')))[1]
    self.address = f'localhost:{port}'
    to = f'--replay_server={self.address}'
    self._start('learner', to, f'--root_dir={self._folder / "run"}')
    for task in range(self._actors):
      self._start('actor', to, f'--task={task}', name=f'actor{task}')
    return self

  def __exit__(self, *_):
    for process in self._processes:
      process.send_signal(signal.SIGKILL)
    for process in self._processes:
      process.wait()

  def _start(self, module: str, *arguments: str, name: str = ''):
    with (self._folder / f'{name or module}.log').open('w') as log:
      command = [sys.executable, '-m', f'launch.{module}', *arguments, *self._gin]
      self._processes.append(subprocess.Popen(command, stdout=log, stderr=log))

  def _said(self, name: str) -> str:
    return (self._folder / f'{name}.log').read_text(encoding='utf-8')

  def _until(self, holds):
    """What `holds` returns once it is true."""
    deadline = time.monotonic() + _LIMIT_SECONDS
    while True:
      value = holds()
      if value:
        return value
      self.check()
      if time.monotonic() > deadline:
        raise TimeoutError(f'no learning within {_LIMIT_SECONDS} s; see {self._folder}')
      time.sleep(0.02)

  def check(self):
    """Raises if a process has ended."""
    for process in self._processes:
      if process.poll() is not None:
        log = next(self._folder.glob('*.log'))
        raise cli.UserError(f'{" ".join(process.args[2:4])} has ended: {log.read_text()[-500:]}')

  def measure(self, seconds: float, acting: bool) -> Dict[str, float]:
    """Rates over so many seconds of the latent phase, once actors act again if they are to."""
    import reverb

    from seer_tf.replay import messages
    from seer_tf.training import records

    client = reverb.Client(self.address)

    def newest(holds):
      """The next variables to be published that hold, and when they were."""
      seen = messages.read(client).version
      wanted = lambda read: read.version > seen and holds(read) and (read, time.perf_counter())
      return self._until(lambda: wanted(messages.read(client)))

    first, start = newest(lambda read: read.phase == 2 and read.updates > 50)
    if acting:  # They rest at first: during the conversion they had got far ahead.
      rested = first.env_frames
      first, start = newest(lambda read: read.env_frames > rested)
    last, end = newest(lambda read: time.perf_counter() - start > seconds)
    elapsed = end - start
    rate = lambda name: (getattr(last, name) - getattr(first, name)) / elapsed
    shown = records.scalars(self._folder / 'run' / 'train')
    behind = [value for _, value in shown['Actors by agent_steps/mean_updates_behind']]
    return dict(
      updates_per_s=round(rate('updates'), 1),
      agent_steps_per_s=round(rate('agent_steps'), 1),
      env_frames_per_s=round(rate('env_frames'), 1),
      mean_updates_behind=round(behind[-1], 1) if behind else None,
    )


def cluster(gin_arguments: Sequence, seconds: float) -> Iterator[Dict]:
  """One row for the learner alone, then one for each number of actors.

  Alone: its one actor has done enough for a thousand updates with each agent step, and rests.

  Args:
    gin_arguments: (files, bindings) of every process.
    seconds: to measure in each case.
  """
  counts = _ACTORS.value
  if not counts or not all(count.isdigit() and int(count) > 0 for count in counts):
    raise cli.UserError(f'--actors={",".join(counts)}: give whole numbers of at least 1.')
  alone = None
  for actors in (0, *map(int, counts)):
    files, further = gin_arguments
    if not actors:
      further = [*further, 'Experiment.updates_per_agent_step = 1000']
    with (
      tempfile.TemporaryDirectory() as folder,
      _Cluster((files, further), folder, max(1, actors)) as running,
    ):
      figures = running.measure(seconds, acting=actors > 0)
    if alone is None:
      alone = figures['updates_per_s']
    yield dict(
      actors=actors,
      **figures,
      share_of_updates_alone=round(figures['updates_per_s'] / alone, 2),
      cores=len(os.sched_getaffinity(0)),
    )
