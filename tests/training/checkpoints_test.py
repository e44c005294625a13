"""What a run knows, in the checkpoint that has its weights."""

import numpy as np
import pytest
import tensorflow as tf

from seer_tf.costs import flops, ledger
from seer_tf.training import checkpoints, configuration


class Part:
  """Says and takes arrays."""

  def __init__(self, **arrays):
    self.arrays = arrays

  def state(self):
    return self.arrays

  def restore(self, state):
    self.arrays = dict(state)


def test_parts_come_back_with_the_weights(tmp_path):
  parts = dict(
    one=Part(
      text=np.asarray('abc'), bytes=np.frombuffer(b'\0\1\0', np.uint8), empty=np.empty([0, 3])
    ),
    two=Part(**{'in_a_row/conv1': np.asarray(3)}),
    none=Part(),
  )
  saved = tf.train.Checkpoint(weights=tf.Variable(3.0), state=checkpoints.RunState(parts))
  path = saved.save(str(tmp_path / 'run'))
  saved.weights.assign(5.0)
  later = {name: Part() for name in parts}
  found = tf.train.Checkpoint(weights=tf.Variable(0.0), state=checkpoints.RunState(later))
  found.restore(path).assert_consumed()
  assert float(found.weights) == 3
  for name, part in parts.items():
    assert later[name].arrays.keys() == part.arrays.keys()
    for key, value in part.arrays.items():
      np.testing.assert_array_equal(later[name].arrays[key], value)


def test_a_ledger_goes_on():
  costs = flops.Costs(*range(1, 1 + len(flops.Costs._fields)))
  before, after = ledger.Ledger(costs), ledger.Ledger(costs)
  with before.updates('pixels', 7, from_latents=False):
    before.acted('pixels', 4, encoded=True, stored=False)
  after.acted('latents', 100, encoded=True, stored=True)  # of a start that comes to nothing
  after.restore(before.state())
  assert after.flops == before.flops and after.phase('pixels') == pytest.approx(
    before.phase('pixels'), nan_ok=True
  )
  assert after.phase('latents')['agent_steps'] == 0


def test_configurations_differ_by_binding():
  before = 'a.b = 1\nc.d = \\\n    (1,\n     2)\ne = 3\n'
  assert configuration.differences(before, before) == ''
  assert configuration.differences(before, 'a.b = 2\nc.d = \\\n    (1,\n     2)\nf = 3\n') == (
    'a.b was 1, now 2; e was 3, now not bound; f was not bound, now 3'
  )
