"""Tests of a whole run with prioritised replay, in this process, against a server in its own."""

import csv

import gin
import numpy as np
import pytest
import tensorflow as tf

from seer_tf.replay import server, tables
from seer_tf.training import experiment, loop
from tests.environments import rooms

pytestmark = pytest.mark.filterwarnings('ignore:invalid value encountered in cast')  # TF-Agents


@pytest.fixture
def make_run(root, tmp_path, monkeypatch):
  """A function that makes the run which a gin file and bindings describe."""

  def make(gin_file, *bindings) -> loop.Run:
    monkeypatch.chdir(root)
    with gin.unlock_config():
      gin.clear_config()
      gin.parse_config_files_and_bindings([gin_file], bindings)
      tf.keras.utils.set_random_seed(0)
      return loop.Run(experiment.Experiment(), str(tmp_path), seed=0)

  yield make
  gin.clear_config()


def test_a_known_task_is_solved_through_the_freeze(make_run, tmp_path):
  run = make_run('tests/rooms.gin')
  train, every_weight = run.agent.train, []

  def train_and_record(experience, weights=None):
    if weights is not None:  # the learner's tracing has none
      tf.numpy_function(every_weight.append, [weights], [])
    return train(experience, weights=weights)

  run.agent.train = train_and_record
  with server.EmbeddedServer(['tests/rooms.gin']) as embedded:
    client = server.connect(embedded.address, run.replay_config)
    run.run(embedded.address, client, embedded.check)
    draws = client.sample('latents', 4000, emit_timesteps=False, unpack_as_table_signature=True)
    items = list({sample.info.key: sample for sample in draws}.values())

  q = run.agent._q_network(run.agent.lower(tf.constant(rooms.FRAMES)))[0]
  np.testing.assert_allclose(q, rooms.OPTIMAL, atol=0.15)
  results = list(csv.DictReader((tmp_path / 'results.csv').open()))
  assert [(row['phase'], int(row['updates'])) for row in results] == [
    ('pixels', 60),
    ('latents', 440),
  ]
  assert results[-1]['returns'] == '1.500 1.500'

  # The server draws by what the learner knows, also of rows that once were pixels.
  found = {}
  for item in items:
    rows = tables.unpack(item.data, run.replay_config.latents_row)
    assert rows.step_type[0] != 2
    found[int(rows.number[0])] = item.info.priority
  assert min(found) < 120 and len(found) > 100
  known = run.link.replay.of(np.array(list(found)))
  np.testing.assert_allclose(known, list(found.values()), rtol=1e-5)
  assert len(every_weight) == 440 and len(set(found.values())) > 50
  assert all(np.max(batch) == 1 for batch in every_weight)
  assert sum(np.min(batch) < 1 for batch in every_weight) > 400


@pytest.mark.parametrize(
  'bindings, message',
  [
    (
      [
        'ReplayConfig.priority_exponent = 0.5',
        'ReplayConfig.block_length = 1',
        'ReplayConfig.pixels_block_length = 1',
      ],
      'SeerSacAgent has no TD error of each transition.*@SeerDqnAgent',
    ),
    (['Experiment.draws_per_block = 5'], 'draws_per_block is 5, .* ReplayConfig.block_length = 4'),
  ],
)
def test_what_does_not_fit_is_refused_before_the_run(make_run, bindings, message):
  with pytest.raises(ValueError, match=message):
    make_run('tests/counting.gin', *bindings)
