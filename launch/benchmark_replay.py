"""What a step costs in a replay server's memory, of pixels and of latents; see launch.benchmark.

Real frames of a random policy, in the order in which they are made: `sources` play, `fill_pixels`
and `fill_latents` write what was seen, `held_bytes` weighs the server.
"""

from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

from absl import flags
import gin

from launch import cli

_PIXEL_ROWS = flags.DEFINE_integer('pixel_rows', 5000, 'Rows of pixels to store.', lower_bound=1)
_LATENT_ROWS = flags.DEFINE_integer(
  'latent_rows', 20000, 'Rows of latents to store.', lower_bound=1
)
_GAMES = flags.DEFINE_list(
  'games', ['Seaquest', 'Pong'], 'Atari games, by their full names; each gives as many rows.'
)


def bindings() -> List[str]:
  """Gin bindings that make the tables as large as what is stored."""
  return [
    f'ReplayConfig.pixels_capacity = {_PIXEL_ROWS.value}',
    f'ReplayConfig.latents_capacity = {_LATENT_ROWS.value}',
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


def fill_pixels(client, config, rows: Iterator, count: int) -> List[Tuple]:
  """Writes `count` of `rows` as one stream of pixels; returns what was written, stacked."""
  import tqdm

  from seer_tf.replay import tables, writers

  channels = config.frame_shape[-1]
  writer = writers.RowWriter(client, config.pixels_layouts, tables.padding_row(config.pixels_row))
  steps = []
  for _ in tqdm.trange(count, desc='pixels', unit='row'):
    observation, row = next(rows)
    steps.append((observation, row))
    writer.append(row._replace(observation=observation[..., -channels:]))
  writer.close()
  return steps


def fill_latents(client, config, steps: Sequence[Tuple], count: int, encode, batch_size: int):
  """Writes `count` rows of latents as one stream: the same steps again and again.

  Args:
    client: of the replay server.
    config: `ReplayConfig`.
    steps: what `fill_pixels` returned.
    count: rows to write.
    encode: uint8 [B, H, W, C] -> stored latents [B, K, D], of other random crops in each call.
    batch_size: B.
  """
  import numpy as np
  import tqdm

  from seer_tf.replay import tables, writers

  writer = writers.RowWriter(client, config.latents_layouts, tables.padding_row(config.latents_row))
  for first in tqdm.trange(0, count, batch_size, desc='latents', unit='batch'):
    chosen = [steps[i % len(steps)] for i in range(first, min(first + batch_size, count))]
    latents = encode(np.stack([observation for observation, _ in chosen]))
    for latent, (_, row) in zip(latents, chosen):
      writer.append(row._replace(observation=latent))
  writer.close()


def held_bytes(client) -> int:
  """Resident bytes of the server beyond its empty ones, once its memory has come to rest."""
  from seer_tf.replay import server

  previous = -1
  while True:
    resident, empty = server.next_server_memory(client)
    if previous >= 0 and abs(resident - previous) < 0.001 * resident:
      return resident - empty
    previous = resident


def _shares(count: int, parts: int) -> List[int]:
  """`count` in as many parts, as equal as whole numbers can be."""
  return [count * (i + 1) // parts - count * i // parts for i in range(parts)]


def replay(domain: str, gin_arguments: Tuple[Sequence[str], Sequence[str]]) -> Dict:
  """Fills a server with pixels, and another with latents, and weighs both.

  Args:
    domain: 'dmc' or 'atari'.
    gin_arguments: gin files and bindings that this process has parsed, for the servers.

  Returns:
    The figures to print.
  """
  import numpy as np
  import tensorflow as tf

  from seer_tf.replay import server
  from seer_tf.training import experiment as experiment_lib

  experiment = experiment_lib.Experiment()
  environments = sources(domain, experiment.environment_fn)
  first = next(iter(environments.values()))
  config = experiment.replay_config(first)
  agent = experiment.agent(first, tf.Variable(0, dtype=tf.int64))
  codec = experiment.codec(config)
  encode_crops = lambda pixels: agent.encode_crops(pixels, config.stored_crops).numpy()
  tasks = len(environments)

  with server.EmbeddedServer(*gin_arguments) as embedded:
    client = server.connect(embedded.address, config)
    seen = []  # steps of each task
    for environment, rows in zip(environments.values(), _shares(_PIXEL_ROWS.value, tasks)):
      seen.append(fill_pixels(client, config, random_rows(environment), rows))
      environment.close()
    pixels_bytes = held_bytes(client)

  rows = -(-experiment.calibration_latents // config.stored_crops)
  frames = [observation for steps in seen for observation, _ in steps[: rows // tasks]]
  codec.calibrate(encode_crops(np.stack(frames)))
  encode = lambda pixels: codec.encode(encode_crops(pixels))
  with server.EmbeddedServer(*gin_arguments) as embedded:
    client = server.connect(embedded.address, config)
    for steps, rows in zip(seen, _shares(_LATENT_ROWS.value, tasks)):
      fill_latents(client, config, steps, rows, encode, experiment.conversion_batch_size)
    latents_bytes = held_bytes(client)

  return dict(
    domain=domain,
    task=','.join(environments),
    shadows=gin.query_parameter('dm_control.load.shadows') if domain == 'dmc' else None,
    pixels_bytes_per_step=round(pixels_bytes / _PIXEL_ROWS.value, 1),
    latents_bytes_per_step=round(latents_bytes / _LATENT_ROWS.value, 1),
    pixel_rows=_PIXEL_ROWS.value,
    latent_rows=_LATENT_ROWS.value,
    frame_shape=config.frame_shape,
    codec=type(codec).__name__.lower(),
    latent_shape=(config.stored_crops, config.latent_size),
    block_length=config.block_length,
  )
