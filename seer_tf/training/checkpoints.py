"""What a run knows besides its weights, saved in the very checkpoint that has the weights.

Parts of a run say what they know as plain arrays (`state`) and go on from them (`restore`): clocks,
schedule, ledger, priorities, codec. One checkpoint has all or nothing of it, so that weights and
clocks can never be of two different moments.
"""

import glob
import io
import os
from typing import Any, Dict, Mapping

import numpy as np
import tensorflow as tf
from tf_agents.train import learner

from seer_tf.replay import checkpoints


class RunState(tf.train.experimental.PythonState):
  """The parts of a run, as a leaf of TensorFlow's object graph."""

  def __init__(self, parts: Mapping[str, Any]):
    """Takes parts by name; they are asked when a checkpoint is saved and told when one is read.

    Args:
      parts: name, without a slash -> an object with `state()`, which returns a dictionary of arrays
        without Python objects, and `restore(state)`.
    """
    super().__init__()
    self._parts = dict(parts)

  def serialize(self) -> bytes:
    """All parts' arrays in one file in memory."""
    arrays = {
      f'{part}/{name}': value
      for part, owner in self._parts.items()
      for name, value in owner.state().items()
    }
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()

  def deserialize(self, string_value: bytes):
    """Tells each part what it had said.

    Raises:
      ValueError: if the arrays cannot be read.
    """
    found: Dict[str, Dict[str, np.ndarray]] = {part: {} for part in self._parts}
    with np.load(io.BytesIO(string_value), allow_pickle=False) as arrays:
      for key in arrays:
        part, _, name = key.partition('/')
        found[part][name] = arrays[key]
    for part, owner in self._parts.items():
      owner.restore(found[part])


class Part:
  """A part of a run made of two functions."""

  def __init__(self, state, restore):
    """Takes what `RunState` calls."""
    self.state = state
    self.restore = restore


def exists(root_dir: str) -> bool:
  """Whether a learner has saved a checkpoint below `root_dir`."""
  return newest(root_dir) > 0


def newest(root_dir: str) -> int:
  """Number of the newest checkpoint that a learner has saved below `root_dir`; 0 without one."""
  folder = os.path.join(root_dir, learner.TRAIN_DIR, learner.POLICY_CHECKPOINT_DIR)
  return int((tf.train.latest_checkpoint(folder) or '-0').rpartition('-')[2])


def sync(path: str):
  """Brings a checkpoint to the disk, and that it is the newest: no loss of power undoes it.

  Args:
    path: what its files begin with, in the folder that knows which is the newest.
  """
  folder = os.path.dirname(path)
  for name in (*glob.glob(f'{glob.escape(path)}.*'), os.path.join(folder, 'checkpoint'), folder):
    checkpoints.sync(name)
