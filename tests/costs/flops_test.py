"""Tests of the cost model against counts made by hand."""

from seer_tf.costs import flops
from seer_tf.networks import atari_encoders, encoders


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


SAC = dict(
  convolutions=(100, 200),
  projection=50,
  actor=(7, 3),
  critic=(11, 2),
  batch_size=4,
  stored_crops=3,
  actor_update_period=2,
)


def test_update_by_hand():
  costs = flops.sac(**SAC)
  encode = 100 + 200 + 2 * 50
  assert costs.act == 2 * (encode + 10)
  assert costs.store == 2 * 3 * encode
  # Critic: two heads forward and backward, two targets forward, the next action.
  critic = 2 * 3 * 13 + 2 * 13 + 10
  # Every second update: actor forward and backward, two critics there and back.
  actor = 3 * 10 + 2 * 2 * 13
  # o_t forward, o_{t+n} online and target with a projection each, backward (no image gradient).
  below = encode + 2 * (300 + 50) + (2 * 300 - 100) + 2 * 50 + 50 / 2
  assert costs.update_from_pixels == 2 * 4 * (below + critic + actor / 2)
  # From latents as well, since layer norms below the first layers learn.
  assert costs.update_from_latents == 2 * 4 * (critic + actor / 2)


def test_update_with_views_and_an_auxiliary_loss_by_hand():
  plain = flops.sac(**SAC)
  # M = 3: twice more o_t forward, the critic's gradient, the actor's projection's, the heads'.
  views = flops.sac(**SAC, views=3)
  more = 2 * (400 + (2 * 300 - 100) + 2 * 50 + 50 / 2 + 2 * 3 * 13)
  assert views.update_from_pixels - plain.update_from_pixels == 2 * 4 * more
  # K = 2: o_{t+n} once more by both encoders, two target heads and the actor.
  views = flops.sac(**SAC, next_views=2)
  more = 2 * 350 + 2 * 13 + 10
  assert views.update_from_pixels - plain.update_from_pixels == 2 * 4 * more
  # One key, and every second update 70 of its own and a gradient of the encoder.
  part = flops.Auxiliary(views=1, macs=70, rate=0.5)
  auxiliary = flops.sac(**SAC, auxiliary=part)
  more = 350 + (70 + (2 * 300 - 100) + 2 * 50) / 2
  assert auxiliary.update_from_pixels - plain.update_from_pixels == 2 * 4 * more
  for costs in (views, auxiliary):
    assert costs[:3] + costs[4:] == plain[:3] + plain[4:]
  assert flops.sac(**SAC, augmented=False).store == 0


def test_published_atari_encoders():
  """Data-efficient 1.28 M MAC per image, canonical 7.74 M."""
  for encoder, expected in (
    (atari_encoders.DataEfficientEncoder((84, 84, 4)), (16**2 * 32 * 100, 3**2 * 64 * 800)),
    (
      atari_encoders.NatureEncoder((84, 84, 4)),
      (20**2 * 32 * 4 * 64, 9**2 * 64 * 32 * 16, 7**2 * 64 * 64 * 9),
    ),
  ):
    macs = flops.convolution_macs(encoder.convolutions, (84, 84, 4))
    assert macs == expected
    assert round(sum(macs) / 1e6, 2) == {2: 1.28, 3: 7.74}[len(macs)]


def test_dqn_by_hand():
  parts = dict(convolutions=(100, 200), streams=((7, 3), (7, 5)), batch_size=4, stored_crops=2)
  rainbow = flops.dqn(**parts, double=True, augmented=False)
  assert rainbow.act == 2 * (300 + 22)
  assert (rainbow.store, rainbow.convert) == (0, 2 * 2 * 300)
  # o_t forward and backward (no image gradient), o_{t+n} through online and target networks.
  assert rainbow.update_from_pixels == 2 * 4 * ((3 * 300 - 100 + 2 * 300) + (3 * 22 + 2 * 22))
  assert rainbow.update_from_latents == 2 * 4 * (3 * 22 - 7 - 7 + 2 * 22)
  single = flops.dqn(**parts, double=False, augmented=True)
  assert single.store == single.convert == 2 * 2 * 300
  assert rainbow.update_from_pixels - single.update_from_pixels == 2 * 4 * (300 + 22)


def test_rainbow_per_agent_step():
  """Data-efficient, 18 actions, batch 32: 267 M MAC before the freeze, 79 M after it.

  After it a head's first layers need no gradient of their input, and what is stored was encoded to
  act; counting both would give 90 M.
  """
  value, advantage = (576 * 256, 256 * 51), (576 * 256, 256 * 51 * 18)
  costs = flops.dqn((819_200, 460_800), (value, advantage), 32, 1, double=True, augmented=False)
  before, after = costs.act + costs.update_from_pixels, costs.act + costs.update_from_latents
  assert round(before / 2e6) == 267
  assert round(after / 2e6) == 79
  also_counted = 2 * (32 * 2 * 576 * 256 + 819_200 + 460_800)
  assert round((after + also_counted) / 2e6) == 90
