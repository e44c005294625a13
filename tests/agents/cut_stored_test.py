"""A cut at any layer of any encoder, through the very tables that latents are stored in."""

import numpy as np
import pytest
import reverb
import tensorflow as tf

from seer_tf.replay import codecs, drain, tables, writers
from tests.agents import cut_test

ROWS, STACK = 21, cut_test.CHANNELS


@pytest.mark.parametrize('kind, name, layer', cut_test.CUTS)
def test_q_values_of_what_replay_made_of_pixels(kind, name, layer):
  """Two episodes of frames are written, stacked, encoded, stored as float32 and read again."""
  agent, rng = cut_test.make_agent(kind, name, layer), np.random.default_rng(0)
  agent.train(cut_test.transition(rng, agent))
  height, width, _ = agent.encoder.image_shape
  config = tables.ReplayConfig(
    frame_shape=(height, width, 1),
    frame_stack=STACK,
    action_shape=tuple(agent.action_spec.shape),
    action_dtype=agent.action_spec.dtype.name,
    latent_size=agent.lower.latent_size,
    latents_dtype='float32',
    stored_crops=1,
    n_step=1,
    pixels_capacity=64,
    latents_capacity=64,
    block_length=8,
    latents_chunk_length=8,
  )
  frames = rng.integers(0, 256, (ROWS, *config.frame_shape), np.uint8)
  kinds = np.full(ROWS, 1, np.int32)
  kinds[[0, 8]], kinds[7] = 0, 2
  before = [t if kinds[t] == 0 else t - 1 for t in range(ROWS)]
  stacks = tf.constant(np.concatenate([frames[before], frames], axis=-1))
  actions = tf.repeat(cut_test.some_actions(rng, agent)[:1], ROWS, axis=0)
  expected = agent.q_values(agent._latents(stacks), actions)

  zeros = np.zeros(ROWS, np.float32)
  rows = tables.Row(frames, actions.numpy().astype(config.action_dtype), zeros, zeros, kinds)
  server = reverb.Server(tables.make_tables(config))
  try:
    address = f'localhost:{server.port}'
    client = reverb.Client(address)
    pixels = writers.RowWriter.of_table(client, config, 'pixels')
    pixels.extend(rows)
    pixels.close()
    agent.freeze()
    codec = codecs.Float32((1, config.latent_size))
    encode = lambda images: codec.encode(agent.encode_crops(images, 1).numpy())
    latents = writers.RowWriter.of_table(client, config, 'latents')
    assert drain.drain(client, config, None, encode, lambda stream: latents, 5) == ROWS
    latents.close()
    stored = read(address, config)
  finally:
    server.stop()
  assert sorted(stored) == list(range(ROWS))
  replayed = codec.decode(tf.constant(np.stack([stored[number] for number in range(ROWS)])))
  found = agent.q_values(agent._latents(replayed), actions)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def read(address, config):
  """Number -> stored latent of its first crop, of every row in table `latents`."""
  found = {}
  spec = tables.window_spec(config.latents_row, config.latents_layout)
  for sample in tables.windows(address, 'latents', spec, 1, timeout_seconds=20).take(300):
    window = tables.unpack(sample.data, config.latents_row)
    for number, observation in zip(window.number.numpy(), window.observation.numpy()):
      if number >= 0:
        found[int(number)] = observation[0]
    if len(found) == ROWS:
      break
  return found
