"""Tests of the cost model against counts made by hand."""

from seer_tf.costs import flops
from seer_tf.networks import encoders


def test_published_encoder():
  encoder = encoders.ControlEncoder((84, 84, 9))
  macs = flops.convolution_macs(encoder.convolutions, (84, 84, 9))
  assert macs == (41**2 * 32 * 81, 39**2 * 32 * 288, 37**2 * 32 * 288, 35**2 * 32 * 288)
  assert round(sum(macs) / 1e6, 2) == 42.28
  assert round(encoder.critic_projection.kernel.shape.num_elements() / 1e6, 2) == 1.96


def test_dense_layers_in_order_without_norms_and_biases():
  encoder = encoders.ControlEncoder((15, 15, 3), filters=(4,), features=3)
  assert flops.dense_macs(encoder) == (7 * 7 * 4 * 3, 7 * 7 * 4 * 3)


def test_training_pass():
  assert flops.training_macs((10, 20, 30), input_gradient=True) == 180
  assert flops.training_macs((10, 20, 30), input_gradient=False) == 170


def test_update_by_hand():
  costs = flops.sac(
    convolutions=(100, 200),
    projection=50,
    actor=(7, 3),
    critic=(11, 2),
    batch_size=4,
    stored_crops=3,
    actor_update_period=2,
  )
  encode = 100 + 200 + 2 * 50
  assert costs.act == 2 * (encode + 10)
  assert costs.store == 2 * 3 * encode
  # Critic: two heads forward and backward, two targets forward, the next action.
  critic = 2 * 3 * 13 + 2 * 13 + 10
  # Every second update: actor forward and backward, again for alpha, two critics there and back.
  actor = 3 * 10 + 10 + 2 * 2 * 13
  # o_t forward, o_{t+n} online and target with a projection each, backward (no image gradient).
  below = encode + 2 * (300 + 50) + (2 * 300 - 100) + 2 * 50 + 50 / 2
  assert costs.update_from_pixels == 2 * 4 * (below + critic + actor / 2)
  # From latents the first layer of what learns needs no gradient of its input.
  assert costs.update_from_latents == 2 * 4 * (critic - 2 * 11 + (actor - 7) / 2)
