"""Tests of the DQN family on a split encoder, with real updates."""

import functools
import itertools

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.policies import greedy_policy, policy_saver
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.trajectories import time_step as ts

from seer_tf.agents import augmentation, dqn, sac
from seer_tf.freezing import freeze
from seer_tf.networks import atari_encoders, q_heads, variables
from seer_tf.replay import tables, transitions
from tests.environments import rooms

SIZE, GAMMA = rooms.SIZE, rooms.GAMMA
BATCH, ACTIONS, ATOMS = 16, 3, 5
TIME_STEPS = ts.time_step_spec(tensor_spec.BoundedTensorSpec([SIZE, SIZE, 1], tf.uint8, 0, 255))
ACTION = tensor_spec.BoundedTensorSpec([], tf.int64, 0, ACTIONS - 1)
# double, dueling, noisy, categorical
VARIANTS = list(itertools.product([False, True], repeat=4))


class RecordingHead(q_heads.QHead):
  """Keeps each draw of its weights, so that a test can compute with the very same ones."""

  def __init__(self, actions, hidden, dueling, noise_sigma, atoms, v_min, v_max, name):
    super().__init__(actions, hidden, dueling, noise_sigma, atoms, v_min, v_max, name)
    self.drawn = []

  def weights_draw(self):
    self.drawn.append(super().weights_draw())
    return self.drawn[-1]


def make_agent(
  double=True, dueling=True, noisy=True, categorical=True, sigma=0.1, actions=ACTIONS, atoms=ATOMS,
  head=q_heads.QHead, span=(-1.0, 2.0), augment=augmentation.NoAugmentation, **kwargs
):  # fmt: skip
  tf.keras.utils.set_random_seed(1)
  agent = dqn.SeerDqnAgent(
    TIME_STEPS,
    tensor_spec.BoundedTensorSpec([], tf.int64, 0, actions - 1),
    lower_fn=functools.partial(
      atari_encoders.DataEfficientEncoder, (SIZE, SIZE, 1), layers=((8, 4, 4), (8, 2, 1))
    ),
    augmentation=augment(),
    head_fn=functools.partial(
      head,
      hidden=32,
      dueling=dueling,
      noise_sigma=sigma if noisy else 0.0,
      atoms=atoms if categorical else None,
      v_min=span[0],
      v_max=span[1],
    ),
    double=double,
    train_step_counter=tf.Variable(0, dtype=tf.int64),
    **kwargs,
  )
  agent.initialize()
  return agent


def random_transition(rng, latent_size=None):
  def step():
    if latent_size:
      observation = rng.normal(size=[BATCH, latent_size]).astype(np.float32)
    else:
      observation = rng.integers(0, 256, [BATCH, SIZE, SIZE, 1], dtype=np.uint8)
    reward, discount = rng.uniform(-2, 2, BATCH), rng.choice([0.0, 0.5, 0.9], BATCH)
    return ts.TimeStep(
      tf.ones([BATCH], tf.int32),
      tf.constant(reward, tf.float32),
      tf.constant(discount, tf.float32),
      tf.constant(observation),
    )

  action = policy_step.PolicyStep(tf.constant(rng.integers(0, ACTIONS, BATCH)), (), ())
  return trajectory.Transition(step(), action, step())


def values(agent):
  """Copies of all variables, by network and name."""
  networks = {
    'lower': agent.lower,
    'target lower': agent.target_lower,
    'head': agent._q_network,
    'target head': agent._target_q_network,
  }
  return {
    (network, name): variable.numpy()
    for network, module in networks.items()
    for name, variable in variables.by_name(module).items()
  }


def changed(before, after):
  return {key for key in before if not np.array_equal(before[key], after[key])}


def perturb(network, scale=0.3):
  for variable in network.variables:
    variable.assign_add(scale * tf.random.normal(variable.shape))


# Losses against brute force.


def outputs(weights, latent, dueling, atoms):
  """Outputs [actions][atoms] of one latent under the given weights."""

  def stream(layers):
    (kernel, bias), (kernel_2, bias_2) = [[w.numpy() for w in layer] for layer in layers]
    return (np.maximum(latent @ kernel + bias, 0) @ kernel_2 + bias_2).reshape(-1, atoms)

  if not dueling:
    return stream(weights[0])
  value, advantage = stream(weights[0]), stream(weights[1])
  return [value[0] + row - sum(advantage) / len(advantage) for row in advantage]


def softmax(logits):
  weights = np.exp(logits - np.max(logits))
  return weights / weights.sum()


def project(support, reward, discount, probabilities):
  """Equation (7) of Bellemare et al. 2017: each atom's mass goes to its two neighbours."""
  projected = np.zeros(len(support))
  spacing = support[1] - support[0]
  for atom, probability in zip(support, probabilities):
    place = (np.clip(reward + discount * atom, support[0], support[-1]) - support[0]) / spacing
    below = min(int(place), len(support) - 2)
    projected[below] += probability * (below + 1 - place)
    projected[below + 1] += probability * (place - below)
  return projected


def expected_losses(agent, batch, double, dueling, categorical):
  """(td_loss, td_error) of each example, in loops; weights as the update drew them."""
  support = np.linspace(-1, 2, ATOMS) if categorical else np.zeros(1)
  online, target = (net.drawn[-1] for net in (agent._q_network, agent._target_q_network))
  q = lambda rows: [softmax(r) @ support if categorical else r[0] for r in rows]
  losses, errors = [], []
  for i in range(BATCH):
    z, next_z = (s.observation[i].numpy() for s in (batch.time_step, batch.next_time_step))
    reward, discount = (float(batch.next_time_step[k][i]) for k in (1, 2))
    run = lambda weights, latent: outputs(weights, latent, dueling, len(support))
    row = run(online, z)[int(batch.action_step.action[i])]
    next_rows = run(target, next_z)
    next_row = next_rows[np.argmax(q(run(online, next_z) if double else next_rows))]
    if categorical:
      m = project(support, reward, discount, softmax(next_row))
      losses.append(-m @ np.log(softmax(row)))
      errors.append(sum(p * np.log(p / o) for p, o in zip(m, softmax(row)) if p > 0))
    else:
      error = reward + discount * next_row[0] - row[0]
      losses.append(0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5)
      errors.append(error)
  return np.array(losses), np.array(errors)


@functools.cache
def recording_agent(*variant):
  agent = make_agent(*variant, sigma=0.5, head=RecordingHead)
  agent.freeze()  # so that it takes latents
  return agent


@hypothesis.given(st.sampled_from(VARIANTS), st.integers(0, 2**31), st.booleans())
def test_losses_against_brute_force(variant, seed, weighted):
  agent, rng = recording_agent(*variant), np.random.default_rng(seed)
  tf.random.set_seed(seed)
  for variable in (*agent._q_network.variables, *agent._target_q_network.variables):
    variable.assign(0.3 * tf.random.normal(variable.shape))
  batch = random_transition(rng, agent.lower.latent_size)
  weights = rng.uniform(0, 1, BATCH).astype(np.float32) if weighted else None
  draws = lambda: (len(agent._q_network.drawn), len(agent._target_q_network.drawn))
  before = draws()
  info = agent.loss(batch, weights=weights)
  assert draws() == (before[0] + 1, before[1] + 1)  # noise is drawn once per network and update
  losses, errors = expected_losses(agent, batch, variant[0], variant[1], variant[3])
  np.testing.assert_allclose(info.extra.td_loss, losses, rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(info.extra.td_error, errors, rtol=1e-3, atol=1e-4)
  mean = np.mean(losses if weights is None else weights * losses)
  np.testing.assert_allclose(info.loss, mean, rtol=1e-3, atol=1e-4)


@hypothesis.given(
  st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=3),
  st.sampled_from([0.0, 0.5, 0.99, 1.0]),
  st.integers(0, 2**31),
)
def test_projection_keeps_mass_and_inside_the_support_the_mean(rewards, discount, seed):
  """What the brute force above is held to: it is a projection."""
  support = np.linspace(-1, 2, ATOMS)
  for reward in rewards:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(ATOMS))
    projected = project(support, reward, discount, probabilities)
    clipped = np.clip(reward + discount * support, -1, 2)
    np.testing.assert_allclose(projected.sum(), 1)
    np.testing.assert_allclose(projected @ support, probabilities @ clipped, atol=1e-9)


def test_double_argmax_is_the_online_networks():
  """The online head prefers action 2 and the target 0; each values its own choice most."""
  for double, expected in ((True, 1.0), (False, 3.0)):
    agent = make_agent(double, dueling=False, noisy=False, categorical=False)
    agent.freeze()
    size = agent.lower.latent_size
    for network, bias in ((agent._q_network, [0, 0, 9]), (agent._target_q_network, [3, 2, 1])):
      for variable in network.variables:
        variable.assign(tf.zeros_like(variable))
      variables.by_name(network)['q_output/bias'].assign(np.float32(bias))
    batch = random_transition(np.random.default_rng(0), size)
    target = batch.next_time_step.reward + batch.next_time_step.discount * expected
    q = np.where(batch.action_step.action == 2, 9.0, 0.0)
    np.testing.assert_allclose(agent.loss(batch).extra.td_error, target - q, rtol=1e-5)


def test_each_lower_encoder_feeds_its_own_head():
  agent = make_agent(double=True, noisy=False)
  perturb(agent.target_lower)
  pixels = random_transition(np.random.default_rng(0)).next_time_step.observation
  chooses, judges = agent._next_latents(pixels)
  np.testing.assert_array_equal(chooses, agent.lower(pixels))
  np.testing.assert_array_equal(judges, agent.target_lower(pixels))
  single = make_agent(double=False, noisy=False)
  perturb(single.target_lower)
  np.testing.assert_array_equal(single._next_latents(pixels)[0], single.target_lower(pixels))


class Negative(augmentation.NoAugmentation):
  """Changes every image, but nothing by chance."""

  random = True

  def augment(self, images):
    return 255 - images


def test_pixels_of_both_ends_of_a_transition_are_augmented():
  agent = make_agent(double=True, noisy=False, augment=Negative)
  perturb(agent.target_lower)
  pixels = random_transition(np.random.default_rng(0)).next_time_step.observation
  np.testing.assert_array_equal(agent._latents(pixels), agent.lower(255 - pixels))
  chooses, judges = agent._next_latents(pixels)
  np.testing.assert_array_equal(chooses, agent.lower(255 - pixels))
  np.testing.assert_array_equal(judges, agent.target_lower(255 - pixels))


def test_huber_loss_has_the_squared_one_as_its_limit():
  errors = tf.constant([-3.0, -0.5, 0.0, 1.0, 2.0])
  np.testing.assert_allclose(dqn.huber(errors, 1.0), [2.5, 0.125, 0.0, 0.5, 1.5])
  np.testing.assert_allclose(dqn.huber(errors, None), dqn.huber(errors, 100.0))


def test_gradient_norm_is_clipped_over_lower_encoder_and_head_together():
  """Adam would hide it: plain descent at rate 1 moves by exactly the clipped gradient."""
  agent = make_agent(noisy=False, gradient_norm=0.01)
  agent._lower_optimizer = tf.keras.optimizers.legacy.SGD(1.0)
  agent._optimizer = tf.keras.optimizers.legacy.SGD(1.0)
  before = values(agent)
  agent.train(random_transition(np.random.default_rng(0)))
  after = values(agent)
  step = {key: after[key] - before[key] for key in before if 'target' not in key[0]}
  norm = lambda network: sum(np.sum(v**2) for key, v in step.items() if key[0] == network) ** 0.5
  assert norm('lower') > 0 and norm('head') > 0
  np.testing.assert_allclose(np.hypot(norm('lower'), norm('head')), 0.01, rtol=1e-3)


# Cadence and freeze.


def test_target_is_copied_whole_every_period():
  agent, rng = make_agent(target_update_period=3), np.random.default_rng(0)
  train = tf.function(agent.train)
  for update in range(1, 7):
    before = values(agent)
    train(random_transition(rng))
    after = values(agent)
    moved = changed(before, after)
    online = {key for key in before if 'target' not in key[0]}
    assert online <= moved
    if update % 3:
      assert moved == online
    else:
      for network, name in online:
        np.testing.assert_array_equal(after[network, name], after[f'target {network}', name])


@pytest.fixture(scope='module')
def frozen():
  """An agent that trained from pixels, froze, and trained from latents: its variables at each."""
  agent, rng = make_agent(target_update_period=7), np.random.default_rng(0)
  train = tf.function(agent.train)
  for _ in range(5):
    train(random_transition(rng))
  before = values(agent)
  fingerprint = agent.freeze()
  at_freeze = values(agent)
  train = tf.function(agent.train)
  for _ in range(100):
    train(random_transition(rng, agent.lower.latent_size))
  return dict(
    agent=agent, before=before, at_freeze=at_freeze, after=values(agent), fingerprint=fingerprint
  )


def test_freeze_copies_the_online_encoder_to_the_target_layer_by_layer(frozen):
  assert any('lower' in network for network, _ in changed(frozen['before'], frozen['at_freeze']))
  for (network, name), value in frozen['at_freeze'].items():
    source = network.replace('target lower', 'lower')
    np.testing.assert_array_equal(value, frozen['before'][source, name], err_msg=name)


def test_frozen_weights_are_bit_identical_after_100_updates_and_both_heads_learn(frozen):
  lower = {key for key in frozen['at_freeze'] if 'lower' in key[0]}
  moved = changed(frozen['at_freeze'], frozen['after'])
  assert not moved & lower
  assert moved == set(frozen['at_freeze']) - lower
  assert freeze.fingerprint(frozen['agent'].lower) == frozen['fingerprint']
  assert freeze.fingerprint(frozen['agent'].target_lower) == frozen['fingerprint']


# Acting.


def test_noise_in_exploration_and_none_in_evaluation():
  agent = make_agent(sigma=5.0, evaluation_epsilon=0.0)
  pixels = random_transition(np.random.default_rng(0)).time_step.observation
  time_step = ts.restart(pixels, batch_size=BATCH)
  actions = lambda policy: {tuple(policy.action(time_step).action.numpy()) for _ in range(20)}
  assert len(actions(agent.collect_policy)) > 2
  greedy = np.argmax(agent._q_network(agent.lower(pixels))[0], axis=-1)
  assert actions(agent.policy) == {tuple(greedy)}


def test_epsilon_falls_with_agent_steps():
  epsilons = [float(dqn.linear_epsilon(t, 1.0, 0.1, 100)) for t in (0, 50, 100, 1000)]
  np.testing.assert_allclose(epsilons, [1.0, 0.55, 0.1, 0.1], rtol=1e-5)
  agent = make_agent(noisy=False, initial_epsilon=1.0, epsilon_decay_agent_steps=100)
  pixels = tf.zeros([900, SIZE, SIZE, 1], tf.uint8)
  time_step = ts.restart(pixels, batch_size=900)
  act = tf.function(lambda: agent.collect_policy.action(time_step).action)
  greedy = int(np.argmax(agent._q_network(agent.lower(pixels[:1]))[0]))
  for agent_steps, others in ((0, 2 / 3), (50, 1 / 3), (100, 0.0), (101, 0.0)):
    agent.agent_steps.assign(agent_steps)
    share = np.mean(act().numpy() != greedy)
    assert abs(share - others) <= 5 * (others / 900) ** 0.5


def test_storing_policy_encodes_once_and_stores_what_it_acts_on():
  agent, calls = make_agent(), []
  lower = agent.lower

  class Counting(tf.keras.Model):
    latent_size = lower.latent_size

    def call(self, pixels):
      calls.append(pixels.shape[0])
      return lower(pixels)

  agent.lower = Counting()
  pixels = random_transition(np.random.default_rng(0)).time_step.observation
  step = agent.storing_policy(1).action(ts.restart(pixels, batch_size=BATCH))
  assert calls == [BATCH]
  np.testing.assert_array_equal(step.info[:, 0], lower(pixels))
  np.testing.assert_allclose(agent.encode_crops(pixels, 1), step.info, rtol=1e-5, atol=1e-6)


def test_saved_policy_acts_on_pixels(tmp_path):
  agent = make_agent(evaluation_epsilon=0.0)
  # As a run saves it.
  greedy = greedy_policy.GreedyPolicy(agent.policy)
  policy_saver.PolicySaver(greedy, batch_size=None).save(str(tmp_path))
  loaded = tf.saved_model.load(str(tmp_path))
  pixels = random_transition(np.random.default_rng(0)).time_step.observation
  time_step = ts.restart(pixels, batch_size=BATCH)
  expected = agent.policy.action(time_step).action
  np.testing.assert_array_equal(loaded.action(time_step, ()).action, expected)


def test_costs_of_the_published_network_by_hand():
  agent = make_agent()
  conv1, conv2 = 3 * 3 * 8 * 16, 2 * 2 * 8 * 8 * 4
  hidden, latents = 32, 2 * 2 * 8
  head = 2 * latents * hidden + hidden * ATOMS + hidden * ATOMS * ACTIONS
  costs = agent.costs(batch_size=4, stored_crops=1)
  encode = conv1 + conv2
  assert (costs.act, costs.store, costs.convert) == (2 * (encode + head), 0, 2 * encode)
  below = 5 * encode - conv1
  assert costs.update_from_pixels == 2 * 4 * (below + 5 * head)
  assert costs.update_from_latents == 2 * 4 * (5 * head - 2 * latents * hidden)


# Bad input.


def test_the_agent_that_fits_the_actions_is_named():
  builders = dict(lower_fn=None, augmentation=augmentation.NoAugmentation())
  continuous = tensor_spec.BoundedTensorSpec([1], tf.float32, -1, 1)
  with pytest.raises(ValueError, match='SeerDqnAgent needs one discrete action.*@SeerSacAgent'):
    dqn.SeerDqnAgent(TIME_STEPS, continuous, **builders)
  with pytest.raises(ValueError, match='SeerSacAgent needs continuous actions.*@SeerDqnAgent'):
    sac.SeerSacAgent(TIME_STEPS, ACTION, **builders)


# A task whose values are known.


def window(room, action):
  """Rows of an episode that begins in one of the rooms with an action, and goes on as is best."""
  rows = []
  while room < 3:
    ends = rooms.is_left(room, action)
    kind = ts.StepType.MID if rows else ts.StepType.FIRST
    rows.append((rooms.FRAMES[room], action, rooms.PAYS[room, action], float(not ends), kind))
    room, action = 3 if ends else room + 1, 1
  rows.append((rooms.FRAMES[0], 0, 0.0, 0.0, ts.StepType.LAST))
  rows += [(rooms.FRAMES[0], 0, 0.0, 0.0, tables.PADDING)] * (5 - len(rows))
  return [np.stack(column) for column in zip(*rows)]


def windows():
  """Windows that begin with each action in each room, [6, 5, ...]."""
  every = [window(room, action) for room in range(3) for action in range(2)]
  columns = [np.stack(column) for column in zip(*every)]
  kinds = [np.uint8, np.int64, np.float32, np.float32, np.int32]
  numbers = tf.zeros(columns[-1].shape, tf.int64)
  return tables.Row(*(tf.constant(c.astype(k)) for c, k in zip(columns, kinds)), numbers)


@pytest.mark.parametrize(
  'double, dueling, noisy, categorical, n_step',
  [(*variant, 1) for variant in VARIANTS] + [(False,) * 4 + (3,), (True,) * 4 + (3,)],
)
def test_every_variant_solves_a_known_task_from_pixels_and_goes_on_from_latents(
  double, dueling, noisy, categorical, n_step
):
  agent = make_agent(
    double, dueling, noisy, categorical, actions=2, atoms=11, span=(-1.0, 2.0),
    learning_rate=3e-3, target_update_period=10, evaluation_epsilon=0.0,
  )  # fmt: skip
  unlearned = {name: v.numpy() for name, v in variables.by_name(agent._q_network).items()}
  pixels = windows()
  begin = tf.zeros([BATCH], tf.int32)

  def worst_error():
    q = agent._q_network(agent.lower(tf.constant(rooms.FRAMES)))[0]
    return np.abs(q - rooms.OPTIMAL).max()

  def solve(rows, build, updates):
    @tf.function
    def learn():
      for _ in tf.range(updates):
        index = tf.random.uniform([BATCH], 0, 6, tf.int32)
        batch, valid = build(tables.Row(*(tf.gather(column, index) for column in rows)))
        tf.debugging.assert_equal(valid, True)
        agent.train(batch)

    assert worst_error() > 0.3
    learn()
    assert worst_error() < 0.12
    policy = agent.policy.action(ts.restart(tf.constant(rooms.FRAMES), batch_size=3))
    assert policy.action.numpy().tolist() == [1, 1, 1]

  solve(pixels, lambda rows: transitions.pixels_transition(rows, begin, 1, n_step, GAMMA), 400)
  agent.freeze()
  for name, variable in variables.by_name(agent._q_network).items():
    variable.assign(unlearned[name])  # forget, and learn again
  flat = tf.reshape(pixels.observation, [-1, SIZE, SIZE, 1])
  latents = tf.reshape(agent.encode_crops(flat, 1), [6, 5, 1, -1])
  solve(
    pixels._replace(observation=latents),
    lambda rows: transitions.latents_transition(rows, begin, n_step, GAMMA),
    400,
  )


def test_optimisers_have_their_state_before_the_first_update_and_nothing_moves():
  agent = make_agent()
  before = values(agent)
  agent.create_optimizer_variables()
  assert not changed(before, values(agent))
  count = lambda: [len(optimizer.variables()) for optimizer, _ in agent.optimizers]
  assert count() == [1 + 2 * len(trained) for _, trained in agent.optimizers]
  agent.train(random_transition(np.random.default_rng(0)))
  assert count() == [1 + 2 * len(trained) for _, trained in agent.optimizers]
  assert all(optimizer.iterations == 1 for optimizer, _ in agent.optimizers)
