"""Tests of runs, in this process, under each schedule: when the encoder freezes, what follows."""

import collections
import contextlib
import csv
import re
import shutil

import gin
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.utils import common

from seer_tf.costs import flops
from seer_tf.freezing import freeze
from seer_tf.networks import encoders, variables
from seer_tf.replay import server
from seer_tf.training import actor, experiment, loop, records

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
Lived = collections.namedtuple('Lived', 'run, results, table, info, before, after, shown, errors')


@pytest.fixture
def build(root, tmp_path, monkeypatch):
  """A context in which a run with some bindings is built."""

  @contextlib.contextmanager
  def built(*bindings):
    monkeypatch.chdir(root)
    with gin.unlock_config():
      gin.clear_config()
      gin.parse_config_files_and_bindings(FILES, bindings)
      tf.keras.utils.set_random_seed(0)
      try:
        yield loop.Run(experiment.Experiment(), str(tmp_path), seed=0)
      finally:
        gin.clear_config()

  return built


@pytest.fixture
def live(build, tmp_path, capfd):
  """A function that lives a run with some bindings and tells what it left."""

  def lived(*bindings) -> Lived:
    with build(*bindings) as run:
      weights = lambda: {
        name: v.numpy().copy() for name, v in variables.by_name(run.agent.lower).items()
      }
      before = weights()
      with server.EmbeddedServer(FILES, bindings) as embedded:
        client = server.connect(embedded.address, run.replay_config)
        table = run.run(embedded.address, client, embedded.check)
        info = client.server_info(timeout=20)
    results = list(csv.DictReader((tmp_path / 'results.csv').open()))
    shown, errors = records.scalars(tmp_path), capfd.readouterr().err
    return Lived(run, results, table, info, before, weights(), shown, errors)

  return lived


def steps(lived, tag):
  """At which TensorBoard has a value."""
  return [step for step, _ in lived.shown[tag]]


def phases(lived):
  return [(row['phase'], int(row['agent_steps']), int(row['updates'])) for row in lived.results]


def has_learned(lived):
  return any(np.any(lived.before[name] != lived.after[name]) for name in lived.before)


def test_converged_at_once(live):
  """Any similarity is enough: looks at agent steps 10, 15 and 20."""
  lived = live(*CONVERGED, 'WhenConverged.threshold = 1e-9')
  assert phases(lived) == [('pixels', 20, 10), ('latents', 61, 51)]
  assert 'freezing the encoder at agent step 20: converged: each layer' in lived.errors
  for layer in ('conv1', 'conv2', 'dense/critic', 'dense/actor'):
    assert steps(lived, f'Similarity by agent_steps/{layer}') == [15, 20]


def test_each_layer_freezes_once_it_and_those_below_have_converged(live):
  """By what TensorBoard has seen; the threshold is one that the first layer passes sooner."""
  bindings = [text.replace('WhenConverged', 'ProgressiveWhenConverged') for text in CONVERGED]
  threshold, layers = 0.99, ['conv1', 'conv2', 'dense']
  lived = live(
    *bindings,
    f'ProgressiveWhenConverged.threshold = {threshold}',
    'SeerSacAgent.learning_rate = 0.01',
  )
  similar = {
    layer: [
      dict(values)
      for tag, values in lived.shown.items()
      if tag.startswith(f'Similarity by agent_steps/{layer}')
    ]
    for layer in layers
  }
  assert [len(outputs) for outputs in similar.values()] == [1, 1, 2]  # critic's and actor's
  converged = lambda layer, looks: all(
    output[look] >= threshold for output in similar[layer] for look in looks
  )
  expected, frozen = [], 0
  for at in range(20, 41, 5):
    looks = [at - 5, at]
    while frozen < 3 and (at == 40 or converged(layers[frozen], looks)):
      frozen += 1
    if frozen > (expected[-1][1] if expected else 0):
      expected.append((at, frozen))
    if frozen == 3:
      break
  assert len(expected) > 1
  said = re.findall(r'freezing (.*) at agent step (\d+): ', lived.errors)
  counts = [0, *(count for _, count in expected)]
  names = [', '.join(layers[before:count]) for before, count in zip(counts, counts[1:])]
  assert said == [(name, str(at)) for name, (at, _) in zip([*names[:-1], 'the encoder'], expected)]
  end = expected[-1][0]
  assert phases(lived) == [('pixels', end, end - 10), ('latents', 61, 51)]
  layers_at = lambda at: max([0, *(count for freeze_at, count in expected if freeze_at <= at)])
  flops = sum(update_flops(lived.run, layers_at(at)) for at in range(10, end))
  acted = (end - 10) * lived.run.agent.costs(8, 4).act
  assert int(lived.results[0]['flops']) == flops + acted


def test_convergence_never_comes(live):
  lived = live(*CONVERGED, 'WhenConverged.similarity_fn = @pwcca', 'WhenConverged.threshold = 1.0',
               'SeerSacAgent.learning_rate = 0.1')  # fmt: skip
  assert phases(lived) == [('pixels', 40, 30), ('latents', 61, 51)]
  assert 'freezing the encoder at agent step 40: it has NOT converged' in lived.errors
  assert steps(lived, 'Similarity by agent_steps/conv1') == [15, 20, 25, 30, 35, 40]


def test_more_updates_after_the_freeze_and_an_auxiliary_loss_that_ends_there(live):
  lived = live(
    'Experiment.updates_per_agent_step_from_latents = 3',
    'SeerSacAgent.auxiliary_fn = @Contrastive',
    'Experiment.augmentation_fn = @Chain',
    'Chain.parts = (@RandomCrop, @Cutout)',
    'Cutout.largest = 12',
  )
  assert phases(lived) == [('pixels', 33, 23), ('latents', 61, 23 + 3 * 28)]
  agent, (first, last) = lived.run.agent, (int(row['flops']) for row in lived.results)
  costs = agent.costs(8, 4)
  assert int(agent._auxiliary_optimizer.iterations) == 23
  acted = 28 * (costs.act + costs.store)
  encoded, rest = divmod(last - first - 84 * costs.update_from_latents - acted, costs.convert)
  assert rest == 0 and encoded >= 33  # each row, and those that the codec was fitted to


def test_no_updates_after_the_freeze_are_refused():
  with pytest.raises(ValueError, match='updates_per_agent_step_from_latents is 0; give a whole'):
    experiment.Experiment(total_agent_steps=9, updates_per_agent_step_from_latents=0)
  with pytest.raises(ValueError, match='with Experiment.store_latents = False nothing is ever'):
    experiment.Experiment(
      total_agent_steps=9, updates_per_agent_step_from_latents=3, store_latents=False
    )


def test_never_freezes(live):
  lived = live('Experiment.schedule_fn = @Never')
  assert phases(lived) == [('pixels', 61, 51)]
  assert has_learned(lived) and lived.run.agent.lower.trainable
  assert int(lived.run.agent.phase) == freeze.Phase.PIXELS
  assert lived.info['latents'].current_size == 0 < lived.info['pixels'].current_size
  assert 'freezing' not in lived.errors and 'conversion took' not in lived.table


def test_a_random_encoder_freezes_before_the_first_update(live, tmp_path):
  """Also after a life that was killed before its first checkpoint, whose evaluations go."""
  dead = records.Evaluation(5, 5, 0, 'pixels', 1.0, '1.0', 1, 1, 1, 1, 1.0)
  with (tmp_path / 'results.csv').open('w', newline='') as file:
    csv.writer(file).writerows([dead._fields, dead])
  lived = live('Experiment.schedule_fn = @AtStart')
  assert phases(lived) == [('pixels', 10, 0), ('latents', 61, 51)]
  assert not has_learned(lived)
  assert int(lived.run.agent.phase) == freeze.Phase.LATENTS
  assert lived.info['pixels'].current_size == 0 < lived.info['latents'].current_size


@pytest.mark.parametrize('cut', [None, 'conv2'])
def test_a_transferred_encoder_stays_as_the_other_run_left_it(live, build, tmp_path, cut):
  """The other run's is saved as its learner does; it takes no run to make one.

  Wherever this one cuts. Who has begun, or takes weights from a learner, needs it no more.
  """
  other = tmp_path / 'other'
  agent = tf.Module()
  agent.encoder = encoders.ControlEncoder((15, 15, 9), filters=(4, 4), features=5)
  checkpoints = str(other / 'train' / 'checkpoints')
  common.Checkpointer(checkpoints, agent=agent, train_step=tf.Variable(3)).save(3)
  bindings = [
    'Experiment.schedule_fn = @AtStart',
    f'Experiment.transfer_from = {str(other)!r}',
    f'Experiment.freeze_up_to = {cut!r}',
  ]
  lived = live(*bindings)
  expected = freeze.fingerprint(agent.encoder.cut(cut)[0])
  assert freeze.fingerprint(lived.run.agent.lower) == expected
  assert freeze.fingerprint(lived.run.agent.target_lower) == expected
  shutil.rmtree(other)
  with build(*bindings):
    actor.Actor(experiment.Experiment(), seed=0)


def test_agent_steps_that_updates_are_owed_for_stay_as_many_at_the_freeze(build):
  """Where other processes act, they are ahead of the learner."""
  updates = 'Experiment.updates_per_agent_step'
  with build(f'{updates} = 2', f'{updates}_from_latents = 7') as run:
    run._counted, run._due = 50, 80
    run.updates.assign(60)
    assert run._learned_agent_steps == 40
    latents, draining = freeze.Phase.LATENTS, freeze.Phase.DRAINING
    # The second time there is nothing to change; then replay comes back from before its conversion.
    for phase, owed in [(latents, 70), (latents, 70), (draining, 20), (latents, 70)]:
      run._enter(phase)
      assert (run._phase, run._learned_agent_steps, run._owed) == (phase, 40, owed)


@pytest.fixture
def frozen(monkeypatch):
  """What has been frozen: name -> weights as they were then."""
  seen, switch = {}, freeze.freeze

  def recording(lower, target_lower):
    fingerprint = switch(lower, target_lower)
    seen[lower.name] = [value.copy() for value in lower.get_weights()]
    return fingerprint

  monkeypatch.setattr(freeze, 'freeze', recording)
  return seen


def update_flops(run, frozen_layers):
  """FLOPs of an update from pixels above so many frozen layers."""
  agent = run.agent
  return flops.sac(
    flops.encoder(agent.encoder, agent.lower)._replace(frozen=frozen_layers),
    flops.dense_macs(agent._actor_network),
    flops.dense_macs(agent._critic_network_1),
    batch_size=8,
    stored_crops=4,
    actor_update_period=2,
  ).update_from_pixels


def test_layer_after_layer_up_to_a_cut(live, frozen):
  lived = live(
    "Experiment.freeze_up_to = 'conv2'",
    'Experiment.schedule_fn = @Progressive',
    "Progressive.freeze_at_agent_steps = {'conv1': 20, 'conv2': 25}",
  )
  run, agent = lived.run, lived.run.agent
  assert phases(lived) == [('pixels', 25, 15), ('latents', 61, 51)]
  assert 'freezing conv1 at agent step 20: as configured' in lived.errors
  assert 'freezing the encoder at agent step 25: as configured' in lived.errors
  assert list(frozen) == ['conv1', 'lower'] and has_learned(lived)
  for final, then in zip(agent.encoder.stages[0].get_weights(), frozen['conv1']):
    np.testing.assert_array_equal(final, then)
  acted = 15 * agent.costs(8, 4).act
  expected = 10 * update_flops(run, 0) + 5 * update_flops(run, 1) + acted
  assert int(lived.results[0]['flops']) == expected
  assert run.replay_config.latent_size == 5 * 5 * 4
  assert lived.info['latents'].signature.observation.shape[-2:] == (4, 100)
  assert [stage.name for stage in agent.encoder.stages if stage.trainable] == ['dense']
  assert steps(lived, 'Costs by agent_steps/frozen_layers') == [20, 40, 60]


def test_frozen_and_not_stored(live, frozen):
  lived = live('Experiment.store_latents = False')
  assert phases(lived) == [('pixels', 61, 51)]
  assert 'freezing conv1, conv2, dense at agent step 33: as configured' in lived.errors
  assert list(frozen) == ['conv1', 'conv2', 'dense'] and has_learned(lived)
  for stage in lived.run.agent.encoder.stages:
    for final, then in zip(stage.get_weights(), frozen[stage.name]):
      np.testing.assert_array_equal(final, then)
  assert lived.info['latents'].current_size == 0 < lived.info['pixels'].current_size
  acted = 51 * lived.run.agent.costs(8, 4).act
  expected = 23 * update_flops(lived.run, 0) + 28 * update_flops(lived.run, 3) + acted
  assert int(lived.results[0]['flops']) == expected


@pytest.mark.parametrize(
  'bindings, message',
  [
    (["Experiment.freeze_up_to = 'conv3'"], 'only above conv1, conv2, dense'),
    (["Experiment.freeze_up_to = 'critic1'"], 'Heads are above the last and always learn'),
    (
      [
        'Experiment.schedule_fn = @Progressive',
        "Progressive.freeze_at_agent_steps = {'conv1': 20, 'dense': 30}",
      ],
      r"skipped: \['conv2'\]",
    ),
    (['ControlEncoder.features = None'], 'bind ControlEncoder.features, such as 50'),
    (['RandomCrop.image_size = 6'], 'image size 6 is too small .* at least 7 pixels'),
  ],
)
def test_what_cannot_be_frozen_is_refused_before_the_run(build, bindings, message):
  with pytest.raises(ValueError, match=message), build(*bindings):
    pass
