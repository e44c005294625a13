"""Tests of SAC on a split encoder, with real updates."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.policies import policy_saver
from tf_agents.trajectories import time_step as ts

from seer_tf.freezing import freeze
from tests.agents import tiny_sac


@pytest.fixture(scope='module')
def frozen():
  """An agent that trained from pixels, froze, and trained from latents: its variables at each."""
  agent, rng = tiny_sac.make_agent(), np.random.default_rng(0)
  train = tf.function(agent.train)
  for _ in range(6):
    train(tiny_sac.random_transition(rng))
  before = tiny_sac.values(agent)
  fingerprint = agent.freeze()
  at_freeze = tiny_sac.values(agent)
  train = tf.function(agent.train)
  for _ in range(100):
    train(tiny_sac.random_transition(rng, agent.lower.latent_size))
  return dict(
    agent=agent,
    before=before,
    at_freeze=at_freeze,
    after=tiny_sac.values(agent),
    fingerprint=fingerprint,
  )


def test_freeze_copies_the_online_encoder_to_the_target_layer_by_layer(frozen):
  for (network, name), value in frozen['at_freeze'].items():
    source = network.replace('target lower', 'lower')
    np.testing.assert_array_equal(value, frozen['before'][source, name], err_msg=name)


def test_frozen_weights_are_bit_identical_after_100_updates_and_every_head_learns(frozen):
  lower = {key for key in frozen['at_freeze'] if 'lower' in key[0]}
  moved = tiny_sac.changed(frozen['at_freeze'], frozen['after'])
  assert not moved & lower
  assert moved == set(frozen['at_freeze']) - lower
  assert freeze.fingerprint(frozen['agent'].lower) == frozen['fingerprint']
  assert freeze.fingerprint(frozen['agent'].target_lower) == frozen['fingerprint']


def test_trainable_variables_and_flops_fall_by_hand(frozen):
  agent, fresh = frozen['agent'], tiny_sac.make_agent()
  count = lambda a: sum(
    len(tiny_sac.networks(a)[name].trainable_variables)
    for name in ('lower', 'critic 1', 'critic 2', 'actor')
  )
  # Two convolutions and two projections, kernel and bias each.
  assert count(fresh) - count(agent) == 8
  costs = fresh.costs(batch_size=tiny_sac.BATCH, stored_crops=4)
  conv1, conv2 = 7 * 7 * 8 * 27, 5 * 5 * 8 * 72
  projection = 5 * 5 * 8 * 10
  below = 5 * (conv1 + conv2) - conv1 + 6 * projection + projection / 2
  fall = costs.update_from_pixels - costs.update_from_latents
  assert fall == 2 * tiny_sac.BATCH * below
  encode = conv1 + conv2 + 2 * projection
  # From pixels the frozen agent would still have to encode.
  now = agent.costs(batch_size=tiny_sac.BATCH, stored_crops=4)
  assert now.update_from_pixels == costs.update_from_latents + 2 * tiny_sac.BATCH * 2 * encode
  assert now._replace(update_from_pixels=costs.update_from_pixels) == costs


def test_cadence_and_what_each_update_moves():
  agent, rng = tiny_sac.make_agent(), np.random.default_rng(0)
  train = tf.function(agent.train)
  train(tiny_sac.random_transition(rng))  # update 0: everything is due
  moved = []
  for _ in range(2):
    before = tiny_sac.values(agent)
    train(tiny_sac.random_transition(rng))
    moved.append(tiny_sac.changed(before, tiny_sac.values(agent)))
  everything = set(tiny_sac.values(agent))
  not_due = {key for key in everything if 'target' in key[0] or 'actor' in key[0] + key[1]}
  assert moved[0] == everything - not_due
  assert moved[1] == everything


def test_critic_loss_against_numpy():
  agent, rng = tiny_sac.make_agent(), np.random.default_rng(3)
  agent.freeze()
  for variable in agent._target_critic_network_1.variables:
    variable.assign_add(0.05 * tf.random.normal(variable.shape))
  size = agent.lower.latent_size
  batch = tiny_sac.random_transition(rng, size)
  z, next_z = batch.time_step.observation, batch.next_time_step.observation

  # A nearly deterministic policy, so that the expected target can be computed by hand.
  projection = agent._actor_network.trainable_variables[-2:]
  projection[0].assign(tf.zeros_like(projection[0]))
  projection[1].assign([0.3, -20.0])
  action = np.full([tiny_sac.BATCH, 1], np.tanh(0.3), np.float32)
  entropy = -(np.log(np.sqrt(2 * np.pi * np.e)) - 10 + np.log(1 - np.tanh(0.3) ** 2))
  q = lambda network, z, a: network((z, a))[0].numpy()
  target = np.minimum(
    q(agent._target_critic_network_1, next_z, action),
    q(agent._target_critic_network_2, next_z, action),
  )
  soft = target - 0.1 * entropy
  y = batch.next_time_step.reward.numpy() + batch.next_time_step.discount.numpy() * soft
  a = batch.action_step.action
  errors = [q(network, z, a) - y for network in (agent._critic_network_1, agent._critic_network_2)]
  expected = sum(np.mean(error**2) for error in errors)
  losses = [float(agent.train(batch).extra.critic_loss)]
  np.testing.assert_allclose(losses[0], expected, rtol=0.05)


def test_next_latents_take_each_half_from_its_network():
  agent, rng = tiny_sac.make_agent(), np.random.default_rng(0)
  for variable in agent.target_encoder.variables:
    variable.assign_add(tf.random.normal(variable.shape))
  agent.augmentation.augment = agent.augmentation.centre  # no randomness left
  batch = tiny_sac.random_transition(rng)
  pixels = agent.augmentation.centre(batch.next_time_step.observation)
  _, images = agent._images(batch)
  halves, keys = agent._next_latents(images, batch.time_step.observation, 1)
  assert not keys
  np.testing.assert_allclose(halves[:, :10], agent.target_encoder(pixels)[:, :10], rtol=1e-5)
  np.testing.assert_allclose(halves[:, 10:], agent.encoder(pixels)[:, 10:], rtol=1e-5)


def test_storing_policy_encodes_the_centre_for_acting_and_crops_for_replay():
  agent, rng = tiny_sac.make_agent(), np.random.default_rng(0)
  pixels = tf.constant(rng.integers(0, 256, [1, tiny_sac.SIZE, tiny_sac.SIZE, 3], dtype=np.uint8))
  time_step = ts.restart(pixels, batch_size=1)
  step = agent.storing_policy(3).action(time_step)
  assert step.info.shape == (1, 3, 20)
  corners = [(top, left) for top in range(4) for left in range(4)]
  every = np.stack(
    [
      agent.lower(pixels[:, top : top + tiny_sac.CROP, left : left + tiny_sac.CROP])[0]
      for top, left in corners
    ]
  )
  for stored in (*step.info[0].numpy(), *agent.encode_crops(pixels, 2)[0].numpy()):
    assert np.abs(every - stored).max(axis=1).min() < 1e-4
  centre = agent.lower(agent.augmentation.centre(pixels))
  mode = agent._actor_network(centre)[0].mode()
  np.testing.assert_allclose(agent.policy.action(time_step).action, mode, rtol=1e-4)


def test_saved_policy_acts_on_pixels(tmp_path):
  agent, rng = tiny_sac.make_agent(), np.random.default_rng(0)
  policy_saver.PolicySaver(agent.policy, batch_size=None).save(str(tmp_path))
  loaded = tf.saved_model.load(str(tmp_path))
  pixels = rng.integers(0, 256, [2, tiny_sac.SIZE, tiny_sac.SIZE, 3], dtype=np.uint8)
  time_step = ts.restart(tf.constant(pixels), batch_size=2)
  expected = agent.policy.action(time_step).action
  np.testing.assert_allclose(loaded.action(time_step, ()).action, expected, rtol=1e-4)


def test_learns_a_two_step_task_from_pixels_and_goes_on_from_latents():
  """At `start`, right leads to `end` without reward and left pays 0.2 at once; `end` pays 1.

  So right is worth gamma = 0.9, and only a critic that bootstraps correctly can know.
  """
  agent = tiny_sac.make_agent(
    learning_rate=3e-3, target_tau=0.05, initial_alpha=0.01, alpha_learning_rate=0.0
  )
  rng = np.random.default_rng(0)
  rooms = np.zeros([2, tiny_sac.SIZE, tiny_sac.SIZE, 3], np.uint8)
  rooms[0, :, : tiny_sac.SIZE // 2] = 255
  rooms[1, : tiny_sac.SIZE // 2] = 255

  def batch(seen):
    room = rng.integers(0, 2, tiny_sac.BATCH * 4)
    action = rng.uniform(-1, 1, [len(room), 1]).astype(np.float32)
    right = action[:, 0] > 0
    reward = np.where(room == 1, 1.0, np.where(right, 0.0, 0.2)).astype(np.float32)
    discount = np.where((room == 0) & right, 0.9, 0.0).astype(np.float32)
    return tiny_sac.transition(
      seen(rooms[room]), action, reward, discount, seen(rooms[np.ones_like(room)])
    )

  def q(room, action):
    pixels = agent.augmentation.centre(tf.constant(rooms[room : room + 1]))
    latents = agent.lower(pixels)
    return float(agent._critic_network_1((latents, tf.constant([[action]])))[0])

  def check():
    policy = agent.policy.action(ts.restart(tf.constant(rooms[:1]), batch_size=1)).action
    assert float(policy) > 0.1
    np.testing.assert_allclose([q(0, 0.5), q(0, -0.5), q(1, 0.0)], [0.9, 0.2, 1.0], atol=0.12)

  train = tf.function(agent.train)
  for _ in range(300):
    train(batch(lambda pixels: pixels))
  check()
  agent.freeze()
  for network in (agent._critic_network_1, agent._actor_network):  # forget, and learn again
    for variable in network.trainable_variables:
      variable.assign(variable + 0.3 * tf.random.normal(variable.shape))
  train = tf.function(agent.train)
  encode = lambda pixels: agent.encode_crops(pixels, 1)[:, 0]
  for _ in range(400):
    train(batch(encode))
  check()
