"""Weights of an encoder from the checkpoint of another run, by name."""

import os
from typing import Dict

import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from seer_tf.networks import variables


def load(encoder: tf.keras.Model, root_dir: str):
  """Gives `encoder` the weights that the online encoder of another run had when last saved.

  All of them, wherever either run cuts its encoder.

  Args:
    encoder: built; of the same layers, by name, as the other run's.
    root_dir: of the other run.

  Raises:
    ValueError: if that run does not exist or saved nothing, is none of this project, or had another
      encoder; then with the layers, and the shapes, that differ. Nothing is loaded then.
  """
  path = tf.train.latest_checkpoint(os.path.join(root_dir, 'train', 'checkpoints'))
  if path is None:
    raise ValueError(
      f'no weights to transfer in {root_dir}: it has no checkpoint in train/checkpoints. Give the '
      f'root_dir of a run that has ended, or has saved a checkpoint.'
    )
  try:
    reader = tf.train.load_checkpoint(path)
    keys = _keys(reader, encoder.name)
  except (tf.errors.OpError, KeyError) as error:
    raise ValueError(
      f'checkpoint {path} is not of a run of this project: it holds no agent with an '
      f'encoder. Give the root_dir of a run of launch.train.'
    ) from error
  ours = variables.by_name(encoder)
  if set(ours) != set(keys):
    raise ValueError(
      f'the encoder saved in {path} is another one: only it has {sorted(set(keys) - set(ours))}, '
      f'only this run {sorted(set(ours) - set(keys))}. Bind the same encoder as that run did.'
    )
  values = {name: reader.get_tensor(key) for name, key in keys.items()}
  for name, value in values.items():
    if value.shape != tuple(ours[name].shape):
      raise ValueError(
        f'{name} has shape {tuple(value.shape)} in {path}, {tuple(ours[name].shape)} in this run: '
        f'bind the same encoder, image size and frame stack as that run did.'
      )
  for name, value in values.items():
    ours[name].assign(value)


def _keys(reader, scope: str) -> Dict[str, str]:
  """Variable name below `scope` -> key in a checkpoint, of the variables below agent.encoder.

  The keys themselves tell a layer's place, not its name; the saved object graph knows both.

  Raises:
    tf.errors.OpError: if the checkpoint has no object graph.
    KeyError: if it has no agent with an encoder.
  """
  graph = trackable_object_graph_pb2.TrackableObjectGraph()
  graph.ParseFromString(reader.get_tensor('_CHECKPOINTABLE_OBJECT_GRAPH'))
  children = lambda node: {child.local_name: child.node_id for child in graph.nodes[node].children}
  waiting, seen, keys = [children(children(0)['agent'])['encoder']], set(), {}
  while waiting:
    node = waiting.pop()
    if node in seen:
      continue
    seen.add(node)
    waiting += children(node).values()
    for attribute in graph.nodes[node].attributes:
      first, _, rest = attribute.full_name.partition('/')
      keys[rest if first == scope else attribute.full_name] = attribute.checkpoint_key
  return keys
