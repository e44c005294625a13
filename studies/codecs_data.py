"""Real frames of a random policy and their latents, for `studies.codecs`.

python -m studies.codecs_data --dir=/tmp/codecs \
    --control_run=ROOT_DIR --atari_run=ROOT_DIR

The runs are of `cartpole_swingup_cpu.gin` (48 px) and `rainbow_atari_cpu.gin` with GAME Freeway;
without them only latents of encoders as they are initialised are written.
"""

import os

from absl import app, flags
import cv2
import numpy as np
import tensorflow as tf

from seer_tf.agents import augmentation
from seer_tf.environments import atari, dm_control
from seer_tf.networks import atari_encoders, encoders, transfer

_DIR = flags.DEFINE_string('dir', None, 'Where the .npz files go.', required=True)
_CONTROL = flags.DEFINE_string('control_run', None, 'Of a trained 48 px ControlEncoder.')
_ATARI = flags.DEFINE_string('atari_run', None, 'Of a DataEfficientEncoder for Freeway.')

_BATCH = 50


def _play(environment, steps: int):
  """Columns of `steps` rows of a uniformly random policy; observations are stacks of frames."""
  rng, spec, rows = np.random.default_rng(0), environment.action_spec(), []
  now = environment.reset()
  for _ in range(steps):
    if np.issubdtype(spec.dtype, np.integer):
      action = rng.integers(spec.minimum, spec.maximum + 1, spec.shape).astype(spec.dtype)
    else:
      action = rng.uniform(spec.minimum, spec.maximum, spec.shape).astype(spec.dtype)
    then = environment.step(action)
    rows.append((now.observation, action, then.reward, then.discount, now.step_type))
    now = then
  environment.close()
  names = ('observation', 'action', 'reward', 'discount', 'step_type')
  return {name: np.stack(column) for name, column in zip(names, zip(*rows))}


def _encoded(lower, observations, crops: int = 1):
  """Latents [N, K, D]; of K random crops if there are several."""
  crop = augmentation.RandomCrop(lower.image_shape[0]).augment if crops > 1 else tf.identity
  latents = []
  for first in range(0, len(observations), _BATCH):
    batch = tf.constant(observations[first : first + _BATCH])
    latents.append(np.stack([lower(crop(batch)).numpy() for _ in range(crops)], axis=1))
  return np.concatenate(latents)


def _smaller(stacks, size: int):
  """Each frame of each stack scaled to `size` pixels."""
  frames = [np.split(stack, stack.shape[-1] // 3, axis=-1) for stack in stacks]
  scale = lambda frame: cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
  return np.stack([np.concatenate([scale(frame) for frame in stack], -1) for stack in frames])


def main(_):
  """Writes NAME.npz: the rows' columns, with latents or with the newest frames as observation."""
  tf.random.set_seed(0)

  def save(name, rows, observation):
    np.savez(os.path.join(_DIR.value, name), **{**rows, 'observation': observation})
    print(name, observation.dtype, observation.shape, f'zeros {np.mean(observation == 0):.3f}')

  rows = _play(dm_control.load('cartpole', 'swingup', action_repeat=8, seed=0), 1000)
  stacks = rows['observation']
  save('cartpole_frames', rows, stacks[..., -3:])
  save('cartpole_initial', rows, _encoded(encoders.ControlEncoder((84, 84, 9)), stacks, 4))
  if _CONTROL.value:
    lower = encoders.ControlEncoder((48, 48, 9))
    transfer.load(lower, _CONTROL.value)
    save('cartpole_trained', rows, _encoded(lower, _smaller(stacks, 57), 4))
  for game in ('Freeway', 'Seaquest', 'Pong'):
    rows = _play(atari.load(game, seed=0), 2000)
    stacks = rows['observation']
    save(f'{game}_frames', rows, stacks[..., -1:])
    lower = atari_encoders.DataEfficientEncoder((84, 84, 4))
    save(f'{game}_initial', rows, _encoded(lower, stacks))
    if game == 'Freeway' and _ATARI.value:
      transfer.load(lower, _ATARI.value)
      save(f'{game}_trained', rows, _encoded(lower, stacks))


if __name__ == '__main__':
  app.run(main)
