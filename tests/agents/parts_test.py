"""Tests of SAC's parts together: each agent through the freeze, its passes, DrQ's averages."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from seer_tf.agents import augmentation, auxiliary, contrastive, reconstruction, sac
from seer_tf.networks import encoders, variables
from tests.agents import tiny_sac

CHAIN = augmentation.Chain(
  [
    functools.partial(augmentation.RandomCrop, 16),
    functools.partial(augmentation.RandomTranslate, 17),
    augmentation.RandomFlip,
    functools.partial(augmentation.Cutout, 2, 5),
  ]
)
AGENTS = {
  'rad': dict(augment=CHAIN),
  'curl': dict(auxiliary_fn=contrastive.Contrastive),
  'drq': dict(augment=augmentation.RandomShift(2), views=3, next_views=2),
  'sac_ae': dict(augment=augmentation.NoAugmentation(), auxiliary_fn=reconstruction.Reconstruction),
}


def learned(agent):
  """Copies of the auxiliary part's variables, of its two optimisers' states, and of the encoder."""
  agent_variables = {
    'part': agent._auxiliary.variables,
    'optimiser': agent._auxiliary_optimizer.variables(),
    'lower optimiser': agent._auxiliary_lower_optimizer.variables(),
    'lower': agent.lower.variables,
  }
  return {
    (name, i): variable.numpy().copy()
    for name, own in agent_variables.items()
    for i, variable in enumerate(own)
  }


def multiplications(graph):
  """MAC of each convolution and matrix product that a function's graph needs.

  Branches of a condition count once: which of them runs, and how often, is the caller's to know.
  """
  size = lambda x: x.shape.num_elements()
  # A convolution and its two gradients multiply the kernel at each pixel of the narrower image.
  kernel_and_narrow = {
    'Conv2D': lambda op: (op.inputs[1], op.outputs[0]),
    'Conv2DBackpropInput': lambda op: (op.inputs[1], op.inputs[2]),
    'Conv2DBackpropFilter': lambda op: (op.outputs[0], op.inputs[2]),
  }
  waiting, needed, found = [x.op for x in graph.outputs], set(), []
  waiting += graph.control_outputs
  while waiting:
    op = waiting.pop()
    if op in needed:
      continue
    needed.add(op)
    waiting += [x.op for x in op.inputs] + list(op.control_inputs)
    if op.type == 'MatMul':
      found.append(round(np.sqrt(np.prod([size(x) for x in (*op.inputs, *op.outputs)]))))
    elif op.type in kernel_and_narrow:
      kernel, narrow = kernel_and_narrow[op.type](op)
      found.append(size(kernel) * size(narrow) // narrow.shape[-1])
    for attribute in ('f', 'then_branch', 'else_branch'):
      if attribute in op.node_def.attr:
        name = op.get_attr(attribute).name
        found += multiplications(graph._get_function(name).graph)
  return found


@pytest.mark.parametrize('name', AGENTS)
def test_optimisers_have_their_state_before_the_first_update_and_nothing_moves(name):
  agent, rng = tiny_sac.make_agent(**AGENTS[name]), np.random.default_rng(0)
  state = lambda: [[v.numpy() for v in optimizer.variables()] for optimizer, _ in agent.optimizers]
  weights, part = tiny_sac.values(agent), [v.numpy() for v in agent._auxiliary.variables]
  agent.create_optimizer_variables()
  assert not tiny_sac.changed(weights, tiny_sac.values(agent))
  np.testing.assert_equal([v.numpy() for v in agent._auxiliary.variables], part)
  created = state()
  for own, (_, trained) in zip(created, agent.optimizers):
    assert len(own) == 2 * len(trained) + bool(trained)
    assert not any(np.any(values) for values in own)
  agent._train(tiny_sac.random_transition(rng))
  assert [len(own) for own in state()] == [len(own) for own in created]
  for own, (_, trained) in zip(state(), agent.optimizers):
    assert not trained or own[0] == 1


@pytest.mark.parametrize('name', AGENTS)
def test_through_the_freeze(name):
  """What learns and what does not in each phase, and FLOPs: those of the graph that runs."""
  agent = tiny_sac.make_agent(**AGENTS[name], actor_update_period=1, target_update_period=1)
  rng, costs = np.random.default_rng(0), agent.costs(tiny_sac.BATCH, stored_crops=2)
  pixels = tiny_sac.random_transition(rng)
  train = tf.function(agent._train)
  graph = train.get_concrete_function(pixels).graph
  assert 2 * sum(multiplications(graph)) == costs.update_from_pixels
  train(pixels)
  before, before_heads = learned(agent), tiny_sac.values(agent)
  train(pixels)
  after, after_heads = learned(agent), tiny_sac.values(agent)
  assert tiny_sac.changed(before, after) == set(before)  # all of it learns, while there are pixels
  assert tiny_sac.changed(before_heads, after_heads) == set(before_heads)
  assert bool(agent._auxiliary.variables) == (name in ('curl', 'sac_ae'))

  agent.freeze()
  encoded = lambda steps: steps._replace(observation=agent.encode_crops(steps.observation, 2)[:, 1])
  latents = pixels._replace(
    time_step=encoded(pixels.time_step), next_time_step=encoded(pixels.next_time_step)
  )
  graph = train.get_concrete_function(latents).graph
  assert 2 * sum(multiplications(graph)) == costs.update_from_latents
  train(latents)
  assert not tiny_sac.changed(after, learned(agent))
  moved = tiny_sac.changed(after_heads, tiny_sac.values(agent))
  heads = {network for network in tiny_sac.networks(agent) if 'lower' not in network}
  assert {network for network, _ in moved if network != 'target lower'} == heads


@pytest.mark.parametrize('frozen', [1, 2])
@pytest.mark.parametrize('name', AGENTS)
def test_flops_of_what_is_frozen_in_part_are_those_of_the_graph(name, frozen):
  """Of updates from pixels after some layers, and from latents of a cut above as many."""
  kwargs = dict(AGENTS[name], actor_update_period=1, target_update_period=1)
  agent, rng = tiny_sac.make_agent(**kwargs), np.random.default_rng(0)
  agent.freeze_layers(frozen)
  graph = tf.function(agent._train).get_concrete_function(tiny_sac.random_transition(rng)).graph
  costs = agent.costs(tiny_sac.BATCH, stored_crops=2)
  assert 2 * sum(multiplications(graph)) == costs.update_from_pixels

  agent = tiny_sac.make_agent(**kwargs, freeze_up_to=f'conv{frozen}')
  agent.freeze()
  latents = tiny_sac.random_transition(rng, agent.lower.latent_size)
  graph = tf.function(agent._train).get_concrete_function(latents).graph
  costs = agent.costs(tiny_sac.BATCH, stored_crops=2)
  assert 2 * sum(multiplications(graph)) == costs.update_from_latents


@pytest.mark.parametrize(
  'name, online, target', [('rad', 2, 1), ('curl', 2, 2), ('drq', 5, 2), ('sac_ae', 2, 1)]
)
def test_passes_of_the_convolutions(name, online, target, monkeypatch):
  """Images that each network's learning stages see in an update, in batches."""
  agent, rng = tiny_sac.make_agent(**AGENTS[name]), np.random.default_rng(0)
  seen = {agent.encoder: 0, agent.target_encoder: 0}
  for encoder, encode in [(encoder, encoder.encode_learning) for encoder in seen]:

    def counted(hidden, encoder=encoder, encode=encode):
      seen[encoder] += hidden.shape[0]
      return encode(hidden)

    monkeypatch.setattr(encoder, 'encode_learning', counted)
  agent._train(tiny_sac.random_transition(rng))
  batches = [images / tiny_sac.BATCH for images in seen.values()]
  assert batches == [online, target]


def test_costs_of_storing_follow_the_augmentation():
  costs = {
    name: tiny_sac.make_agent(**AGENTS[name]).costs(tiny_sac.BATCH, stored_crops=4)
    for name in ('curl', 'sac_ae')
  }
  assert costs['curl'].store == costs['curl'].convert > 0
  assert costs['sac_ae'].store == 0 < costs['sac_ae'].convert


def test_drq_targets_and_loss_against_numpy():
  agent, rng = tiny_sac.make_agent(), np.random.default_rng(3)
  for network in (agent._target_critic_network_1, agent._target_critic_network_2):
    for variable in network.variables:
      variable.assign_add(0.1 * tf.random.normal(variable.shape))
  # A nearly deterministic policy, the same everywhere, whose entropy is known.
  kernel, bias = agent._actor_network.trainable_variables[-2:]
  kernel.assign(tf.zeros_like(kernel))
  bias.assign([0.3, -20.0])
  entropy = np.log(np.sqrt(2 * np.pi * np.e)) - 10 + np.log(1 - np.tanh(0.3) ** 2)
  batch, size = tiny_sac.random_transition(rng), agent.lower.latent_size
  views, next_views = (rng.normal(size=[k, tiny_sac.BATCH, size]).astype('f') for k in (3, 4))
  flat = lambda x: tf.constant(x.reshape(-1, size))
  targets = agent._td_targets(batch.next_time_step, flat(next_views), views=4)

  reward, discount = (x.numpy() for x in batch.next_time_step[1:3])
  expected = np.zeros(tiny_sac.BATCH)
  q = lambda network, z, a: float(network((z[None], np.float32(a)[None]))[0][0])
  for b in range(tiny_sac.BATCH):
    for z in next_views[:, b]:
      value = min(
        q(network, z, np.tanh([0.3]))
        for network in (agent._target_critic_network_1, agent._target_critic_network_2)
      )
      expected[b] += (reward[b] + discount[b] * (value + 0.1 * entropy)) / 4
  # The log probability of a sampled action scatters about its mean by 0.7.
  np.testing.assert_allclose(targets, expected, atol=0.9 * 0.1 * 0.7 / 2 * 5)
  np.testing.assert_allclose(np.mean(targets - expected), 0, atol=0.05)

  weights = rng.uniform(size=tiny_sac.BATCH).astype(np.float32)
  action = batch.action_step.action
  loss = agent._critic_loss(flat(views), action, targets, tf.constant(weights), views=3).loss
  errors = [
    weights[b] * (q(network, z, action[b].numpy()) - float(targets[b])) ** 2
    for network in (agent._critic_network_1, agent._critic_network_2)
    for b in range(tiny_sac.BATCH)
    for z in views[:, b]
  ]
  np.testing.assert_allclose(loss, np.sum(errors) / (3 * tiny_sac.BATCH), rtol=1e-4)


def test_auxiliary_loss_sees_what_the_critic_saw_where_it_is_due():
  """Its latents are the encoder's of its images; its next latents and keys are the target's."""
  noted = []

  class Noting(auxiliary.Auxiliary):
    views = 2
    update_period = 2

    def __init__(self, lower):
      super().__init__(lower)
      self.scale = tf.Variable(1.0)

    def loss(self, latents, seen):
      noted.append((latents, seen))
      return self.scale * tf.reduce_sum(latents)

  agent, rng = tiny_sac.make_agent(auxiliary_fn=Noting), np.random.default_rng(0)
  online = encoders.ControlEncoder((tiny_sac.CROP,) * 2 + (3,), filters=(8, 8), features=10)
  variables.copy(agent.lower, online)
  for variable in agent.target_lower.variables:
    variable.assign_add(tf.random.normal(variable.shape))
  batch, image = tiny_sac.random_transition(rng), np.full([1, 18, 18, 3], 99, np.uint8)
  flat = tf.constant(np.repeat(image, tiny_sac.BATCH, axis=0))
  flat = batch._replace(next_time_step=batch.next_time_step._replace(observation=flat))
  expected = agent.target_lower(tf.constant(image[:, :15, :15]))[0, :10]
  agent._train(flat)
  ((latents, seen),) = noted
  np.testing.assert_allclose(latents, online(seen.images)[:, :10], rtol=1e-4)
  np.testing.assert_allclose(seen.next_latents, np.repeat([expected], 16, 0), rtol=1e-4)
  assert [keys.shape for keys in seen.keys] == [(16, 10)] * 2 and seen.transition is flat
  assert np.any(seen.keys[0] != seen.keys[1])
  assert agent._auxiliary.scale != 1.0
  agent._train(batch)
  assert len(noted) == 1
  agent._train(batch)
  assert len(noted) == 2


@pytest.mark.parametrize('name', ['translate', 'chain', 'shift'])
def test_both_observations_of_a_transition_augmented_alike_or_apart(name):
  """Of equal pixels, each view of o_{t+n} equals its view of o_t; other views and images differ."""
  augment = {
    'translate': augmentation.RandomTranslate(60),
    'chain': CHAIN,
    'shift': augmentation.RandomShift(9),
  }[name]
  batch = tiny_sac.random_transition(np.random.default_rng(0))
  same = np.repeat(batch.time_step.observation[:1], tiny_sac.BATCH, axis=0)
  batch = batch._replace(
    time_step=batch.time_step._replace(observation=tf.constant(same)),
    next_time_step=batch.next_time_step._replace(observation=tf.constant(same)),
  )
  make = lambda **kwargs: tiny_sac.make_agent(augment=augment, views=2, next_views=2, **kwargs)
  alike = make(augment_alike=True)
  images, next_images = (x.numpy() for x in alike._images(batch))
  assert images.shape == (2 * tiny_sac.BATCH, *augment.output_shape((tiny_sac.SIZE,) * 2 + (3,)))
  np.testing.assert_array_equal(images, next_images)
  distinct = np.unique(images.reshape(len(images), -1), axis=0)
  assert len(distinct) > len(images) / 2  # each image of a batch, and each view, on its own
  apart = [x.numpy() for x in make()._images(batch)]
  equal = np.all(apart[0] == apart[1], axis=(1, 2, 3))
  assert equal.mean() < 0.2
  before = tiny_sac.values(alike)
  alike._train(batch)
  assert tiny_sac.changed(before, tiny_sac.values(alike))
  latents = tiny_sac.random_transition(np.random.default_rng(0), alike.encoder.latent_size)
  for seen, own in zip(alike._images(latents), (latents.time_step, latents.next_time_step)):
    assert seen is own.observation


@pytest.mark.parametrize('next_views', [1, 2])
def test_each_key_is_of_a_crop_of_its_own_observation(next_views):
  agent, rng = (
    tiny_sac.make_agent(**AGENTS['curl'], next_views=next_views),
    np.random.default_rng(0),
  )
  for variable in agent.target_encoder.variables:
    variable.assign_add(tf.random.normal(variable.shape))
  batch = tiny_sac.random_transition(rng)
  observations, side = batch.time_step.observation, range(tiny_sac.SIZE - tiny_sac.CROP + 1)
  crops = [
    observations[:, top : top + tiny_sac.CROP, left : left + tiny_sac.CROP]
    for top in side
    for left in side
  ]
  possible = np.stack([agent.target_encoder(crop)[:, :10] for crop in crops], axis=1)
  _, next_images = agent._images(batch)
  _, (keys,) = agent._next_latents(next_images, observations, next_views)
  errors = np.abs(possible - keys.numpy()[:, np.newaxis]).max(axis=-1)
  assert np.all(errors.min(axis=1) < 1e-4)
  assert len(set(errors.argmin(axis=1))) > 3  # crops of different places


def test_alike_needs_as_many_views_of_both():
  with pytest.raises(ValueError, match='views is 1 and next_views 2: give the same number'):
    tiny_sac.make_agent(augment_alike=True, next_views=2)


@pytest.mark.parametrize(
  'name, number',
  [
    ('views', 0),
    ('views', 1.5),
    ('next_views', 0),
    ('actor_update_period', 0),
    ('target_update_period', 0),
  ],
)
def test_what_counts_nothing_is_refused(name, number):
  with pytest.raises(ValueError, match=f'{name} is {number}; give a whole number, at least 1'):
    tiny_sac.make_agent(**{name: number})


def test_a_loss_that_does_not_depend_on_the_latents_does_not_move_the_encoder():
  class Probing(auxiliary.Auxiliary):
    def __init__(self, lower):
      super().__init__(lower)
      self.kernel = tf.Variable(tf.ones([lower.features, 1]))

    def loss(self, latents, seen):
      return tf.reduce_mean(tf.matmul(tf.stop_gradient(latents), self.kernel) ** 2)

  agent = tiny_sac.make_agent(auxiliary_fn=Probing)
  agent._train(tiny_sac.random_transition(np.random.default_rng(0)))
  assert np.all(agent._auxiliary.kernel != 1)
  iterations, *moments = agent._auxiliary_lower_optimizer.variables()
  assert iterations == 1 and moments
  for moment in moments:
    np.testing.assert_array_equal(moment, 0)


@pytest.mark.parametrize('gradient', [1e-9, 1e-3])
def test_first_step_of_adam_against_numpy(gradient):
  variable = tf.Variable(0.0)
  sac.adam(1e-3, 0.5).apply_gradients([(tf.constant(gradient), variable)])
  rate = 1e-3 * np.sqrt(1 - 0.999) / (1 - 0.5)
  expected = -rate * 0.5 * gradient / (np.sqrt(0.001) * gradient + 1e-8)
  np.testing.assert_allclose(variable, expected, rtol=1e-3)
