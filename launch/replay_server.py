r"""A replay server in a process of its own: every table of one experiment, over gRPC.

    python -m launch.replay_server --port=8000 --gin_file=gin_configs/sac_dmc_cpu.gin

Give it the gin files and bindings of the run, because the tables follow from them, and give the run
`--replay_server=host:8000`. It prints one line when it is ready, and ends on SIGTERM or Ctrl-C.

With `--root_dir` what it holds is kept there, in folder `replay`: checkpoints are written while it
runs (`Checkpoints.period_seconds`, and whenever the learner asks) and when it is told to end, and
the same command goes on from the newest. Killed, it loses what came after that one. Without
`--root_dir` what it holds is gone when it ends.

There is no encryption and no authentication, and the server listens on every interface: run it only
in a network you trust.
"""

import contextlib
import os
import secrets
import select
import signal
import socket
import sys
import tempfile
import time

from absl import flags
import numpy as np

from launch import cli
from seer_tf.costs import memory

_PORT = flags.DEFINE_integer(
  'port', 0, 'Port to listen on; 0 picks a free one.', lower_bound=0, upper_bound=65535
)
_ROOT_DIR = flags.DEFINE_string(
  'root_dir', None, 'Folder of the run; checkpoints of replay go to its folder replay.'
)
_STOP_ON_STDIN_EOF = flags.DEFINE_boolean(
  'stop_on_stdin_eof', False, 'End when standard input closes: with the process that started this.'
)

# Environment variable: file descriptor of the port's socket, from the program that starts anew.
_PORT_SOCKET = 'SEER_TF_PORT_SOCKET'
_PERIOD_SECONDS = 0.25
# Trimming takes 0.1 to 0.4 ms as a rule and about 30 ms after 150 MB were freed; with this pause
# after each it takes less than a hundredth of a core whatever the size of the heap.
_TRIM_PAUSE = 100
_LAST_CHECKPOINT_SECONDS = (
  20  # the rest of the end takes less than the 5 until anyone gets impatient
)
_SIGNALS = (signal.SIGTERM, signal.SIGINT)  # that end it


class _Memory:
  """What replay takes of this process's memory."""

  def __init__(self, made, checkpoint_dir: str):
    """Measures a server with nothing in its tables, which ends again: the real one may hold rows.

    Args:
      made: tables like the real ones, for this server alone.
      checkpoint_dir: a folder with no checkpoint in it.
    """
    import reverb

    from seer_tf.replay import server as server_lib
    from seer_tf.replay import tables

    reader = reverb.checkpointers.DefaultCheckpointer(checkpoint_dir)
    empty = reverb.Server(made, None, reader)
    client = empty.localhost_client()
    # The first item and sample allocate what is never freed.
    client.insert(
      _typed(tables.SERVER_SIGNATURE, server_lib.Report(*[0] * 8, '', *[0] * 3)), {'server': 1.0}
    )
    next(client.sample('server'))
    memory.trim()
    self.empty_bytes = memory.resident_bytes()
    self._empty_allocated = memory.allocated_bytes()
    empty.stop()

  def used_bytes(self, overhead_bytes: int) -> int:
    """Bytes allocated since; more where resident memory has grown by more than `overhead_bytes`."""
    allocated = memory.allocated_bytes() - self._empty_allocated
    return max(0, allocated, memory.resident_bytes() - self.empty_bytes - overhead_bytes)


def _typed(signature, report):
  """A `server.Report` as table `server` takes it."""
  values = report._asdict()
  return {
    name: np.asarray(values[name], spec.dtype.as_numpy_dtype) for name, spec in signature.items()
  }


class _Unsaved:
  """Stands in for a `Checkpointer` without a root_dir: orders are done by keeping nothing."""

  is_writing = is_spoilt = False
  order = completed = 0

  def __call__(self, variables, keeper):
    from seer_tf.replay import checkpoints

    if variables.checkpoint_order and not self.order:
      checkpoints.say(
        'warning: a checkpoint of replay was ordered, but this server has no --root_dir and keeps '
        'nothing: once it is killed, what it held is gone.'
      )
    self.order = max(self.order, variables.checkpoint_order)

  def finish(self, keeper, limit_seconds):
    """There is no last checkpoint."""


class _Housekeeping:
  """Keeps replay within its capacity, gives free memory back, and publishes how things stand.

  Attributes:
    is_to_restart: whether the server is to start anew: the learner has ordered it, or what the
      server holds is no more what its checkpoint held, see `checkpointer`.
  """

  def __init__(self, client, keeper, checkpointer, empty_bytes):
    """The server of `client`, in this process, must have its tables."""
    from seer_tf.replay import messages, tables

    self._client = client
    self._signature = tables.SERVER_SIGNATURE
    self._incarnation = 1 + secrets.randbits(62)
    self._keeper = keeper
    self._checkpointer = checkpointer
    self._empty_bytes = empty_bytes
    self._variables, self._published = messages.Variables(), -1
    self.is_to_restart = False

  def __call__(self) -> float:
    """Does so once; returns after how many seconds to do so again."""
    from seer_tf.replay import server as server_lib

    start = time.thread_time()
    memory.trim()  # the C allocator would keep what Reverb has freed
    cost_seconds = time.thread_time() - start
    self._read_variables()
    kept = self._keeper.keep(self._variables.phase)
    self._checkpointer(self._variables, self._keeper.state())
    is_ordered = self._variables.restore_order == self._incarnation
    self.is_to_restart = is_ordered or self._checkpointer.is_spoilt
    report = server_lib.Report(
      resident_bytes=memory.resident_bytes(),
      empty_bytes=self._empty_bytes,
      machine_bytes=memory.machine_bytes(),
      incarnation=self._incarnation,
      checkpoint_order=self._checkpointer.order,
      checkpoints=self._checkpointer.completed,
      version=self._variables.version,
      learner=self._variables.learner,
      **kept,
    )
    self._client.insert(_typed(self._signature, report), {'server': 1.0})
    return max(_PERIOD_SECONDS, _TRIM_PAUSE * cost_seconds)

  def finish(self):
    """Writes a last checkpoint; afterwards it must not be called again."""
    self._read_variables()
    self._keeper.keep(self._variables.phase)
    self._checkpointer.finish(self._keeper.state(), _LAST_CHECKPOINT_SECONDS)

  def _read_variables(self):
    """Reads what the learner published if it is new: it may hold all weights of a policy."""
    import reverb

    from seer_tf.replay import messages

    try:
      info = self._client.server_info(20)['variables']
      published = info.rate_limiter_info.insert_stats.completed
      if info.current_size and published != self._published:
        self._variables, self._published = messages.read(self._client), published
    except (TimeoutError, RuntimeError, reverb.errors.ReverbError):
      pass  # This process was stopped for longer than that; what it read last holds till next time.


def take_port(port: int) -> socket.socket:
  """A socket that keeps a port (0: a free one) for this program, but does not listen.

  Two Reverb servers would share a port and each get half the calls. Reverb binds it late, when all
  is read and made, and lets go of it when the server starts anew; meanwhile the system could give
  it to another program. Reverb's own socket may share the port with this one (SO_REUSEPORT).

  Raises:
    ValueError: if the port is in use.
  """
  handed_on = os.environ.pop(_PORT_SOCKET, None)
  if handed_on:
    kept = socket.socket(fileno=int(handed_on))
    kept.set_inheritable(False)
    return kept
  both = socket.has_dualstack_ipv6()
  kept = socket.socket(socket.AF_INET6 if both else socket.AF_INET)
  try:
    if both:
      kept.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    # Connections of a server that has just ended do not matter; only while this socket is bound.
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(('', port))
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
  except OSError as error:
    kept.close()
    raise ValueError(
      f'Port {port} cannot be listened on ({error.strerror.lower()}); stop what uses it or give '
      'another --port (0 picks a free one).'
    ) from error
  return kept


def _run_until_told(keep_house):
  """Calls `keep_house` as often as it asks until SIGTERM, SIGINT or, if asked for, end of input.

  Or until the learner has ordered a restart; `keep_house.is_to_restart` tells which it was.
  """
  told, tell = os.pipe()
  os.set_blocking(tell, False)
  signal.set_wakeup_fd(tell)
  for number in _SIGNALS:
    signal.signal(number, lambda *_: None)  # The wake-up alone ends the wait below.
  sources = [told, *([0] if _STOP_ON_STDIN_EOF.value else [])]
  while True:
    seconds = keep_house()
    if keep_house.is_to_restart:
      # From here on they wait for the program that takes this one's place.
      signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
      seconds = 0
    ready = select.select(sources, [], [], seconds)[0]
    if told in ready or (ready and not os.read(0, 4096)):
      keep_house.is_to_restart = False
      return
    if keep_house.is_to_restart:
      return


def _serve(config, capacity, port: int, folder, checkpoint_dir: str) -> bool:
  """Serves the tables of `config`, kept within `capacity`, until told to stop.

  Args:
    config: of the tables.
    capacity: of replay.
    port: to listen on.
    folder: `checkpoints.Folder` to go on from and to write to, or None.
    checkpoint_dir: where Reverb itself may write.

  Returns:
    Whether the learner has ordered that a new server take this one's place.
  """
  from seer_tf.replay import capacity as capacity_lib
  from seer_tf.replay import checkpointer as checkpointer_lib
  from seer_tf.replay import checkpoints, keeper, tables
  from seer_tf.replay import server as server_lib

  used = _Memory(tables.make_tables(config), checkpoint_dir)
  made = tables.make_tables(config)
  server, restored = _start(made, port, folder, checkpoint_dir)
  client = server.localhost_client()
  # A checkpoint silently overrides the sizes and signatures asked for.
  lines = tables.differences(config, client.server_info(timeout=10))
  if lines:
    raise ValueError(
      f'Checkpoint {restored.path} is of another configuration: {"; ".join(lines)}. Give another '
      '--root_dir.'
    )
  overhead = capacity_lib.OVERHEAD_BYTES - keeper.BUFFER_BYTES
  kept = keeper.Keeper(client, config, capacity, lambda: used.used_bytes(overhead))
  if restored:
    kept.restore(restored.keeper)
  checkpointer = _Unsaved()
  if folder:
    checkpointer = checkpointer_lib.Checkpointer(
      client, folder, checkpointer_lib.Checkpoints(), restored
    )
  keep_house = _Housekeeping(client, kept, checkpointer, used.empty_bytes)
  keep_house()
  print(
    f'{server_lib.READY} {port} of every network interface, without authentication; '
    f'tables: {", ".join(table.name for table in made)}',
    flush=True,
  )
  _run_until_told(keep_house)
  if not keep_house.is_to_restart:
    keep_house.finish()
    if checkpointer.is_writing:
      os._exit(1)  # Nothing else ends a checkpoint of Reverb's, or a stop that waits for it.
  elif checkpointer.is_writing:
    return True  # Its socket is closed when the new program starts, as is all else.
  elif not (folder and folder.numbers()):
    checkpoints.say(
      'warning: told to go on from the last checkpoint; there is none: replay is empty.'
    )
  server.stop()
  return keep_house.is_to_restart


def _start(made, port: int, folder, checkpoint_dir: str):
  """(server of the tables, checkpoint that it was started from or None)."""
  import reverb

  while True:
    restored = folder.newest() if folder else None
    path = restored.path if restored else None
    reader = reverb.checkpointers.DefaultCheckpointer(checkpoint_dir, fallback_checkpoint_path=path)
    try:
      return reverb.Server(made, port, reader), restored
    except RuntimeError as error:
      if not restored:
        raise
      folder.give_up(restored, error)


def _restart(port_socket: socket.socket):
  """Puts a new start of this program into the place of this one: same process, same port."""
  for name in os.listdir('/proc/self/fd'):
    if int(name) > 2:
      with contextlib.suppress(OSError):  # that of the listing itself is closed already
        os.set_inheritable(int(name), int(name) == port_socket.fileno())
  port = port_socket.getsockname()[1]
  command = [sys.executable, '-m', 'launch.replay_server', *sys.argv[1:], f'--port={port}']
  paths = [str(cli.ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
  environment = {
    'PYTHONPATH': os.pathsep.join(paths),
    _PORT_SOCKET: str(port_socket.fileno()),
  }
  os.execve(sys.executable, command, {**os.environ, **environment})


def serve(config, capacity, port_socket: socket.socket):
  """Serves the tables of `config`, kept within `capacity`, as the flags say, until told to stop.

  Args:
    config: of the tables.
    capacity: of replay.
    port_socket: bound to the port to listen on; see `take_port`.

  Raises:
    ValueError: if the folder of checkpoints, or what is in it, cannot be used.
  """
  from seer_tf.replay import checkpoints

  port = port_socket.getsockname()[1]
  if _ROOT_DIR.value:
    description = checkpoints.describe(config, capacity)
    folder = checkpoints.Folder(os.path.join(_ROOT_DIR.value, 'replay'), description)
    is_to_restart = _serve(config, capacity, port, folder, folder.reverb_path)
  else:
    with tempfile.TemporaryDirectory(prefix='seer_tf_replay_') as checkpoint_dir:
      is_to_restart = _serve(config, capacity, port, None, checkpoint_dir)
  if is_to_restart:
    _restart(port_socket)


def main():
  """Serves the tables of the experiment that gin describes until told to stop."""
  signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # which the program before it has blocked
  port_socket = take_port(_PORT.value)
  memory.share_one_arena()
  # Imported no sooner than needed, so that --help, a bad flag and a port in use answer at once.
  from seer_tf.replay import capacity as capacity_lib
  from seer_tf.replay import checkpointer
  from seer_tf.training import experiment

  cli.parse_gin()
  checkpointer.Checkpoints()  # refuses bad settings before anything is touched
  serve(experiment.replay_config(), capacity_lib.Capacity(), port_socket)


if __name__ == '__main__':
  cli.run(main)
