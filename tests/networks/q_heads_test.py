"""Tests of the Q heads against brute force, in loops."""

import itertools
import math

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import tensorflow as tf

from seer_tf.networks import q_heads, variables

SIZE, ACTIONS, HIDDEN = 6, 3, 5
VARIANTS = list(itertools.product([False, True], [None, 4], [0.0, 0.3]))


def make(dueling, atoms, noise_sigma, **kwargs):
  head = q_heads.QHead(
    ACTIONS, HIDDEN, dueling, noise_sigma, atoms, v_min=-1.0, v_max=2.0, **kwargs
  )
  head.create_variables(tf.TensorSpec([SIZE], tf.float32))
  return head


HEADS = {variant: make(*variant) for variant in VARIANTS}


def brute_force(head, dueling, atoms, latents):
  """Q values without noise, action by action and atom by atom."""
  named = {name: variable.numpy() for name, variable in variables.by_name(head).items()}
  dense = lambda layer, x: x @ named[f'{layer}/kernel'] + named[f'{layer}/bias']
  stream = lambda name, x: dense(f'{name}_output', np.maximum(dense(f'{name}_hidden', x), 0))
  rows = []
  for latent in latents:
    row, count = [], atoms or 1
    for action in range(ACTIONS):
      logits = []
      for atom in range(count):
        if dueling:
          advantages = [stream('advantage', latent)[a * count + atom] for a in range(ACTIONS)]
          centred = advantages[action] - sum(advantages) / ACTIONS
          logits.append(stream('value', latent)[atom] + centred)
        else:
          logits.append(stream('q', latent)[action * count + atom])
      if atoms is None:
        row.append(logits[0])
      else:
        weights = np.exp(logits)
        row.append(sum(w * z for w, z in zip(weights, [-1, 0, 1, 2])) / weights.sum())
    rows.append(row)
  return np.array(rows)


@hypothesis.given(st.sampled_from(VARIANTS), st.integers(0, 2**31), st.integers(1, 4))
def test_values_against_brute_force(variant, seed, batch):
  latents = np.random.default_rng(seed).normal(size=[batch, SIZE]).astype(np.float32)
  head = HEADS[variant]
  for variable in head.trainable_variables:
    variable.assign(tf.random.normal(variable.shape))
  values, _ = head(tf.constant(latents))
  np.testing.assert_allclose(values, brute_force(head, *variant[:2], latents), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('variant', VARIANTS)
def test_noise_only_where_there_is_some_and_only_in_training(variant):
  head, latents = make(*variant), tf.random.normal([2, SIZE])
  values = lambda **kwargs: head(latents, **kwargs)[0].numpy()
  np.testing.assert_array_equal(values(), values())
  assert np.array_equal(values(training=True), values(training=True)) == (not variant[2])


def test_one_draw_serves_several_calls():
  head, latents = make(True, 4, 0.3), tf.random.normal([2, SIZE])
  weights = head.weights_draw()
  np.testing.assert_array_equal(head.logits(latents, weights), head.logits(latents, weights))


def test_macs_by_hand():
  assert HEADS[True, 4, 0.3].macs == [[6 * 5, 5 * 4], [6 * 5, 5 * 3 * 4]]
  assert HEADS[False, None, 0.0].macs == [[6 * 5, 5 * 3]]


def test_online_and_target_pair_by_name():
  source, target = make(True, 4, 0.3, name='q_head'), make(True, 4, 0.3, name='target_q_head')
  variables.copy(source, target)
  latents = tf.random.normal([2, SIZE])
  np.testing.assert_array_equal(source(latents)[0], target(latents)[0])


@pytest.mark.parametrize(
  'kwargs, message',
  [
    (dict(atoms=1), 'QHead.atoms is 1; give a whole number, at least 2'),
    (dict(atoms=10.5), 'QHead.atoms is 10.5; give a whole number'),
    (dict(atoms=51, v_min=3.0, v_max=3.0), 'QHead.v_min is 3.0 and QHead.v_max 3.0'),
    (dict(atoms=51, v_max=math.inf), 'QHead.v_min is -10.0 and QHead.v_max inf; give two finite'),
    (dict(atoms=51, v_min=math.nan), 'QHead.v_min is nan'),
    (dict(noise_sigma=-0.1), 'QHead.noise_sigma is -0.1'),
  ],
)
def test_senseless_settings_are_refused(kwargs, message):
  with pytest.raises(ValueError, match=message):
    q_heads.QHead(ACTIONS, **kwargs)
