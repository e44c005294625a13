"""What the binaries of a run share."""

import types

import tensorflow as tf

from launch import processes
from seer_tf.training import checkpoints


def test_each_start_of_a_run_has_a_seed_of_its_own(tmp_path, monkeypatch):
  monkeypatch.setattr(processes, 'SEED', types.SimpleNamespace(value=7))
  manager = tf.train.CheckpointManager(
    tf.train.Checkpoint(weights=tf.Variable(0.0)), str(tmp_path / 'train' / 'checkpoints'), 2
  )
  assert (checkpoints.newest(str(tmp_path)), checkpoints.exists(str(tmp_path))) == (0, False)
  seeds = [processes.seed_of_start(str(tmp_path))]
  for number in range(1, 13):
    checkpoints.sync(manager.save())
    assert (checkpoints.newest(str(tmp_path)), checkpoints.exists(str(tmp_path))) == (number, True)
    seeds.append(processes.seed_of_start(str(tmp_path)))
  assert seeds[0] == 7 and len(set(seeds)) == 13
  assert processes.seed_of_start(str(tmp_path)) == seeds[-1]
  assert all(0 <= seed < 2**31 for seed in seeds)
