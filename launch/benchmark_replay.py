"""What replay costs, of pixels and of latents, in bytes and in seconds; see launch.benchmark.

Real frames of a random policy, in the order in which they are made: `sources` play, `fill_pixels`
writes what was seen, again and again if that is less than asked for, `conversion` drains it,
`fill_latents` writes any number of the same latents, `held_bytes` weighs the server. Repeating
saves the server nothing: it compresses chunk by chunk.
"""

import itertools
import os
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

from absl import flags
import gin

from launch import cli

_PIXEL_ROWS = flags.DEFINE_integer('pixel_rows', 5000, 'Rows of pixels to store.', lower_bound=1)
_PLAYED_ROWS = flags.DEFINE_integer(
  'played_rows', 2000, 'Rows to play at most; more of pixels are the same again.', lower_bound=1
)
_LATENT_ROWS = flags.DEFINE_integer(
  'latent_rows', 20000, 'Rows of latents to store.', lower_bound=1
)
_CODEC = flags.DEFINE_enum(
  'codec', None, ['float32', 'float16', 'uint8'], 'How latents are stored; the default of runs.'
)
_SIZES = flags.DEFINE_list(
  'sizes', [], 'Instead of all else: rows of latents to hold, such as 1e4,1e5,1e6, in turn.'
)
_SAMPLE_SECONDS = flags.DEFINE_float('sample_seconds', 5.0, 'Of sampling, each time.')
_GAMES = flags.DEFINE_list(
  'games', ['Seaquest', 'Pong'], 'Atari games, by their full names; each gives as many rows.'
)


def _sizes() -> List[int]:
  """Rows of latents to hold, as asked for."""
  try:
    sizes = [int(float(size)) for size in _SIZES.value]
  except ValueError as error:
    raise cli.UserError(f'--sizes={",".join(_SIZES.value)}: give numbers of rows.') from error
  if any(size < 1000 for size in sizes):
    raise cli.UserError(f'--sizes={",".join(_SIZES.value)}: give at least 1000 rows each.')
  return sizes or [_LATENT_ROWS.value]


def rows_of_tables() -> Dict[str, int]:
  """Table -> rows to store, as asked for."""
  return {'pixels': _PIXEL_ROWS.value, 'latents': _LATENT_ROWS.value}


def bindings() -> List[str]:
  """Gin bindings that make the tables as large as what is stored, and choose the codec."""
  codec = [f'Experiment.codec_fn = @{_CODEC.value.capitalize()}'] if _CODEC.value else []
  return codec + [
    f'ReplayConfig.pixels_capacity = {_PIXEL_ROWS.value}',
    f'ReplayConfig.latents_capacity = {max(_PIXEL_ROWS.value, *_sizes())}',
  ]


def sources(domain: str, environment_fn: Callable) -> Dict[str, Any]:
  """Environments to play (`PyEnvironment`s), by the names of their tasks.

  Args:
    domain: 'dmc', one task that gin binds, or 'atari', the games of --games.
    environment_fn: loads an environment.
  """
  if domain == 'dmc':
    task = '-'.join(gin.query_parameter(name) for name in ('%DOMAIN', '%TASK'))
    return {task: environment_fn(seed=0)}
  if len(set(_GAMES.value)) < len(_GAMES.value) or not _GAMES.value:
    raise cli.UserError(f'--games={",".join(_GAMES.value)}: give games that differ.')
  return {game: environment_fn(game=game, seed=0) for game in _GAMES.value}


def random_rows(environment) -> Iterator[Tuple]:
  """Endless (stacked observation, `Row` without observation) of a random policy."""
  from tf_agents.policies import random_py_policy

  from seer_tf.replay import tables

  policy = random_py_policy.RandomPyPolicy(
    environment.time_step_spec(), environment.action_spec(), seed=0
  )
  time_step = environment.reset()
  while True:
    action = policy.action(time_step).action
    next_time_step = environment.step(action)
    yield (
      time_step.observation,
      tables.Row(None, action, next_time_step.reward, next_time_step.discount, time_step.step_type),
    )
    time_step = next_time_step


def play(rows: Iterator, count: int):
  """`count` of `rows`, as `Row` of arrays [count, ...] with stacked observations."""
  import numpy as np
  import tqdm

  from seer_tf.replay import tables

  seen = [next(rows) for _ in tqdm.trange(count, desc='playing', unit='row')]
  columns = zip(*(row[1:5] for _, row in seen))
  observations = np.stack([observation for observation, _ in seen])
  return tables.Row(observations, *map(np.stack, columns))


def fill_pixels(client, config, rows, count: int) -> float:
  """Writes `count` rows of pixels as one stream, the same again and again; returns seconds.

  Args:
    client: of the replay server.
    config: `ReplayConfig`.
    rows: `Row` of arrays with stacked observations.
    count: rows to write.
  """
  from seer_tf.replay import tables, writers

  start, channels = time.perf_counter(), config.frame_shape[-1]
  writer = writers.RowWriter.of_table(client, config, 'pixels')
  for row in itertools.islice(itertools.cycle(zip(*rows[:5])), count):
    writer.append(tables.Row(row[0][..., -channels:], *row[1:]))
  writer.close()
  return time.perf_counter() - start


def conversion(client, config, rows: int, encode, batch_size: int, pid: int) -> Dict[str, float]:
  """Drains what `fill_pixels` wrote.

  Resident memory is of the server's process, beyond empty; `client_grown_bytes` is what this one's
  grew by at most. CPU is of both processes, threads of TensorFlow that spin included.

  Args:
    client: of the replay server.
    config: `ReplayConfig`.
    rows: written.
    encode: uint8 [B, H, W, C] -> stored latents [B, K, D].
    batch_size: B.
    pid: of the server.
  """
  from seer_tf.costs import memory
  from seer_tf.replay import drain, server, writers

  empty = server.report(client).empty_bytes
  before = held_bytes(client)
  peak, own_before = [memory.resident_bytes(pid)], memory.resident_bytes()
  own_peak = [own_before]

  def look(done, total):
    peak.append(memory.resident_bytes(pid))
    own_peak.append(memory.resident_bytes())

  writer = writers.RowWriter.of_table(client, config, 'latents')
  start, cpu_start, server_cpu_start = time.perf_counter(), time.process_time(), _cpu_seconds(pid)
  converted = drain.drain(
    client,
    config,
    range(rows),
    encode,
    lambda stream: writer,
    batch_size,
    look,
  )
  writer.close()
  seconds = time.perf_counter() - start
  cpu, served_cpu = time.process_time() - cpu_start, _cpu_seconds(pid) - server_cpu_start
  return dict(
    converted_rows_per_s=round(converted / seconds, 1),
    converted_cpu_us=round(1e6 * cpu / converted, 1),
    converted_server_cpu_us=round(1e6 * served_cpu / converted, 1),
    client_grown_bytes=max(own_peak) - own_before,
    resident_before=before,
    resident_peak=max(peak) - empty,
    resident_after=held_bytes(client),
  )


def fill_latents(client, config, rows, count: int) -> float:
  """Writes `count` rows of latents as one stream, the same again and again; returns seconds.

  Args:
    client: of the replay server.
    config: `ReplayConfig`.
    rows: `Row` of arrays with stored latents [N, K, D].
    count: rows to write.
  """
  import tqdm

  from seer_tf.replay import tables, writers

  start = time.perf_counter()
  writer = writers.RowWriter.of_table(client, config, 'latents')
  left = count
  with tqdm.tqdm(total=count, desc='latents', unit='row') as progress:
    while left:
      batch = min(left, len(rows.reward), 256)
      first = (count - left) % (len(rows.reward) - batch + 1)
      writer.extend(tables.Row(*(column[first : first + batch] for column in rows[:5])))
      left -= batch
      progress.update(batch)
  writer.close()
  return time.perf_counter() - start


def sample_rate(address: str, config, experiment, codec) -> float:
  """Transitions per second out of table `latents`, as a learner gets them."""
  from seer_tf.replay import datasets

  dataset = datasets.make_dataset(
    address,
    'latents',
    config,
    experiment.batch_size,
    experiment.gamma,
    draws_per_window=experiment.draws_per_block,
    decode=codec.decode,
  )
  batches = iter(dataset)
  for _ in range(3):  # what was prepared before the clock started
    next(batches)
  start, count = time.perf_counter(), 0
  while time.perf_counter() - start < _SAMPLE_SECONDS.value:
    next(batches)
    count += experiment.batch_size
  return count / (time.perf_counter() - start)


def checkpoint_bytes(client) -> int:
  """Bytes on disk of a checkpoint of the whole server."""
  from seer_tf.replay import server

  path = server.with_limit(client.checkpoint, 300, 'the server, checkpoint')
  return sum(entry.stat().st_size for entry in os.scandir(path))


def coding_errors(agent, codec, latents) -> Dict[str, float]:
  """How far the heads' answers move when latents [N, K, D] are stored and read back."""
  import numpy as np
  import tensorflow as tf

  plain = tf.reshape(latents, [-1, latents.shape[-1]])
  stored = tf.reshape(codec.decode(tf.constant(codec.encode(latents))), plain.shape)
  acts = [agent.greedy_actions(z).numpy() for z in (plain, stored)]
  values = [agent.q_values(z, acts[0]).numpy() for z in (plain, stored)]
  moved = np.abs(acts[1] - acts[0]) if acts[0].ndim > 1 else acts[1] != acts[0]
  figures = dict(
    latent_error_over_std=np.abs(stored - plain).mean() / np.std(plain, axis=0).mean(),
    q_error_mean=np.abs(values[1] - values[0]).mean(),
    q_std=values[0].std(),
    policy_error_mean=moved.mean(),
  )
  return {name: float(f'{value:.3g}') for name, value in figures.items()}


def held_bytes(client) -> int:
  """Resident bytes of the server beyond its empty ones, once its memory has come to rest."""
  from seer_tf.replay import server

  previous = -1
  while True:
    report = server.next_report(client)
    resident = report.resident_bytes
    if previous >= 0 and abs(resident - previous) < 0.001 * resident:
      return resident - report.empty_bytes
    previous = resident


def _cpu_seconds(pid: int) -> float:
  """CPU that a process has used, of all its threads."""
  with open(f'/proc/{pid}/stat', encoding='ascii') as file:
    user, system = file.read().rpartition(')')[2].split()[11:13]
  return (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')


def _shares(count: int, parts: int) -> List[int]:
  """`count` in as many parts, as equal as whole numbers can be."""
  return [count * (i + 1) // parts - count * i // parts for i in range(parts)]


def replay(
  domain: str, gin_arguments: Tuple[Sequence[str], Sequence[str]]
) -> Iterator[Dict[str, Any]]:
  """Fills a server with pixels and converts them, fills another with latents, and weighs both.

  Args:
    domain: 'dmc' or 'atari'.
    gin_arguments: gin files and bindings that this process has parsed, for the servers.

  Yields:
    The figures to print, one set for each of --sizes.
  """
  import numpy as np
  import tensorflow as tf

  from seer_tf.replay import server, tables
  from seer_tf.training import experiment as experiment_lib

  experiment = experiment_lib.Experiment()
  environments = sources(domain, experiment.environment_fn)
  first = next(iter(environments.values()))
  config = experiment.replay_config(first)
  agent = experiment.agent(first, tf.Variable(0, dtype=tf.int64))
  agent.initialize()
  agent.freeze()
  codec, batch_size = experiment.codec(config), experiment.conversion_batch_size
  encode_crops = lambda pixels: agent.encode_crops(pixels, config.stored_crops).numpy()
  encode = lambda pixels: codec.encode(encode_crops(pixels))

  tasks, seen = len(environments), []
  played = min(_PIXEL_ROWS.value, _PLAYED_ROWS.value)
  for environment, count in zip(environments.values(), _shares(played, tasks)):
    seen.append(play(random_rows(environment), count))
    environment.close()
  rows = tables.Row(*map(np.concatenate, zip(*(task[:5] for task in seen))))

  def encode_all(pixels):
    """Latents [N, K, D], rows per second, and this process's CPU per row in microseconds."""
    encode_crops(pixels[:batch_size])
    start, cpu_start = time.perf_counter(), time.process_time()
    batches = [pixels[i : i + batch_size] for i in range(0, len(pixels), batch_size)]
    latents = [encode_crops(batch) for batch in batches]
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    return np.concatenate(latents), len(pixels) / seconds, 1e6 * cpu / len(pixels)

  latents, *encoded_before = encode_all(rows.observation)
  sample = np.random.default_rng(0).permutation(len(latents))
  half = len(sample) // 2
  codec.calibrate(latents[sample[: min(half, experiment.calibration_latents)]])
  figures = dict(
    domain=domain,
    task=','.join(environments),
    shadows=gin.query_parameter('dm_control.load.shadows') if domain == 'dmc' else None,
  )
  if not _SIZES.value:
    with server.EmbeddedServer(*gin_arguments) as embedded:
      client = server.connect(embedded.address, config)
      seconds = fill_pixels(client, config, rows, _PIXEL_ROWS.value)
      pixels_bytes = held_bytes(client)
      converted = conversion(client, config, _PIXEL_ROWS.value, encode, batch_size, embedded.pid)
    _, *encoded_after = encode_all(rows.observation)
    encoded_per_s, encoded_cpu_us = np.mean([encoded_before, encoded_after], axis=0)
    figures.update(
      pixels_bytes_per_step=round(pixels_bytes / _PIXEL_ROWS.value, 1),
      pixels_inserted_per_s=round(_PIXEL_ROWS.value / seconds, 1),
      pixel_rows=_PIXEL_ROWS.value,
      frame_shape=config.frame_shape,
      played_rows=played,
      conversion_batch_size=batch_size,
      encoded_rows_per_s=round(encoded_per_s, 1),
      encoded_cpu_us=round(encoded_cpu_us, 1),
      **converted,
      **coding_errors(agent, codec, latents[sample[half:]]),
    )
  stored = rows._replace(observation=codec.encode(latents))
  for size in _sizes():
    with (
      tempfile.TemporaryDirectory() as root_dir,
      server.EmbeddedServer(*gin_arguments, root_dir=root_dir) as embedded,
    ):
      client = server.connect(embedded.address, config)
      seconds = fill_latents(client, config, stored, size)
      yield dict(
        **figures,
        codec=type(codec).__name__.lower(),
        latent_shape=(config.stored_crops, config.latent_size),
        block_length=config.block_length,
        latent_rows=size,
        latents_bytes_per_step=round(held_bytes(client) / size, 1),
        latents_inserted_per_s=round(size / seconds, 1),
        batch_size=experiment.batch_size,
        draws_per_block=experiment.draws_per_block,
        sampled_per_s=round(sample_rate(embedded.address, config, experiment, codec), 1),
        checkpoint_bytes_per_step=round(checkpoint_bytes(client) / size, 1),
      )
