"""What checkpoints of the replay server and of the learner cost training, in both phases."""

import concurrent.futures
import itertools
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, NamedTuple, Sequence, Tuple

from launch import benchmark_replay

_SAVES = 3  # of each kind; the slowest one counts


class _Pace(NamedTuple):
  """Agent steps, with an update each, over some time."""

  per_s: float
  longest_ms: float
  seconds: float


def _pace(train: Callable[[], None], is_over: Callable[[float], bool]) -> _Pace:
  """Calls `train` until it is over, asked with the seconds since the start."""
  start, longest, count, now = time.perf_counter(), 0.0, 0, 0.0
  while not (count and is_over(now)):
    before = time.perf_counter()
    train()
    longest, count = max(longest, time.perf_counter() - before), count + 1
    now = time.perf_counter() - start
  return _Pace(count / now, 1e3 * longest, now)


def _noise(config, table: str, count: int):
  """`Row` of arrays: an endless episode of noise, which a server's compression hardly shrinks."""
  import numpy as np

  from seer_tf.replay import tables

  row = tables.padding_row(config.pixels_row if table == 'pixels' else config.latents_row)
  repeated = tables.Row(*(np.repeat(np.asarray(column)[np.newaxis], count, 0) for column in row))
  noise = np.random.default_rng(0).integers(0, 256, repeated.observation.shape)
  return repeated._replace(
    observation=noise.astype(repeated.observation.dtype), step_type=np.ones([count], np.int32)
  )


def _of_phase(experiment, config, learner, link, table: str, rows: int, seconds: float):
  """Figures of one phase; fills `table` first."""
  from seer_tf.replay import checkpointer, tables

  writer = link.writer(table, 0)
  again = itertools.cycle(zip(*_noise(config, table, min(rows, 1000))[:5]))
  act = lambda: writer.append(tables.Row(*next(again)))
  for _ in range(rows):
    act()
  writer.flush()
  learner.feed(link.dataset(table))

  def train():
    """What a run does: an agent step's row, and an update."""
    act()
    learner.run(1)

  _pace(train, lambda now: now > 1)  # traces
  alone = _pace(train, lambda now: now > seconds)
  sizes, meanwhile = [], []
  with concurrent.futures.ThreadPoolExecutor() as threads:
    for _ in range(_SAVES):
      saved = threads.submit(benchmark_replay.checkpoint_bytes, link.client)
      meanwhile.append(_pace(train, lambda now, saved=saved: saved.done()))
      sizes.append(saved.result())
  slowest = max(meanwhile, key=lambda pace: pace.seconds)
  stalled = max(pace.seconds * max(0.0, 1 - pace.per_s / alone.per_s) for pace in meanwhile)
  saves = [_pace(learner.save, lambda now: True).seconds for _ in range(_SAVES)]
  writer.close()
  period = checkpointer.Checkpoints().period_seconds
  return dict(
    phase=table,
    rows=rows,
    checkpoint_bytes=sizes[0],
    server_seconds=round(slowest.seconds, 3),
    agent_steps_per_s=round(alone.per_s, 1),
    longest_ms=round(alone.longest_ms, 1),
    longest_ms_meanwhile=round(max(pace.longest_ms for pace in meanwhile), 1),
    stalled_seconds=round(stalled, 3),
    stalled_share=round(stalled / period, 5),
    server_period_seconds=period,
    learner_seconds=round(max(saves), 3),
    learner_period_updates=experiment.checkpoint_period,
    learner_share=round(max(saves) * alone.per_s / experiment.checkpoint_period, 5),
  )


def checkpoints(
  gin_arguments: Tuple[Sequence[str], Sequence[str]], seconds: float
) -> Iterator[Dict[str, Any]]:
  """One row for each phase.

  Args:
    gin_arguments: (files, bindings) for the servers.
    seconds: of training without checkpoints that is compared with.

  Yields:
    The figures to print.
  """
  import numpy as np
  import tensorflow as tf

  from seer_tf.replay import server
  from seer_tf.training import experiment as experiment_lib
  from seer_tf.training import learner as learner_lib
  from seer_tf.training import link as link_lib

  experiment = experiment_lib.Experiment()
  environment = experiment.environment_fn(seed=0)
  config = experiment.replay_config(environment)
  updates = tf.Variable(0, dtype=tf.int64)
  agent = experiment.agent(environment, updates)
  agent.initialize()
  environment.close()
  codec, learner = experiment.codec(config), None
  if codec.needs_calibration:
    codec.calibrate(np.random.default_rng(0).random((1000, *codec.latent_shape), np.float32))
  for table, rows in benchmark_replay.rows_of_tables().items():
    with (
      tempfile.TemporaryDirectory() as root_dir,
      server.EmbeddedServer(*gin_arguments, root_dir=root_dir) as embedded,
    ):
      client = server.connect(embedded.address, config)
      link = link_lib.Link(embedded.address, client, embedded.check, experiment, config, codec)
      if learner is None:
        learner = learner_lib.make(root_dir, updates, agent, link, experiment)
      else:
        agent.freeze()
        learner.retrace()
      yield _of_phase(experiment, config, learner, link, table, rows, seconds)
      learner.stop_feeding()
