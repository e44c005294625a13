"""Tests of runs, in this process, under each schedule: when the encoder freezes, what follows."""

import collections
import csv
import pathlib

import gin
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.util import event_pb2
from tf_agents.utils import common

from seer_tf.freezing import freeze
from seer_tf.networks import encoders, variables
from seer_tf.replay import server
from seer_tf.training import experiment, loop

FILES = ['tests/counting.gin']
CONVERGED = [
  'Experiment.schedule_fn = @WhenConverged',
  'WhenConverged.earliest_agent_steps = 20',
  'WhenConverged.latest_agent_steps = 40',
  'WhenConverged.patience = 2',
  'WhenConverged.period_agent_steps = 5',
  'WhenConverged.probe_observations = 8',
  # So many that no layer is dead on frames that are nearly black, and then comes to life.
  'ControlEncoder.filters = (16, 16)',
]
Lived = collections.namedtuple('Lived', 'run, results, table, info, before, after, tags, errors')


@pytest.fixture
def live(root, tmp_path, monkeypatch, capfd):
  """A function that lives a run with some bindings and tells what it left."""

  def lived(*bindings) -> Lived:
    monkeypatch.chdir(root)
    with gin.unlock_config():
      gin.clear_config()
      gin.parse_config_files_and_bindings(FILES, bindings)
      tf.keras.utils.set_random_seed(0)
      run = loop.Run(experiment.Experiment(), str(tmp_path), seed=0)
      weights = lambda: {
        name: v.numpy().copy() for name, v in variables.by_name(run.agent.lower).items()
      }
      before = weights()
      with server.EmbeddedServer(FILES, bindings) as embedded:
        client = server.connect(embedded.address, run.replay_config)
        table = run.run(embedded.address, client, embedded.check)
        info = client.server_info(timeout=20)
      gin.clear_config()
    results = list(csv.DictReader((tmp_path / 'results.csv').open()))
    return Lived(
      run, results, table, info, before, weights(), scalars(tmp_path), capfd.readouterr().err
    )

  return lived


def scalars(root_dir: pathlib.Path):
  """Tag -> agent_steps or updates at which TensorBoard has a value."""
  tags = collections.defaultdict(list)
  for path in root_dir.rglob('events*'):
    for record in tf.data.TFRecordDataset(str(path)):
      event = event_pb2.Event.FromString(record.numpy())
      for value in event.summary.value:
        tags[value.tag].append(event.step)
  return tags


def phases(lived):
  return [(row['phase'], int(row['agent_steps']), int(row['updates'])) for row in lived.results]


def has_learned(lived):
  return any(np.any(lived.before[name] != lived.after[name]) for name in lived.before)


def test_converged_at_once(live):
  """Any similarity is enough: looks at agent steps 10, 15 and 20."""
  lived = live(*CONVERGED, 'WhenConverged.threshold = 1e-9')
  assert phases(lived) == [('pixels', 20, 10), ('latents', 61, 51)]
  assert 'freezing the encoder at agent step 20: converged: each layer' in lived.errors
  for layer in ('conv1', 'conv2', 'critic_projection', 'actor_projection'):
    assert lived.tags[f'Similarity by agent_steps/{layer}'] == [15, 20]


def test_convergence_never_comes(live):
  lived = live(*CONVERGED, 'WhenConverged.similarity_fn = @pwcca', 'WhenConverged.threshold = 1.0',
               'SeerSacAgent.learning_rate = 0.1')  # fmt: skip
  assert phases(lived) == [('pixels', 40, 30), ('latents', 61, 51)]
  assert 'freezing the encoder at agent step 40: it has NOT converged' in lived.errors
  assert lived.tags['Similarity by agent_steps/conv1'] == [15, 20, 25, 30, 35, 40]


def test_more_updates_after_the_freeze_and_an_auxiliary_loss_that_ends_there(live):
  lived = live(
    'Experiment.updates_per_agent_step_from_latents = 3',
    'SeerSacAgent.auxiliary_fn = @Contrastive',
    'Experiment.augmentation_fn = @Chain',
    'Chain.parts = (@RandomCrop, @Cutout)',
    'Cutout.largest = 12',
  )
  assert phases(lived) == [('pixels', 33, 23), ('latents', 61, 23 + 3 * 28)]
  assert int(lived.run.agent._auxiliary_optimizer.iterations) == 23


def test_no_updates_after_the_freeze_are_refused():
  with pytest.raises(ValueError, match='updates_per_agent_step_from_latents is 0; give a whole'):
    experiment.Experiment(total_agent_steps=9, updates_per_agent_step_from_latents=0)


def test_never_freezes(live):
  lived = live('Experiment.schedule_fn = @Never')
  assert phases(lived) == [('pixels', 61, 51)]
  assert has_learned(lived) and lived.run.agent.lower.trainable
  assert int(lived.run.agent.phase) == freeze.Phase.PIXELS
  assert lived.info['latents'].current_size == 0 < lived.info['pixels'].current_size
  assert 'freezing' not in lived.errors and 'conversion took' not in lived.table


def test_a_random_encoder_freezes_before_the_first_update(live):
  lived = live('Experiment.schedule_fn = @AtStart')
  assert phases(lived) == [('pixels', 10, 0), ('latents', 61, 51)]
  assert not has_learned(lived)
  assert int(lived.run.agent.phase) == freeze.Phase.LATENTS
  assert lived.info['pixels'].current_size == 0 < lived.info['latents'].current_size


def test_a_transferred_encoder_stays_as_the_other_run_left_it(live, tmp_path):
  """The other run's is saved as its learner does; it takes no run to make one."""
  other = tmp_path / 'other'
  agent = tf.Module()
  agent.lower = encoders.ControlEncoder((15, 15, 9), filters=(4, 4), features=5)
  checkpoints = str(other / 'train' / 'checkpoints')
  common.Checkpointer(checkpoints, agent=agent, train_step=tf.Variable(3)).save(3)
  lived = live('Experiment.schedule_fn = @AtStart', f'Experiment.transfer_from = {str(other)!r}')
  expected = freeze.fingerprint(agent.lower)
  assert freeze.fingerprint(lived.run.agent.lower) == expected
  assert freeze.fingerprint(lived.run.agent.target_lower) == expected
