"""What a codec does to Q values and to the policy of a trained agent: prints a JSON line each.

    python -m studies.codecs_quality --root_dir=… --gin_file=gin_configs/cartpole_swingup_cpu.gin

The run's agent acts as it would collect; a codec is calibrated by the first half of the
observations and judged by the second.
"""

import json
import os
import pathlib

from absl import flags
import numpy as np
import tensorflow as tf
from tf_agents.policies import py_tf_eager_policy

from launch import benchmark_replay, cli
from seer_tf.replay import codecs
from seer_tf.training import experiment as experiment_lib

_ROOT_DIR = flags.DEFINE_string('root_dir', None, 'Of a run that has ended.', required=True)
_ROWS = flags.DEFINE_integer('rows', 2000, 'Observations to encode.', lower_bound=200)

_CODECS = {
  'Float32': codecs.Float32,
  'Float16': codecs.Float16,
  **{
    f'Uint8, margin {margin}': lambda shape, margin=margin: codecs.Uint8(shape, margin)
    for margin in (0.0, 0.1, 0.2, 0.5)
  },
}


def _restored(experiment, environment, folder: str):
  """The agent as the run saved it last."""
  agent = experiment.agent(environment, tf.Variable(0, dtype=tf.int64))
  agent.initialize()
  path = tf.train.latest_checkpoint(os.path.join(folder, 'train', 'checkpoints'))
  if path is None:
    raise cli.UserError(f'{folder} has no checkpoint; give the --root_dir of a run that has ended.')
  tf.train.Checkpoint(agent=agent).restore(path).expect_partial()
  return agent


def _latents(agent, environment, crops: int) -> np.ndarray:
  """Latents [N, K, D] of what the agent meets as it collects."""
  policy = py_tf_eager_policy.PyTFEagerPolicy(agent.storing_policy(crops), use_tf_function=True)
  time_step, latents = environment.reset(), []
  for _ in range(_ROWS.value):
    step = policy.action(time_step)
    latents.append(step.info)
    time_step = environment.step(step.action)
  return np.stack(latents)


def main():
  """Measures each codec on the latents of one run."""
  cli.parse_gin()
  experiment = experiment_lib.Experiment()
  environment = experiment.environment_fn(seed=0)
  config = experiment.replay_config(environment)
  agent = _restored(experiment, environment, _ROOT_DIR.value)
  latents = _latents(agent, environment, config.stored_crops)
  first, second = np.array_split(latents, 2)
  name = pathlib.Path(_ROOT_DIR.value).name
  for label, make in _CODECS.items():
    codec = make(latents.shape[1:])
    codec.calibrate(first)
    figures = benchmark_replay.coding_errors(agent, codec, second)
    print(json.dumps({'run': name, 'codec': label, **figures}), flush=True)


if __name__ == '__main__':
  cli.run(main)
