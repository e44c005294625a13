"""One run of separate processes, from its first agent step to its last, under kills."""

import collections
import pathlib
import time
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence

import gin
import numpy as np
import tensorflow as tf

from seer_tf.replay import server
from seer_tf.training import experiment as experiment_lib
from seer_tf.training import subscription
from tests import ports
from tests.soak import audit, members, plan, watch

GIN_FILE = 'tests/soak/soak.gin'
_POLL_SECONDS = 0.02


class Outcome(NamedTuple):
  """What became of a run.

  Attributes:
    kills: (name, phase, seconds of the life) of each.
    starts: of all processes.
    rows: of latents at the end.
    sure_rows: of these, those that had to be there.
    faults: of what replay holds.
    hung: processes that did not go on, a line each.
    failed: processes that ended otherwise than they may, and why, a line each.
    seconds: that it took.
  """

  kills: List
  starts: int
  rows: int
  sure_rows: int
  faults: audit.Faults
  hung: List[str]
  failed: List[str]
  seconds: float


class Life:
  """Starts the processes, kills and restarts them by a plan, and audits what is left."""

  def __init__(self, folder: pathlib.Path, bindings: Sequence[str] = (), limit_seconds=90.0):
    """Starts nothing yet.

    Args:
      folder: for everything that the run leaves.
      bindings: of gin.
      limit_seconds: for which a process may show no sign of life.
    """
    folder.mkdir(parents=True)
    self._folder, self._limit = folder, limit_seconds
    self._bindings = list(bindings)
    self._port = ports.fixed()
    address = f'localhost:{self._port}'
    self._address = address
    at_server = f'--replay_server={address}'
    gin_flags = [f'--gin_file={GIN_FILE}', *(f'--gin_bindings={line}' for line in bindings)]
    arguments = {
      'server': ('replay_server', f'--root_dir={folder}/server', f'--port={self._port}'),
      'learner': ('learner', f'--root_dir={folder}/learner', at_server),
      'evaluator': ('evaluator', f'--root_dir={folder}/evaluator', at_server),
    }
    for task in range(plan.ACTORS):
      arguments[f'actor{task}'] = ('actor', f'--task={task}', at_server)
    self._members: Dict[str, members.Member] = {
      name: members.Member(name, words[0], [*words[1:], *gin_flags], folder)
      for name, words in arguments.items()
    }
    self._kills, self._hung, self._failed = [], [], []
    self._stopped = []  # (until when, who)
    self._said_again = 0  # the learner's end: to which start of the server
    self._start = time.monotonic()

  def run(self, kills: Iterator[plan.Kill]) -> Outcome:
    """Lives to the end of the run; kills that are left then are not carried out."""
    self._watch = watch.Watch(self._address, self._folder / 'server')
    try:
      self._live(kills)
      faults, rows, sure = audit.Faults([], [], []), 0, 0
      if not self._hung and not self._failed:
        faults, rows, sure = self._audit()
      self._end_server()
    finally:
      self._watch.end()
      for member in self._members.values():
        if member.is_running:
          member.kill()
    starts = sum(member.starts for member in self._members.values())
    seconds = time.monotonic() - self._start
    return Outcome(self._kills, starts, rows, sure, faults, self._hung, self._failed, seconds)

  def _live(self, kills):
    kill: Optional[plan.Kill] = next(kills, None)
    armed = 0.0
    while not self._hung and not self._failed:
      now = time.monotonic()
      for member in self._members.values():
        if member.restart_at is not None and now >= member.restart_at:
          member.start()
      for until, member in list(self._stopped):
        if now >= until:
          member.go_on()
          self._stopped.remove((until, member))
      self._look_after()
      others = [member for name, member in self._members.items() if name != 'server']
      is_back = self._members['server'].restart_at is None
      have_ended = all(m.exit_code == 0 and m.restart_at is None for m in others)
      if is_back and have_ended and self._watch.is_over:
        return
      if kill is not None:
        seen = self._watch.phase, self._watch.agent_steps, self._watch.rows
        least = kill.phase, kill.agent_steps, kill.rows
        is_early = any(value < bound for value, bound in zip(seen, least))
        if is_early or (kill.when_well and not self._is_well):
          armed = 0.0
        elif not armed:
          armed = now + kill.delay
        elif now >= armed:
          self._carry_out(kill)
          kill, armed = next(kills, None), 0.0
      time.sleep(_POLL_SECONDS)  # there is no call that waits for all that may happen

  @property
  def _is_well(self) -> bool:
    """Whether all that were killed are back."""
    for name, member in self._members.items():
      if member.restart_at is not None:
        return False
      if member.is_running and self._sign(name) <= member.last_start:
        return False
    return True

  def _sign(self, name: str) -> float:
    signs = {'server': self._watch.server_sign, 'learner': self._watch.learner_sign}
    return signs.get(name, self._members[name].last_sign)

  def _look_after(self):
    """Notes who has ended that should not have, and who does not go on."""
    now = time.monotonic()
    for name, member in self._members.items():
      code = member.exit_code
      if member.restart_at is not None:
        continue
      if code is not None and (code != 0 or name == 'server' or not self._watch.is_over):
        # What it has read a moment ago is read here a moment later; a busy machine takes its time.
        while not self._is_meant(name, code) and time.monotonic() < now + 5:
          time.sleep(0.1)
        if not self._is_meant(name, code):
          self._failed.append(f'{name} ended with {code}: {member.last_line}')
      last = max(self._sign(name), member.last_start)
      if code is None and now - last > self._limit:
        member.show_stacks()
        self._hung.append(f'{name} shows no sign of life for {self._limit:g} s: {member.last_line}')

  def _is_meant(self, name: str, code: int) -> bool:
    """Whether it is right that this process has ended with this code."""
    return code == 0 and name != 'server' and (self._watch.is_over or self._went_back())

  def _went_back(self) -> bool:
    """Whether the server was killed when its learner had ended, and may not know of that any more.

    Then the learner's command is given once more, which says so to each new server.
    """
    learner, server = self._members['learner'], self._members['server']
    if learner.restart_at is None and learner.exit_code != 0:
      return self._said_again > 0
    if server.restart_at is not None or not server.is_running:
      return True
    if server.last_start > learner.last_start and server.starts > self._said_again:
      self._said_again = server.starts
      learner.restart_at = time.monotonic()
    return self._said_again > 0

  def _carry_out(self, kill: plan.Kill):
    phase = plan.PHASES[max(0, self._watch.phase)]
    for name, pause in zip(kill.victims, kill.pauses):
      member = self._members[name]
      if member.is_running and kill.stop_seconds:
        member.stop()
        self._stopped.append((time.monotonic() + kill.stop_seconds, member))
      elif member.is_running:
        member.kill()
        self._kills.append((name, phase, round(time.monotonic() - self._start, 1)))
        member.restart_at = time.monotonic() + pause

  def _end_server(self):
    member = self._members['server']
    if member.is_running and not self._hung:
      code = member.end(30)
      if code is None:
        self._hung.append('server did not end within 30 s of SIGTERM')
      elif code:
        self._failed.append(f'server ended with {code} on SIGTERM: {member.last_line}')

  def _audit(self):
    """(faults, rows of latents, rows that had to be there)."""
    with gin.unlock_config():
      gin.clear_config()
      gin.parse_config_files_and_bindings([GIN_FILE], self._bindings)
      experiment = experiment_lib.Experiment()
      environment = experiment.environment_fn()
      agent = experiment.agent(environment, tf.Variable(0, dtype=tf.int64))
      config = experiment.replay_config(environment)
      shape = environment.observation_spec().shape
      image_size = experiment.augmentation_fn().output_shape(shape)[0]
      codec = experiment.codec(config)
      client = server.connect(self._address, config, 60)
      # Refuses weights of another fingerprint than what is published.
      subscription.Subscription(client, agent, codec, 60).refresh()
      gin.clear_config()
    held = audit.read(client, config)
    sure = self._sure_rows()
    # Nothing limits how far actors get while a learner is dead in the switch.
    is_full = len(held['latents'].windows) * config.block_length >= config.latents_capacity
    may_evict = is_full or any('capacity' in line for line in self._bindings)
    are_strange = audit.comparison(agent.lower, image_size, codec)
    found = audit.audit(held, sure, are_strange, may_evict)
    return found, len(held['latents'].numbers), len(sure)

  def _sure_rows(self) -> np.ndarray:
    """Numbers of rows that were acknowledged and that no death of the server can have taken."""
    deaths, sure = self._watch.deaths, [np.zeros(0, np.int64)]
    for path in self._folder.glob('*.rows'):
      done = collections.defaultdict(int)
      for line in path.read_text().splitlines():
        words = line.split()
        if len(words) != 3:
          continue  # its writer was killed
        at, first, count = float(words[0]), int(words[1]), int(words[2])
        begin, done[first] = done[first], count
        if not any(death.kept_until <= at <= death.at for death in deaths):
          sure.append(np.arange(first + begin, first + count))
    return np.unique(np.concatenate(sure))
