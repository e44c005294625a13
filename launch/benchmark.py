r"""Measures speed and memory; prints one JSON object a line, and nothing else, on standard output.

    python -m launch.benchmark updates --agent=sac --image_size=84 --batch_size=128
    python -m launch.benchmark updates --agent=rainbow --batch_size=32
    python -m launch.benchmark replay --domain=dmc

updates: mean milliseconds of one learner update over whole cadence periods, in both phases, from
data in memory (a pool of 512 transitions, a new batch drawn from it at each update). Needs no
simulator. The DQN family's copy to its target, once in thousands of updates, is no cadence here.

replay: growth of a replay server's resident memory divided by the rows it holds, for pixels and for
latents, with real frames of the task under a random policy.
"""

import json
import os
import time
from typing import Callable

from absl import flags
import gin

from launch import cli

_AGENT = flags.DEFINE_enum(
  'agent', 'sac', ['sac', 'dqn', 'rainbow'], 'Agent whose updates are timed.'
)
_DOMAIN = flags.DEFINE_enum('domain', 'dmc', ['dmc'], 'Whose frames fill replay.')
_IMAGE_SIZE = flags.DEFINE_integer('image_size', 84, 'Pixels of the crop that is learned from.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 128, 'Transitions per update.')
_SECONDS = flags.DEFINE_float('seconds', 8.0, 'Least seconds to time each phase of updates.')
_PIXEL_ROWS = flags.DEFINE_integer('pixel_rows', 5000, 'Rows of pixels to store.')
_LATENT_ROWS = flags.DEFINE_integer('latent_rows', 20000, 'Rows of latents to store.')

_POOL = 512  # transitions in memory
# Published settings: what a number stands for does not change with our own presets.
_PRESETS = {
  'sac': 'gin_configs/cartpole_swingup_paper.gin',
  'dqn': 'gin_configs/dqn_atari_paper.gin',
  'rainbow': 'gin_configs/rainbow_atari_paper.gin',
  'dmc': 'gin_configs/cartpole_swingup_paper.gin',
}


def _bindings(name: str):
  """The sizes asked for; what is rendered is larger than its crop by the published 100 to 84."""
  if name not in ('sac', 'dmc'):
    return []  # learns from whole images, whose size `_stand_in` gives
  return [
    f'RandomCrop.image_size = {_IMAGE_SIZE.value}',
    f'dm_control.load.image_size = {_IMAGE_SIZE.value * 100 // 84}',
    'dm_control.load.shadows = False',
  ]


def _stand_in():
  """An environment that is no more than the specs of the one that the agent is timed for."""
  import numpy as np
  from tf_agents.environments import py_environment
  from tf_agents.specs import array_spec

  size, frame_stack, channels = _IMAGE_SIZE.value, 4, 1
  action = array_spec.BoundedArraySpec((), np.int64, 0, 17, 'action')
  if _AGENT.value == 'sac':
    size, frame_stack, channels = size * 100 // 84, 3, 3
    action = array_spec.BoundedArraySpec((1,), np.float32, -1, 1, 'action')
  pixels = array_spec.BoundedArraySpec((size, size, channels * frame_stack), np.uint8, 0, 255)

  class StandIn(py_environment.PyEnvironment):
    def __init__(self):
      super().__init__()
      self.frame_stack = frame_stack

    def observation_spec(self):
      return pixels

    def action_spec(self):
      return action

    def _reset(self):
      raise NotImplementedError('There is no simulator behind these specs.')

    _step = _reset

  return StandIn()


def _emit(**figures):
  print(json.dumps(figures), flush=True)


def _mean_ms(update: Callable[[], None], period: int, seconds: float):
  """Mean milliseconds per call over whole periods, after a period that is not counted."""
  for _ in range(period):
    update()
  start, count = time.perf_counter(), 0
  while count < 2 * period or time.perf_counter() - start < seconds:
    for _ in range(period):
      update()
    count += period
  return 1e3 * (time.perf_counter() - start) / count, count


def updates():
  """Times learner updates from pixels, then from latents."""
  import numpy as np
  import tensorflow as tf
  from tf_agents.trajectories import policy_step, trajectory
  from tf_agents.trajectories import time_step as ts

  from seer_tf.training import experiment as experiment_lib

  experiment = experiment_lib.Experiment()
  environment = _stand_in()
  batch_size, action_spec = _BATCH_SIZE.value, environment.action_spec()
  agent = experiment.agent(environment, tf.Variable(0, dtype=tf.int64))
  agent.initialize()
  config = experiment.replay_config(environment)
  pixels_shape = [_POOL, *environment.observation_spec().shape]
  pixels = [tf.cast(tf.random.uniform(pixels_shape, 0, 256, tf.int32), tf.uint8) for _ in range(2)]
  latents_shape = [_POOL, config.stored_crops, config.latent_size]
  latents = [tf.random.normal(latents_shape) for _ in range(2)]
  whole = np.issubdtype(action_spec.dtype, np.integer)
  actions = tf.random.uniform(
    [_POOL, *action_spec.shape],
    action_spec.minimum.min(),
    action_spec.maximum.max() + whole,
    action_spec.dtype,
  )

  def crop_of(stored):
    crop = tf.random.uniform([batch_size], 0, config.stored_crops, tf.int32)
    return tf.gather(stored, crop, batch_dims=1)

  def train_on(pool, choose):
    @tf.function
    def update():
      index = tf.random.uniform([batch_size], 0, _POOL, tf.int32)
      ones = tf.ones([batch_size])
      step = lambda stored: ts.TimeStep(
        tf.ones([batch_size], tf.int32), ones, 0.99 * ones, choose(tf.gather(stored, index))
      )
      action = policy_step.PolicyStep(tf.gather(actions, index), (), ())
      return agent.train(trajectory.Transition(step(pool[0]), action, step(pool[1]))).loss

    return lambda: update().numpy()

  pixels_ms, pixel_updates = _mean_ms(train_on(pixels, tf.identity), 2, _SECONDS.value)
  agent.freeze()
  latents_ms, latent_updates = _mean_ms(train_on(latents, crop_of), 2, _SECONDS.value)
  _emit(
    agent=_AGENT.value,
    image_size=_IMAGE_SIZE.value,
    batch_size=batch_size,
    pixels_ms=round(pixels_ms, 2),
    latents_ms=round(latents_ms, 2),
    ratio=round(pixels_ms / latents_ms, 2),
    pixel_updates=pixel_updates,
    latent_updates=latent_updates,
    cores=len(os.sched_getaffinity(0)),
    tensorflow=tf.__version__,
  )


def _held_bytes(client) -> int:
  """Resident bytes of the server beyond its empty ones, once its memory has come to rest."""
  from seer_tf.replay import server

  previous = -1
  while True:
    resident, empty = server.next_server_memory(client)
    if previous >= 0 and abs(resident - previous) < 0.001 * resident:
      return resident - empty
    previous = resident


def replay():
  """Fills a server with pixels, and another with latents, and weighs both."""
  import numpy as np
  import tensorflow as tf
  import tqdm

  from seer_tf.replay import server, tables, writers
  from seer_tf.training import experiment as experiment_lib

  experiment = experiment_lib.Experiment()
  environment = experiment.environment_fn(seed=0)
  config = experiment.replay_config(environment)
  agent = experiment.agent(environment, tf.Variable(0, dtype=tf.int64))
  files, bindings = cli.gin_arguments()
  bindings = [*_bindings(_DOMAIN.value), *_capacities(), *bindings]
  gin_arguments = [[_PRESETS[_DOMAIN.value], *files], bindings]

  rng = np.random.default_rng(0)
  spec = environment.action_spec()

  def rows():
    """Endless (stacked observation, row without observation) of a random policy."""
    time_step = environment.reset()
    while True:
      action = rng.uniform(spec.minimum, spec.maximum, spec.shape).astype(spec.dtype)
      next_time_step = environment.step(action)
      yield (
        time_step.observation,
        tables.Row(
          None, action, next_time_step.reward, next_time_step.discount, time_step.step_type
        ),
      )
      time_step = next_time_step

  channels = config.frame_shape[-1]
  steps, frames = [], rows()
  with server.EmbeddedServer(*gin_arguments) as embedded:
    client = server.connect(embedded.address, config)
    writer = writers.RowWriter(client, config.pixels_layouts, tables.padding_row(config.pixels_row))
    for _ in tqdm.trange(_PIXEL_ROWS.value, desc='pixels', unit='row'):
      observation, row = next(frames)
      steps.append((observation, row))
      writer.append(row._replace(observation=observation[..., -channels:]))
    writer.close()
    pixels_bytes = _held_bytes(client)
  environment.close()

  batch = experiment.conversion_batch_size
  with server.EmbeddedServer(*gin_arguments) as embedded:
    client = server.connect(embedded.address, config)
    writer = writers.RowWriter(
      client, config.latents_layouts, tables.padding_row(config.latents_row)
    )
    # The same frames again and again, each time with other random crops.
    for first in tqdm.trange(0, _LATENT_ROWS.value, batch, desc='latents', unit='batch'):
      chosen = [steps[i % len(steps)] for i in range(first, min(first + batch, _LATENT_ROWS.value))]
      observations = np.stack([observation for observation, _ in chosen])
      latents = agent.encode_crops(observations, config.stored_crops).numpy()
      for latent, (_, row) in zip(latents, chosen):
        writer.append(row._replace(observation=latent))
    writer.close()
    latents_bytes = _held_bytes(client)
  _emit(
    domain=_DOMAIN.value,
    task='-'.join(gin.query_parameter(name) for name in ('%DOMAIN', '%TASK')),
    shadows=gin.query_parameter('dm_control.load.shadows'),
    pixels_bytes_per_step=round(pixels_bytes / _PIXEL_ROWS.value, 1),
    latents_bytes_per_step=round(latents_bytes / _LATENT_ROWS.value, 1),
    pixel_rows=_PIXEL_ROWS.value,
    latent_rows=_LATENT_ROWS.value,
    frame_shape=config.frame_shape,
    latent_shape=(config.stored_crops, config.latent_size),
    block_length=config.block_length,
  )


def _capacities():
  return [
    f'ReplayConfig.pixels_capacity = {max(_PIXEL_ROWS.value, 1)}',
    f'ReplayConfig.latents_capacity = {max(_LATENT_ROWS.value, 1)}',
  ]


def main(command: str):
  """Runs the benchmark called `command`."""
  commands = {'updates': (updates, _AGENT.value), 'replay': (replay, _DOMAIN.value)}
  if command not in commands:
    raise cli.UserError(f'unknown benchmark {command!r}; there are {" and ".join(commands)}.')
  measure, name = commands[command]
  from seer_tf.training import experiment  # noqa: F401 - defines what gin configures

  cli.parse_gin([_PRESETS[name]], _bindings(name) + _capacities())
  measure()


if __name__ == '__main__':
  cli.run(main, arguments=1)
