r"""Measures speed and memory; prints one JSON object a line, and nothing else, on standard output.

    python -m launch.benchmark updates --agent=sac --image_size=84 --batch_size=128
    python -m launch.benchmark updates --agent=curl
    python -m launch.benchmark updates --agent=rainbow --batch_size=32
    python -m launch.benchmark replay --domain=dmc
    python -m launch.benchmark replay --domain=atari --games=Seaquest,Pong --codec=float16
    python -m launch.benchmark replay --domain=dmc --sizes=1e4,1e5,1e6
    python -m launch.benchmark cluster --actors=1,2,4,8 --seconds=30
    python -m launch.benchmark checkpoints --pixel_rows=5000 --latent_rows=20000

updates: mean milliseconds of one learner update over whole cadence periods, in both phases, from
data in memory (a pool of 512 transitions, a new batch drawn from it at each update). Needs no
simulator. The DQN family's copy to its target, once in thousands of updates, is no cadence here.

replay: growth of a replay server's resident memory divided by the rows it holds, for pixels and for
latents, with real frames under a random policy: of one task of the control suite, or of several
Atari games in turn, each with as many rows. Besides, rates of writing, sampling and converting, the
server's memory before, during and after the conversion, a checkpoint's bytes on disk, and how far
the codec moves Q values and policy. See launch/benchmark_replay.py.

cluster: updates and agent steps per second, from latents, of a learner by itself and with several
actors, all as processes of their own on this machine, and how many updates old the weights are that
actors act with. On the CPU preset of cartpole-swingup. See launch/benchmark_cluster.py.

checkpoints: seconds that checkpoints of a replay server and of a learner take, and how many of them
training loses at their periods, in both phases, on the same preset, with frames and latents of
noise. See launch/benchmark_checkpoints.py.
"""

import json
import os
import time
from typing import Callable, Dict

from absl import flags

from launch import benchmark_checkpoints, benchmark_cluster, benchmark_replay, cli

_AGENT = flags.DEFINE_enum(
  'agent',
  'sac',
  ['sac', 'curl', 'drq', 'sac_ae', 'dqn', 'rainbow'],
  'Agent whose updates are timed.',
)
_DOMAIN = flags.DEFINE_enum('domain', 'dmc', ['dmc', 'atari'], 'Whose frames fill replay.')
_IMAGE_SIZE = flags.DEFINE_integer('image_size', 84, 'Pixels of the crop that is learned from.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 128, 'Transitions per update.')
_SECONDS = flags.DEFINE_float(
  'seconds', 8.0, 'Least seconds to time a phase of updates, a cluster, or training.'
)

_POOL = 512  # transitions in memory
# Published settings: what a number stands for does not change with our own presets.
_PRESETS = {
  'sac': 'gin_configs/cartpole_swingup_paper.gin',
  'curl': 'gin_configs/curl_dmc_paper.gin',
  'drq': 'gin_configs/drq_dmc_paper.gin',
  'sac_ae': 'gin_configs/sac_ae_dmc_paper.gin',
  'dqn': 'gin_configs/dqn_atari_paper.gin',
  'rainbow': 'gin_configs/rainbow_atari_paper.gin',
  'dmc': 'gin_configs/cartpole_swingup_paper.gin',
  'atari': 'gin_configs/rainbow_atari_paper.gin',
  'cluster': 'gin_configs/cartpole_swingup_cpu.gin',
  'checkpoints': 'gin_configs/cartpole_swingup_cpu.gin',
}


_CROPPED = ('sac', 'curl', 'dmc')  # the others learn from whole images
_ATARI = ('dqn', 'rainbow', 'atari')


def _rendered(name: str) -> int:
  """Pixels of what is rendered: larger than a crop of it by the published 100 to 84."""
  return _IMAGE_SIZE.value * 100 // 84 if name in _CROPPED else _IMAGE_SIZE.value


def _bindings(name: str):
  """The sizes asked for."""
  if name in _ATARI:
    return [f'atari.load.image_size = {_rendered(name)}']
  return [
    f'RandomCrop.image_size = {_IMAGE_SIZE.value}',
    f'dm_control.load.image_size = {_rendered(name)}',
    'dm_control.load.shadows = False',
  ]


def _stand_in():
  """An environment that is no more than the specs of the one that the agent is timed for."""
  import numpy as np
  from tf_agents.environments import py_environment
  from tf_agents.specs import array_spec

  size, frame_stack, channels = _rendered(_AGENT.value), 4, 1
  action = array_spec.BoundedArraySpec((), np.int64, 0, 17, 'action')
  if _AGENT.value not in _ATARI:
    frame_stack, channels = 3, 3
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


def updates() -> Dict:
  """Times learner updates from pixels, then from latents; returns the figures to print."""
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
  return dict(
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


def main(command: str):
  """Runs the benchmark called `command`."""
  names = {'updates': _AGENT.value, 'replay': _DOMAIN.value}
  names.update((name, name) for name in ('cluster', 'checkpoints'))
  if command not in names:
    raise cli.UserError(f'unknown benchmark {command!r}; there are {", ".join(names)}.')
  name = names[command]
  from seer_tf.training import experiment  # noqa: F401 - defines what gin configures

  preset = _PRESETS[name]
  if command == 'cluster':
    bindings = benchmark_cluster.bindings()
  elif command == 'checkpoints':
    bindings = benchmark_replay.bindings()
  else:
    bindings = _bindings(name) + benchmark_replay.bindings()
  cli.parse_gin([preset], bindings)
  files, further = cli.gin_arguments()
  gin_arguments = [preset, *files], [*bindings, *further]
  if command == 'updates':
    rows = [updates()]
  elif command == 'replay':
    rows = benchmark_replay.replay(_DOMAIN.value, gin_arguments)
  elif command == 'checkpoints':
    rows = benchmark_checkpoints.checkpoints(gin_arguments, _SECONDS.value)
  else:
    rows = benchmark_cluster.cluster(gin_arguments, _SECONDS.value)
  for figures in rows:
    print(json.dumps(figures), flush=True)


if __name__ == '__main__':
  cli.run(main, arguments=1)
