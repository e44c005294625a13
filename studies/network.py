r"""What a bad network does to a run: links that are cut, or slow.

    python -m studies.network    # as root, with iproute2: runs what is missing, then prints

Runs of tests/counting.gin with a process for each role. Cuts: as `make cluster-hosts`, the
learner's link is down for 60 s as soon as its bar shows the phase. Slow: as `make cluster` through
a proxy, which delivers all that is sent 50 ms later, in both directions, and one read in a hundred
200 ms later than that, with what is behind it: so a connection shows a lost packet. (netem would do
it packet by packet; not every kernel has it.) Rows go to studies/network/network.jsonl.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import random
import re
import socket
import subprocess
import tempfile
import threading
import time

from absl import app

ROWS = pathlib.Path(__file__).parent / 'network' / 'network.jsonl'
CUT_SECONDS = 60
DELAY_SECONDS, LOSS, RETRANSMISSION_SECONDS = 0.05, 0.01, 0.2
# Case -> what the learner's bar shows, for grep, when its link goes down. It skips most steps.
CUTS = {
  'cut in pixels': r'pixels .* [1-9][0-9]*/[0-9]* agent_steps',
  'cut in the conversion': r'converting replay: *[1-9]',
  'cut in latents': r'latents .* agent_steps',
}
SLOW = 'slow'
BINDINGS = [
  'Experiment.total_agent_steps = 6000',
  'AtStep.freeze_at_agent_steps = 2000',
  'Experiment.evaluation_period = 1000',
  'Experiment.conversion_batch_size = 4',
  'Experiment.variables_period_seconds = 0.2',
]
# Every message of an actor costs the learner a round trip: it hears ten a second at most, and as
# many two actors say at the period above. At the default one it has time to learn.
SLOW_BINDINGS = [
  'Experiment.total_agent_steps = 600',
  'AtStep.freeze_at_agent_steps = 200',
  'Experiment.variables_period_seconds = 1.0',
]


async def _pump(reader, writer, rng):
  """Passes on what is read, late; in order, so that whatever is behind it is late, too."""
  queue = asyncio.Queue()

  async def deliver():
    while True:
      due, data = await queue.get()
      await asyncio.sleep(max(0.0, due - time.monotonic()))
      if not data:
        break
      writer.write(data)
      await writer.drain()
    writer.close()

  delivery = asyncio.ensure_future(deliver())
  data = b'-'
  while data:
    try:
      data = await reader.read(65_536)
    except ConnectionError:
      data = b''
    lost = RETRANSMISSION_SECONDS if rng.random() < LOSS else 0.0
    queue.put_nowait((time.monotonic() + DELAY_SECONDS + lost, data))
  with contextlib.suppress(ConnectionError):
    await delivery


@contextlib.contextmanager
def _slow_way(to_port: int):
  """Yields the port of a proxy to `to_port` of this machine."""
  loop, rng = asyncio.new_event_loop(), random.Random(0)

  async def connect(reader, writer):
    try:
      far_reader, far_writer = await asyncio.open_connection('localhost', to_port)
    except OSError:
      writer.close()
      return
    await asyncio.gather(_pump(reader, far_writer, rng), _pump(far_reader, writer, rng))

  server = loop.run_until_complete(asyncio.start_server(connect, 'localhost', 0))
  thread = threading.Thread(target=loop.run_forever, daemon=True)
  thread.start()
  try:
    yield server.sockets[0].getsockname()[1]
  finally:
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def _free_port() -> int:
  with socket.create_server(('', 0)) as free:
    return free.getsockname()[1]


def _run(case: str):
  """A run to its end; returns its row."""
  bindings = [*BINDINGS, *(SLOW_BINDINGS if case == SLOW else [])]
  port, gin = _free_port(), [f'--gin_bindings={binding}' for binding in bindings]
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    environment = {**os.environ, 'PORT': str(port)}
    if case == SLOW:
      script = 'tools/cluster.sh'
      environment['ADDRESS'] = f'localhost:{stack.enter_context(_slow_way(port))}'
    else:
      script = 'tools/cluster_hosts.sh'
      environment.update(CUT_SECONDS=str(CUT_SECONDS), CUT_WHEN=CUTS[case])
    start = time.monotonic()
    ended = subprocess.run(
      [script, folder, '2', '--gin_file=tests/counting.gin', *gin],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      check=False,
    )
    seconds = time.monotonic() - start
    log = (pathlib.Path(folder) / 'learner.log').read_text(encoding='utf-8')
  if ended.returncode:
    print(ended.stdout[-3000:])
  steps = re.findall(r'(\d+)/\d+ agent_steps', log)
  return dict(
    case=case,
    exit_code=ended.returncode,
    seconds=round(seconds, 1),
    was_cut=ended.stdout.count('link is up') == 1,
    tried_again=len(re.findall('Trying again', log)),
    agent_steps=int(steps[-1]) if steps else 0,
  )


def main(argv):
  """Runs what is missing, then prints all rows."""
  if len(argv) > 1:
    raise app.UsageError(f'expected no arguments besides flags, got {argv[1:]}')
  ROWS.parent.mkdir(exist_ok=True)
  ROWS.touch()
  done = {json.loads(line)['case'] for line in ROWS.read_text(encoding='utf-8').splitlines()}
  for case in [*CUTS, SLOW]:
    if case not in done:
      row = _run(case)
      with ROWS.open('a', encoding='utf-8') as file:
        file.write(json.dumps(row) + '\n')
  print(ROWS.read_text(encoding='utf-8'), end='')


if __name__ == '__main__':
  app.run(main)
