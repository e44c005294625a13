"""Tests of a whole run, in this process, against a replay server in its own."""

import contextlib
import csv

import gin
import numpy as np
import pytest
import reverb
import tensorflow as tf

from seer_tf.freezing import freeze
from seer_tf.replay import codecs, keeper, messages, server, tables
from seer_tf.training import experiment, loop, records

FILES = ['tests/counting.gin']


def own_rows(address, config):
  """Every row of table `latents`, in the order of its items."""
  layout, spec = (
    config.latents_layout,
    tables.window_spec(config.latents_row, config.latents_layout),
  )
  client = reverb.Client(address)
  blocks = client.server_info(timeout=20)['latents'].current_size
  seen = {}
  dataset = tables.windows(address, 'latents', spec, max_in_flight=8, timeout_seconds=10)
  for sample in dataset.take(4000):
    window = tables.unpack(sample.data, config.latents_row)
    own = tables.Row(*(column.numpy()[: layout.block_length] for column in window))
    seen[int(sample.info.key)] = own
    if len(seen) == blocks:
      break
  assert len(seen) == blocks
  ordered = sorted(seen.values(), key=lambda own: own.number.max())
  rows = tables.Row(*(np.concatenate(column) for column in zip(*ordered)))
  real = rows.step_type != tables.PADDING
  return tables.Row(*(column[real] for column in rows))


def live(root, root_dir, bindings=()):
  """A run to its end, the run object, and the rows of latents that it left in replay."""
  with contextlib.ExitStack() as stack:
    stack.enter_context(pytest.MonkeyPatch.context()).chdir(root)
    stack.enter_context(gin.unlock_config())
    stack.callback(gin.clear_config)
    gin.clear_config()
    gin.parse_config_files_and_bindings(FILES, bindings)
    tf.keras.utils.set_random_seed(0)
    run = loop.Run(experiment.Experiment(), root_dir, seed=0)
    embedded = stack.enter_context(server.EmbeddedServer(FILES, bindings))
    client = server.connect(embedded.address, run.replay_config)
    table = run.run(embedded.address, client, embedded.check)
    rows = own_rows(embedded.address, run.replay_config)
    info = client.server_info(timeout=20)
    variables = messages.read(client)
  return dict(run=run, table=table, rows=rows, info=info, variables=variables, root_dir=root_dir)


@pytest.fixture(scope='module')
def lived(root, tmp_path_factory):
  return live(root, str(tmp_path_factory.mktemp('run')))


def test_every_agent_step_is_in_replay_exactly_once_and_in_order(lived):
  rows = lived['rows']
  acted = rows.step_type != 2
  np.testing.assert_array_equal(rows.reward[acted], np.arange(1, 62))


def test_episode_ends_are_kept(lived):
  rows = lived['rows']
  lengths, kinds, count = [], [], 0
  for step_type, discount, following in zip(
    rows.step_type, rows.discount, [*rows.step_type[1:], 0]
  ):
    if step_type == 2:
      lengths.append(count)
      count = 0
      continue
    assert (step_type == 0) == (count == 0)
    count += 1
    if following == 2:
      kinds.append(float(discount))
    else:
      assert discount == 1
  assert lengths == [3 + i % 6 for i in range(len(lengths))] and len(lengths) >= 10
  assert kinds == [float(i % 2 == 0) for i in range(len(kinds))]


def test_pixels_are_gone(lived):
  assert lived['info']['pixels'].current_size == 0
  assert lived['info']['drain'].current_size == 0


def published_codec(lived):
  """A codec from what the run published, which knows nothing of the run's own."""
  codec = codecs.Uint8((4, lived['run'].agent.lower.latent_size))
  codec.restore(lived['variables'].codec)
  return codec


def test_phase_and_fingerprint_are_published(lived):
  variables, agent = lived['variables'], lived['run'].agent
  assert variables.phase == freeze.Phase.LATENTS
  codec = published_codec(lived)
  fingerprint = freeze.of_latents(freeze.fingerprint(agent.lower), codec.digest)
  assert variables.fingerprint == fingerprint
  assert variables.agent_steps == 61
  assert variables.updates == 51


def test_stored_latents_are_crops_under_the_frozen_weights(lived):
  """Frames are of one colour each, so every crop of a stack has the same latents."""
  run, rows = lived['run'], lived['rows']
  shown, stack = [], []
  for i, step_type in enumerate(rows.step_type):
    frame = (i - np.sum(rows.step_type[:i] == 2)) % 251
    stack = [frame] * 3 if step_type == 0 else [*stack[1:], frame]
    shown.append(np.repeat(stack, 3))
  pixels = np.tile(np.array(shown, np.uint8)[:, None, None], [1, 15, 15, 1])
  expected = np.stack([run.agent.lower(tf.constant(pixels)).numpy()] * 4, axis=1)
  codec = published_codec(lived)
  error = np.abs(codec.decode(tf.constant(rows.observation)).numpy() - expected)
  assert (error <= codec.error_bound(expected) + 2e-4).all()
  assert np.median(codec.error_bound(expected)) < 0.05 * expected.std()


def test_results_name_the_clocks(lived):
  with open(f'{lived["root_dir"]}/results.csv', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  clocks = [tuple(int(row[c]) for c in ('env_frames', 'agent_steps', 'updates')) for row in rows]
  assert clocks == [(33, 33, 23), (61, 61, 51)]


def test_a_budget_is_kept_to_through_the_switch(root, tmp_path):
  """Frames of 12 kB of noise: half of the pixels fit, and all latents."""
  budget = 20_000_000
  bindings = [
    f'replay_budget = {budget}',
    'counting.size = 64',
    'counting.noise = True',
    'Experiment.total_agent_steps = 3300',
    'Experiment.initial_random_agent_steps = 3000',
    'AtStep.freeze_at_agent_steps = 3100',
  ]
  run = live(root, str(tmp_path), bindings)
  shown, topic = records.scalars(tmp_path / 'train'), 'Replay by agent_steps'
  held, used = dict(shown[f'{topic}/steps_held']), dict(shown[f'{topic}/used_bytes'])
  # While random actions race ahead rows of a quarter of a second come on top; later windows on
  # their way do.
  assert used[3080] < budget + keeper.BUFFER_BYTES < 3080 * 64 * 64 * 3
  assert used[3300] < budget
  assert 500 < held[3080] < budget / (64 * 64 * 3) < 3080
  assert held[3300] > held[3100]
  numbers = run['rows'].number
  np.testing.assert_array_equal(numbers, np.arange(numbers[0], numbers[0] + len(numbers)))
  acted = run['rows'].step_type != 2
  assert run['rows'].reward[acted][-1] == 3300
  assert set(dict(shown[f'{topic}/budget_bytes']).values()) == {budget}
  assert f'{budget / 1e6:,.1f}' in run['table'].split('replay MB it may use')[1].split()
