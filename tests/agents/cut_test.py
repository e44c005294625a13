"""Tests of the cut at any layer of any encoder, and of layers that freeze one after another."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.trajectories import time_step as ts

from seer_tf.agents import augmentation, contrastive, dqn, sac
from seer_tf.networks import atari_encoders, encoders, heads, q_heads, residual_encoders, variables
from seer_tf.replay import codecs

BATCH, CHANNELS, ACTIONS = 4, 2, 3
# Name -> class, image size, arguments, layers.
ENCODERS = {
  'control': (encoders.ControlEncoder, 15, dict(filters=(4, 4)), ['conv1', 'conv2']),
  'nature': (
    atari_encoders.NatureEncoder,
    36,
    dict(layers=((4, 8, 4), (4, 4, 2), (4, 3, 1))),
    ['conv1', 'conv2', 'conv3'],
  ),
  'data-efficient': (
    atari_encoders.DataEfficientEncoder,
    25,
    dict(layers=((4, 5, 5), (4, 5, 5))),
    ['conv1', 'conv2'],
  ),
  'impala': (
    residual_encoders.ImpalaEncoder,
    10,
    dict(filters=(4, 4), blocks=1),
    ['stage1', 'stage2'],
  ),
}
CUTS = [
  (kind, name, layer)
  for kind, top in (('sac', ['dense']), ('dqn', []))
  for name, (*_, layers) in ENCODERS.items()
  for layer in layers + top
]


def make_agent(kind, name, freeze_up_to=None, **kwargs):
  tf.keras.utils.set_random_seed(1)
  encoder, size, arguments, _ = ENCODERS[name]
  shape = (size, size, CHANNELS)
  parts = dict(augmentation=augmentation.NoAugmentation(), freeze_up_to=freeze_up_to, **kwargs)
  parts['train_step_counter'] = tf.Variable(0, dtype=tf.int64)
  lower_fn = functools.partial(encoder, shape, **arguments)
  time_steps = ts.time_step_spec(tensor_spec.BoundedTensorSpec(shape, tf.uint8, 0, 255))
  if kind == 'sac':
    agent = sac.SeerSacAgent(
      time_steps,
      tensor_spec.BoundedTensorSpec([1], tf.float32, -1, 1),
      lower_fn=functools.partial(lower_fn, features=3),
      critic_fn=functools.partial(heads.critic_head, hidden=(8,)),
      actor_fn=functools.partial(heads.actor_head, hidden=(8,)),
      **parts,
    )
  else:
    agent = dqn.SeerDqnAgent(
      time_steps,
      tensor_spec.BoundedTensorSpec([], tf.int64, 0, ACTIONS - 1),
      lower_fn=functools.partial(lower_fn, features=None),
      head_fn=functools.partial(q_heads.QHead, hidden=8),
      **parts,
    )
  agent.initialize()
  return agent


def observations(rng, agent):
  shape = [BATCH, *agent.encoder.image_shape]
  return tf.constant(rng.integers(0, 256, shape, dtype=np.uint8))


def some_actions(rng, agent):
  if agent.action_spec.dtype.is_integer:
    return tf.constant(rng.integers(0, ACTIONS, BATCH))
  return tf.constant(rng.uniform(-1, 1, [BATCH, 1]).astype(np.float32))


def transition(rng, agent, encode=tf.identity):
  def step():
    reward = tf.constant(rng.uniform(-1, 1, BATCH), tf.float32)
    discount = tf.fill([BATCH], 0.9)
    seen = encode(observations(rng, agent))
    return ts.TimeStep(tf.ones([BATCH], tf.int32), reward, discount, seen)

  return trajectory.Transition(
    step(), policy_step.PolicyStep(some_actions(rng, agent), (), ()), step()
  )


def values(*networks):
  """Copies of networks' variables, by name."""
  return [{n: v.numpy() for n, v in variables.by_name(net).items()} for net in networks]


def changed_stages(agent, before):
  """Names of the stages of the online and of the target encoder of which any weight changed."""
  return [
    {name.split('/')[0] for name in was if np.any(was[name] != now[name])}
    for was, now in zip(before, values(agent.encoder, agent.target_encoder))
  ]


@pytest.mark.parametrize('kind, name, layer', CUTS)
def test_q_values_and_actions_are_the_same_before_and_after_the_switch(kind, name, layer):
  agent, rng = make_agent(kind, name, layer), np.random.default_rng(0)
  agent.train(transition(rng, agent))
  pixels, actions = observations(rng, agent), some_actions(rng, agent)
  before = agent.q_values(agent._latents(pixels), actions)
  agent.freeze()
  latents = agent.encode_crops(pixels, 1).numpy()
  assert latents.shape == (BATCH, 1, agent.lower.latent_size)
  codec = codecs.Float32(latents.shape[1:])
  replayed = codec.decode(tf.constant(codec.encode(latents)[:, 0]))
  after = agent.q_values(agent._latents(replayed), actions)
  np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
  step = agent.storing_policy(1).action(ts.restart(pixels, batch_size=BATCH))
  np.testing.assert_allclose(step.info, latents, rtol=1e-5, atol=1e-6)
  greedy = agent.greedy_actions(agent._latents(replayed))
  np.testing.assert_allclose(greedy, agent.greedy_actions(agent.encoder(pixels)), rtol=1e-5)


@pytest.mark.parametrize('kind, name, layer', CUTS)
def test_what_is_above_the_cut_goes_on_learning_from_latents(kind, name, layer):
  agent, rng = make_agent(kind, name, layer, target_update_period=1), np.random.default_rng(0)
  agent.train(transition(rng, agent))
  agent.freeze()
  before = values(agent.encoder, agent.target_encoder)
  encode = lambda pixels: agent.encode_crops(pixels, 1)[:, 0]
  for _ in range(2):
    agent.train(transition(rng, agent, encode))
  names = [stage.name for stage in agent.encoder.stages]
  above = set(names[names.index(layer) + 1 :])
  assert changed_stages(agent, before) == [above, above]
  assert {stage.name for stage in agent.upper.stages} == above


@pytest.mark.parametrize('frozen', [0, 1, 2])
def test_the_actors_loss_reaches_no_convolution_above_the_cut(frozen):
  agent, rng = make_agent('sac', 'control'), np.random.default_rng(0)
  agent.freeze_layers(frozen)
  with tf.GradientTape() as tape:
    half = agent._latents(observations(rng, agent))[:, agent.encoder.features :]
    loss = tf.reduce_sum(half**2)
  learning = agent.encoder.trainable_variables
  gradients = zip(learning, tape.gradient(loss, learning))
  reached = {v.name for v, gradient in gradients if gradient is not None and np.any(gradient)}
  assert reached == {v.name for v in agent.encoder.actor_variables}


def conv_ops(function, *arguments):
  """Convolutions in the graph of an update: (forward, gradients of their weights)."""
  operations = function.get_concrete_function(*arguments).graph.get_operations()
  kinds = [operation.type for operation in operations]
  return kinds.count('Conv2D'), kinds.count('Conv2DBackpropFilter')


# Convolutions in each stage.
@pytest.mark.parametrize(
  'kind, name, convolutions', [('sac', 'control', [1, 1, 0]), ('dqn', 'impala', [3, 3])]
)
def test_each_layer_that_freezes_is_neither_trained_nor_run_back(kind, name, convolutions):
  agent, rng = make_agent(kind, name, target_update_period=1), np.random.default_rng(0)
  names = [stage.name for stage in agent.encoder.stages]
  for frozen in range(len(names) + 1):
    agent.freeze_layers(frozen)
    assert int(agent.frozen_layers) == frozen
    below = slice(0, frozen)
    for stage, target in zip(agent.encoder.stages[below], agent.target_encoder.stages[below]):
      for variable, twin in variables.pair(stage, target):
        np.testing.assert_array_equal(variable, twin)
    before = values(agent.encoder, agent.target_encoder)
    for _ in range(2):
      agent.train(transition(rng, agent))
    assert changed_stages(agent, before) == [set(names[frozen:])] * 2
    if frozen == 1:
      still, learning = convolutions[0], sum(convolutions[1:])
      # A frozen one once over o_t and over o_{t+n}; others besides by the target over o_{t+n}.
      count = conv_ops(tf.function(agent.train), transition(rng, agent))
      assert count == (2 * still + 3 * learning, learning)


@pytest.mark.parametrize(
  'kind, name, kwargs',
  [
    ('dqn', 'nature', dict(gradient_norm=None)),
    ('sac', 'control', dict(actor_update_period=1, auxiliary_fn=contrastive.Contrastive)),
  ],
)
def test_layers_that_go_on_keep_their_optimisers_state(kind, name, kwargs):
  """Two agents learn alike; in one the first layer freezes, and the others do not notice."""
  agents = [make_agent(kind, name, **kwargs) for _ in range(2)]
  batches = [transition(np.random.default_rng(i), agents[0]) for i in range(4)]
  for agent in agents:
    tf.random.set_seed(2)
    for batch in batches[:3]:
      agent.train(batch)
    variables.copy(agent.encoder.stages[0], agent.target_encoder.stages[0])
  agents[1].freeze_layers(1)
  before = learned(agents[1])
  for agent in agents:
    tf.random.set_seed(3)
    agent.train(batches[3])
  expected, frozen = map(learned, agents)
  assert len(expected) == len(frozen) > len(agents[0].encoder.variables)
  for key in expected:
    if key.startswith('encoder/conv1/'):
      np.testing.assert_array_equal(frozen[key], before[key])
    else:
      assert np.any(frozen[key] != before[key]), key
      np.testing.assert_allclose(frozen[key], expected[key], atol=1e-6, err_msg=key)


def learned(agent):
  """Copies of all that an agent's losses teach, by name."""
  parts = {'encoder': agent.encoder}
  if isinstance(agent, sac.SeerSacAgent):
    parts['critic'], parts['actor'] = agent._critic_network_1, agent._actor_network
  else:
    parts['head'] = agent._q_network
  found = {
    f'{part}/{name}': value
    for part, network in parts.items()
    for name, value in values(network)[0].items()
  }
  if isinstance(agent, sac.SeerSacAgent):
    found['log_alpha'] = agent._log_alpha.numpy()
  return found


def test_flops_fall_by_hand_with_each_layer():
  agent = make_agent('dqn', 'control')
  conv1, conv2 = 7 * 7 * 4 * 9 * CHANNELS, 5 * 5 * 4 * 9 * 4
  first = 5 * 5 * 4 * 8  # the head's first layer
  updates = []
  for frozen in range(3):
    agent.freeze_layers(frozen)
    updates.append(agent.costs(BATCH, stored_crops=1).update_from_pixels)
  # A frozen layer: no gradient of its weights, one forward pass over o_{t+n} instead of two, and
  # the layer above it needs no gradient of its input.
  assert updates[0] - updates[1] == 2 * BATCH * (2 * conv1 + conv2)
  assert updates[1] - updates[2] == 2 * BATCH * (2 * conv2 + first)


def test_an_encoder_for_the_other_agent_is_refused():
  lower_fn = lambda features: functools.partial(
    encoders.ControlEncoder, (15, 15, CHANNELS), filters=(4,), features=features
  )
  time_steps = ts.time_step_spec(tensor_spec.BoundedTensorSpec((15, 15, 2), tf.uint8, 0, 255))
  parts = dict(augmentation=augmentation.NoAugmentation())
  with pytest.raises(ValueError, match='SeerDqnAgent has one head.*ControlEncoder.features = None'):
    discrete = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 1)
    dqn.SeerDqnAgent(time_steps, discrete, lower_fn=lower_fn(3), **parts)
  with pytest.raises(ValueError, match='SeerSacAgent needs .* ControlEncoder.features, such as 50'):
    continuous = tensor_spec.BoundedTensorSpec([1], tf.float32, -1, 1)
    sac.SeerSacAgent(time_steps, continuous, lower_fn=lower_fn(None), **parts)
