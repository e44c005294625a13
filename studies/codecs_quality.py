"""What a codec does to Q values and to the policy of trained heads: prints a JSON line each.

python -m studies.codecs_quality --dir=/tmp/codecs \
    --control_checkpoint=…/train/checkpoints/ckpt-10000 --atari_checkpoint=…/ckpt-18400

The checkpoints are of the runs that `studies.codecs_data` was given. A codec is calibrated by the
first half of the rows and judged by the second.
"""

import json
import os

from absl import app, flags
import numpy as np
import tensorflow as tf

from seer_tf.replay import codecs

_DIR = flags.DEFINE_string('dir', None, 'Where codecs_data wrote its files.', required=True)
_CONTROL = flags.DEFINE_string('control_checkpoint', None, 'Of a run of cartpole_swingup_cpu.gin.')
_ATARI = flags.DEFINE_string('atari_checkpoint', None, 'Of a run of rainbow_atari_cpu.gin.')

_CODECS = {
  'Float32': codecs.Float32,
  'Float16': codecs.Float16,
  **{
    f'Uint8, margin {margin}': lambda shape, margin=margin: codecs.Uint8(shape, margin)
    for margin in (0.0, 0.1, 0.2, 0.5)
  },
}


class _Checkpoint:
  """The agent's variables in a checkpoint of a run, by path."""

  def __init__(self, path):
    self._reader = tf.train.load_checkpoint(path)

  def __call__(self, path):
    return self._reader.get_tensor(f'agent/{path}/.ATTRIBUTES/VARIABLE_VALUE')

  def dense(self, path, inputs):
    return inputs @ self(f'{path}/kernel') + self(f'{path}/bias')


def _relu(hidden):
  return np.maximum(hidden, 0)


def _rainbow(path):
  """Q values [N, actions] of a noiseless dueling categorical head."""
  get = _Checkpoint(path)

  def values(latents):
    streams = ('_q_network/_streams/0', '_q_network/_streams/1')
    hidden = [_relu(get.dense(f'{stream}/0', latents)) for stream in streams]
    value, advantage = (get.dense(f'{s}/1', h) for s, h in zip(streams, hidden))
    advantage = advantage.reshape(len(latents), -1, 51)
    logits = value[:, None] + advantage - advantage.mean(axis=1, keepdims=True)
    chances = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (chances / chances.sum(axis=-1, keepdims=True)) @ np.linspace(-10, 10, 51)

  return values


def _sac(path):
  """Q values [N, 5] of five actions, and the policy's mean action [N, 1]."""
  get = _Checkpoint(path)

  def norm(path, latents):
    scaled = latents - latents.mean(axis=-1, keepdims=True)
    scaled /= np.sqrt(scaled.var(axis=-1, keepdims=True) + 1e-5)
    return scaled * get(f'{path}/gamma') + get(f'{path}/beta')

  def values(latents):
    critic, columns = '_critic_network_1/_sequential_layers', []
    inputs = norm(f'{critic}/0/_nested_layers/0/_sequential_layers/1', latents[:, :50])
    for action in np.linspace(-1, 1, 5):
      hidden = np.concatenate([inputs, np.full((len(inputs), 1), action)], axis=1)
      for layer in (3, 4):
        hidden = _relu(get.dense(f'{critic}/{layer}', hidden))
      columns.append(get.dense(f'{critic}/5', hidden)[:, 0])
    return np.stack(columns, axis=1)

  def policy(latents):
    actor = '_actor_network/_sequential_layers'
    hidden = norm(f'{actor}/1', latents[:, 50:])
    for layer in (2, 3):
      hidden = _relu(get.dense(f'{actor}/{layer}', hidden))
    return np.tanh(get.dense(f'{actor}/4/_projection_layer', hidden)[:, :1])

  return values, policy


def _greedy(values):
  """The policy that acts greedily, one-hot [N, actions]; its error is twice the share changed."""
  return lambda latents: np.eye(values(latents).shape[1])[values(latents).argmax(axis=1)]


def _measure(name, values, policy):
  with np.load(os.path.join(_DIR.value, f'{name}.npz')) as stored:
    rows = stored['observation']
  first, second = np.split(rows, 2)
  for label, make in _CODECS.items():
    codec = make(rows.shape[1:])
    codec.calibrate(first)
    decoded = codec.decode(tf.constant(codec.encode(second))).numpy()
    pairs = [latents.reshape(-1, rows.shape[-1]) for latents in (second, decoded)]
    q, q_decoded = map(values, pairs)
    acting, acting_decoded = map(policy, pairs)
    figures = {
      'latent_error_over_std': np.abs(decoded - second).mean() / second.std(axis=(0, 1)).mean(),
      'q_error_mean': np.abs(q_decoded - q).mean(),
      'q_error_max': np.abs(q_decoded - q).max(),
      'q_std_over_rows': q.std(axis=0).mean(),
      'greedy_action_differs': np.mean(q.argmax(axis=1) != q_decoded.argmax(axis=1)),
      'policy_error_mean': np.abs(acting_decoded - acting).mean(),
    }
    rounded = {key: float(f'{value:.3g}') for key, value in figures.items()}
    print(json.dumps({'data': name, 'codec': label, **rounded}), flush=True)


def main(_):
  """Measures the heads whose checkpoints were given."""
  if _CONTROL.value:
    _measure('cartpole_trained', *_sac(_CONTROL.value))
  if _ATARI.value:
    values = _rainbow(_ATARI.value)
    _measure('Freeway_trained', values, _greedy(values))


if __name__ == '__main__':
  app.run(main)
