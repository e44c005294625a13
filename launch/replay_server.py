r"""A replay server in a process of its own: every table of one experiment, over gRPC.

    python -m launch.replay_server --port=8000 --gin_file=gin_configs/sac_dmc_cpu.gin

Give it the gin files and bindings of the run, because the tables follow from them, and give the run
`--replay_server=host:8000`. It prints one line when it is ready, and ends on SIGTERM or Ctrl-C.
What it holds is gone then.

There is no encryption and no authentication, and the server listens on every interface: run it only
in a network you trust.
"""

import os
import secrets
import select
import signal
import socket
import tempfile
import time

from absl import flags
import numpy as np

from launch import cli
from seer_tf.costs import memory

_PORT = flags.DEFINE_integer('port', 0, 'Port to listen on; 0 picks a free one.')
_ROOT_DIR = flags.DEFINE_string(
  'root_dir', None, 'Folder of the run, for checkpoints of replay. By default a temporary one.'
)
_STOP_ON_STDIN_EOF = flags.DEFINE_boolean(
  'stop_on_stdin_eof', False, 'End when standard input closes: with the process that started this.'
)

_PERIOD_SECONDS = 0.25
# Trimming takes 0.1 to 0.4 ms as a rule and about 30 ms after 150 MB were freed; with this pause
# after each it takes less than a hundredth of a core whatever the size of the heap.
_TRIM_PAUSE = 100


class _Memory:
  """What replay takes of this process's memory."""

  def __init__(self):
    """The tables of rows must be there, and empty."""
    memory.trim()
    self.empty_bytes = memory.resident_bytes()
    self._empty_allocated = memory.allocated_bytes()

  def used_bytes(self, overhead_bytes: int) -> int:
    """Bytes allocated since; more where resident memory has grown by more than `overhead_bytes`."""
    allocated = memory.allocated_bytes() - self._empty_allocated
    return max(0, allocated, memory.resident_bytes() - self.empty_bytes - overhead_bytes)


class _Housekeeping:
  """Keeps replay within its capacity, gives free memory back, and publishes how things stand."""

  def __init__(self, client, config, capacity):
    """The server of `client`, in this process, must have its tables, and they must be empty."""
    from seer_tf.replay import capacity as capacity_lib
    from seer_tf.replay import keeper, tables

    self._client = client
    self._signature = tables.SERVER_SIGNATURE
    self._incarnation = 1 + secrets.randbits(62)
    self._memory = _Memory()
    overhead = capacity_lib.OVERHEAD_BYTES - keeper.BUFFER_BYTES
    used_bytes = lambda: self._memory.used_bytes(overhead)
    self._keeper = keeper.Keeper(client, config, capacity, used_bytes)
    self()
    next(client.sample('server'))
    self._memory = _Memory()  # the first item and sample have allocated what is never freed

  def __call__(self) -> float:
    """Does so once; returns after how many seconds to do so again."""
    start = time.thread_time()
    memory.trim()  # the C allocator would keep what Reverb has freed
    cost_seconds = time.thread_time() - start
    values = dict(
      resident_bytes=memory.resident_bytes(),
      empty_bytes=self._memory.empty_bytes,
      machine_bytes=memory.machine_bytes(),
      incarnation=self._incarnation,
      checkpoint_order=0,
      checkpoints=0,
      **self._keeper.keep(),
    )
    typed = {
      name: np.asarray(values[name], spec.dtype.as_numpy_dtype)
      for name, spec in self._signature.items()
    }
    self._client.insert(typed, {'server': 1.0})
    return max(_PERIOD_SECONDS, _TRIM_PAUSE * cost_seconds)


def _check_port(port: int):
  """Refuses a port that is taken; two Reverb servers would share it and each get half the calls."""
  try:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    socket.create_server(('', port), family=family, dualstack_ipv6=both).close()
  except OSError as error:
    raise ValueError(
      f'Port {port} cannot be listened on ({error.strerror.lower()}); stop what uses it or give '
      'another --port (0 picks a free one).'
    ) from error


def _run_until_told(keep_house):
  """Calls `keep_house` as often as it asks until SIGTERM, SIGINT or, if asked for, end of input."""
  told, tell = os.pipe()
  os.set_blocking(tell, False)
  signal.set_wakeup_fd(tell)
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: None)  # The wake-up alone ends the wait below.
  sources = [told, *([0] if _STOP_ON_STDIN_EOF.value else [])]
  while True:
    ready = select.select(sources, [], [], keep_house())[0]
    if told in ready or (ready and not os.read(0, 4096)):
      return


def _serve(config, capacity, checkpoint_dir: str):
  """Serves the tables of `config`, kept within `capacity`, until told to stop."""
  import reverb

  from seer_tf.replay import server as server_lib
  from seer_tf.replay import tables

  made = tables.make_tables(config)
  server = reverb.Server(
    made, _PORT.value or None, reverb.checkpointers.DefaultCheckpointer(checkpoint_dir)
  )
  client = server.localhost_client()
  # A checkpoint found in the folder silently overrides the sizes and signatures asked for.
  lines = tables.differences(config, client.server_info(timeout=10))
  if lines:
    raise ValueError(
      f'Checkpoint in {checkpoint_dir} is of another configuration: {"; ".join(lines)}. Give '
      'another --root_dir.'
    )
  keep_house = _Housekeeping(client, config, capacity)
  keep_house()
  print(
    f'{server_lib.READY} {server.port} of every network interface, without authentication; '
    f'tables: {", ".join(table.name for table in made)}',
    flush=True,
  )
  _run_until_told(keep_house)
  server.stop()


def main():
  """Serves the tables of the experiment that gin describes until told to stop."""
  if _PORT.value:
    _check_port(_PORT.value)
  # Imported no sooner than needed, so that --help, a bad flag and a port in use answer at once.
  from seer_tf.replay import capacity as capacity_lib
  from seer_tf.training import experiment

  cli.parse_gin()
  config, capacity = experiment.replay_config(), capacity_lib.Capacity()
  if _ROOT_DIR.value:
    _serve(config, capacity, os.path.join(_ROOT_DIR.value, 'replay'))
  else:
    with tempfile.TemporaryDirectory(prefix='seer_tf_replay_') as checkpoint_dir:
      _serve(config, capacity, checkpoint_dir)


if __name__ == '__main__':
  cli.run(main)
