"""What the processes of a run tell each other, through two small tables of the replay server.

    learner --publish--> table variables, one item, the newest --read--> server, actors, evaluators
    actors  --send-----> table actors, a queue                 --receive--> learner

A message is complete: whoever has seen the newest needs none of those before it. Every call has a
limit, whose error names the server and the table.
"""

from typing import Any, List, NamedTuple, Optional

import numpy as np
import reverb

from seer_tf.replay import server, tables

# Messages of one call, each a round trip, which may take a tenth of a second.
_MOST_AT_ONCE = 100


class Variables(NamedTuple):
  """What the learner says; `tables.VARIABLES_SIGNATURE` gives the dtypes.

  Attributes:
    phase: of the run, a `freezing.freeze.Phase`.
    draining: 1 from just before the first row is read out of table `drain` until the last one is in
      table `latents`: in between, what the server holds must not become a checkpoint.
    fingerprint: of the latents in replay; empty before the freeze.
    codec: state of the codec that they are written by.
    env_frames: clock of all actors together, as far as the learner has heard.
    agent_steps: the same.
    updates: of the learner.
    version: counts what was published; -1 where nothing was.
    learner: who says it, by the time at which it began to, in milliseconds since 1970.
    weights: of the policy, by name, as `training.weights` packs them; empty if nobody needs them.
    configuration: gin's bindings in the learner.
    checkpoint_order: asks the server for a checkpoint whenever it has grown.
    restore_order: incarnation of the server that is to start anew from its last checkpoint, or 0.
    may_act: 0 while actors are as far ahead of the learner as they may be.
    is_over: 1 once the run has ended.
    flops: of the run so far.
    seconds: the same, without evaluation.
  """

  phase: int = 0
  draining: int = 0
  fingerprint: str = ''
  codec: bytes = b''
  env_frames: int = 0
  agent_steps: int = 0
  updates: int = 0
  version: int = -1
  learner: int = 0
  weights: bytes = b''
  configuration: str = ''
  checkpoint_order: int = 0
  restore_order: int = 0
  may_act: int = 1
  is_over: int = 0
  flops: float = 0.0
  seconds: float = 0.0


class Status(NamedTuple):
  """What an actor says of itself, some times a second; `tables.ACTORS_SIGNATURE` gives the dtypes.

  Attributes:
    stream: that it writes, see `tables.first_number`.
    phase: of the rows that it writes: from the time it says so on, no row of an earlier one.
    version: of the variables that it acts on.
    env_frames: of this stream.
    agent_steps: of this stream.
    rows: that the server has acknowledged, of this stream, phase and start of the server.
    last_return: of its newest whole episode; NaN before the first.
    is_leaving: 1 if it writes no more.
  """

  stream: int
  phase: int
  version: int
  env_frames: int
  agent_steps: int
  rows: int
  last_return: float
  is_leaving: int = 0


def publish(client: reverb.Client, variables: Variables, timeout_seconds: float = 20):
  """Replaces what table `variables` holds.

  Raises:
    TimeoutError: if the server does not answer.
  """
  _insert(client, 'variables', variables, tables.VARIABLES_SIGNATURE, timeout_seconds)


def read(client: reverb.Client, timeout_seconds: float = 20) -> Variables:
  """What the learner published last; `Variables()` before it has published anything.

  Raises:
    TimeoutError: if the server does not answer.
  """
  found = _take(client, 'variables', 1, timeout_seconds)
  return _typed(Variables, found[0]) if found else Variables()


def send(client: reverb.Client, status: Status, timeout_seconds: float = 20):
  """Puts a message into the learner's queue, whose oldest gives way if it is full.

  Raises:
    TimeoutError: if the server does not answer.
  """
  _insert(client, 'actors', status, tables.ACTORS_SIGNATURE, timeout_seconds)


def receive(client: reverb.Client, timeout_seconds: float = 20) -> List[Status]:
  """Messages of actors since the last call, oldest first; each is delivered once, at most 100.

  Raises:
    TimeoutError: if the server does not answer.
  """
  return [_typed(Status, data) for data in _take(client, 'actors', None, timeout_seconds)]


def _insert(client, table: str, message, signature, timeout_seconds: float):
  values = {
    name: np.asarray(value, object if isinstance(value, (str, bytes)) else None).astype(
      signature[name].dtype.as_numpy_dtype
    )
    for name, value in message._asdict().items()
  }
  what = f'Replay server {client.server_address}, table {table}, insert'
  server.with_limit(lambda: client.insert(values, {table: 1.0}), timeout_seconds, what)


def _take(client, table: str, count: Optional[int], timeout_seconds: float) -> List[Any]:
  """Data of `count` items, of as many as there are if None; none of an empty table."""

  def sample():
    try:
      held = client.server_info(max(1, int(timeout_seconds)))[table].current_size
    except (reverb.errors.ReverbError, RuntimeError) as error:  # which names no server
      raise TimeoutError(f'{what}: no answer ({error}).') from error
    if not held:
      return []
    # One at a time: the server would never free what several samples in flight have used up.
    samples = (
      next(client.sample(table, unpack_as_table_signature=True))
      for _ in range(count or min(held, _MOST_AT_ONCE))
    )
    return [step.data for [step] in samples]

  what = f'Replay server {client.server_address}, table {table}, sample'
  return server.with_limit(sample, timeout_seconds, what)


def _typed(message, data):
  """A message from arrays of one element each."""
  values = {name: np.ravel(value).tolist()[0] for name, value in data.items()}
  for name, value in message.__annotations__.items():
    if value is str:
      values[name] = bytes(values[name]).decode()
  return message(**values)
