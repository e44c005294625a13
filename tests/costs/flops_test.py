"""Tests of the cost model against counts made by hand."""

from seer_tf.costs import flops
from seer_tf.networks import atari_encoders, encoders, residual_encoders


def test_published_encoder():
  encoder = encoders.ControlEncoder((84, 84, 9))
  macs = flops.encoder(encoder, encoder.cut('conv2')[0])
  assert (macs.frozen, macs.cut) == (0, 2)
  convolutions = [41**2 * 32 * 81, 39**2 * 32 * 288, 37**2 * 32 * 288, 35**2 * 32 * 288]
  assert macs.learning(0) == [*convolutions, 39200 * 50, 39200 * 50]
  assert macs.below(2) == sum(convolutions[:2])
  assert round(macs.below(4) / 1e6, 2) == 42.28
  assert round(macs.learning(4)[0] / 1e6, 2) == 1.96


def test_residual_stages():
  """Convolutions before the pooling see twice the sides of those after it; 53.2 M MAC in all."""
  encoder = residual_encoders.ImpalaEncoder((84, 84, 4))
  stages = [
    (84**2 * 16 * 36, *[42**2 * 16 * 144] * 4),
    (42**2 * 32 * 144, *[21**2 * 32 * 288] * 4),
    (21**2 * 32 * 288, *[11**2 * 32 * 288] * 4),
  ]
  assert flops.encoder(encoder, encoder.cut()[0]).stages == stages
  assert round(sum(map(sum, stages)) / 1e6, 1) == 53.2


def test_dense_layers_in_order_without_norms_and_biases():
  encoder = encoders.ControlEncoder((15, 15, 3), filters=(4,), features=3)
  assert flops.dense_macs(encoder) == (7 * 7 * 4 * 3, 7 * 7 * 4 * 3)


def test_training_pass():
  assert flops.training_macs((10, 20, 30), input_gradient=True) == 180
  assert flops.training_macs((10, 20, 30), input_gradient=False) == 170
  assert flops.training_macs((), input_gradient=False) == 0


def sac(frozen=0, cut=3, **parts):
  """Costs of two convolutions and a projection each, and of small heads."""
  return flops.sac(
    flops.EncoderMacs([(100,), (200,), (50, 50)], frozen, cut),
    actor=(7, 3),
    critic=(11, 2),
    batch_size=4,
    stored_crops=3,
    actor_update_period=2,
    **parts,
  )


def test_update_by_hand():
  costs = sac()
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
  heads_alone = critic + actor / 2
  assert costs.update_from_latents == 2 * 4 * heads_alone
  # A frozen layer runs once over o_t and once over o_{t+n}, for online and target alike, and the
  # one above it needs no gradient of its input.
  one, two = sac(1), sac(2)
  assert costs.update_from_pixels - one.update_from_pixels == 2 * 4 * ((5 - 1 - 2) * 100 + 200)
  assert one.update_from_pixels - two.update_from_pixels == 2 * 4 * ((5 - 1 - 2) * 200 + 50)
  # All frozen and not stored: encoded, then the heads alone.
  assert sac(3).update_from_pixels == 2 * 4 * (2 * encode + heads_alone)
  # What is above a cut learns from latents as it does from pixels, without what is below it.
  lower = sac(2, cut=2)
  assert lower.update_from_latents == lower.update_from_pixels - 2 * 4 * 2 * 300
  assert (lower.act, lower.store) == (costs.act, 2 * 3 * 300)


def test_update_with_views_and_an_auxiliary_loss_by_hand():
  plain = sac()
  # M = 3: twice more o_t forward, the critic's gradient, the actor's projection's, the heads'.
  views = sac(views=3)
  more = 2 * (400 + (2 * 300 - 100) + 2 * 50 + 50 / 2 + 2 * 3 * 13)
  assert views.update_from_pixels - plain.update_from_pixels == 2 * 4 * more
  # K = 2: o_{t+n} once more by both encoders, two target heads and the actor.
  views = sac(next_views=2)
  more = 2 * 350 + 2 * 13 + 10
  assert views.update_from_pixels - plain.update_from_pixels == 2 * 4 * more
  # One key, and every second update 70 of its own and a gradient of the encoder.
  part = flops.Auxiliary(views=1, macs=70, rate=0.5)
  auxiliary = sac(auxiliary=part)
  more = 350 + (70 + (2 * 300 - 100) + 2 * 50) / 2
  assert auxiliary.update_from_pixels - plain.update_from_pixels == 2 * 4 * more
  for costs in (views, auxiliary):
    assert costs[:3] + costs[4:] == plain[:3] + plain[4:]
  assert sac(augmented=False).store == 0


def test_published_atari_encoders():
  """Data-efficient 1.28 M MAC per image, canonical 7.74 M."""
  for encoder, expected in (
    (atari_encoders.DataEfficientEncoder((84, 84, 4)), (16**2 * 32 * 100, 3**2 * 64 * 800)),
    (
      atari_encoders.NatureEncoder((84, 84, 4)),
      (20**2 * 32 * 4 * 64, 9**2 * 64 * 32 * 16, 7**2 * 64 * 64 * 9),
    ),
  ):
    macs = flops.layer_macs(encoder.stages, (84, 84, 4))
    assert macs == expected
    assert round(sum(macs) / 1e6, 2) == {2: 1.28, 3: 7.74}[len(macs)]


def test_dqn_by_hand():
  parts = dict(streams=((7, 3), (7, 5)), batch_size=4, stored_crops=2)
  at = lambda frozen, cut, **which: flops.dqn(
    flops.EncoderMacs([(100,), (200,)], frozen, cut), **parts, **which
  )
  rainbow = at(0, 2, double=True, augmented=False)
  assert rainbow.act == 2 * (300 + 22)
  assert (rainbow.store, rainbow.convert) == (0, 2 * 2 * 300)
  # o_t forward and backward (no image gradient), o_{t+n} through online and target networks.
  assert rainbow.update_from_pixels == 2 * 4 * ((3 * 300 - 100 + 2 * 300) + (3 * 22 + 2 * 22))
  assert rainbow.update_from_latents == 2 * 4 * (3 * 22 - 7 - 7 + 2 * 22)
  single = at(0, 2, double=False, augmented=True)
  assert single.store == single.convert == 2 * 2 * 300
  assert rainbow.update_from_pixels - single.update_from_pixels == 2 * 4 * (300 + 22)
  one = at(1, 2, double=True, augmented=False)
  assert rainbow.update_from_pixels - one.update_from_pixels == 2 * 4 * ((5 - 1 - 2) * 100 + 200)
  lower = at(1, 1, double=True, augmented=False)
  assert lower.convert == 2 * 2 * 100
  assert lower.update_from_latents == 2 * 4 * (4 * 200 + 5 * 22)


def test_rainbow_per_agent_step():
  """Data-efficient, 18 actions, batch 32: 267 M MAC before the freeze, 79 M after it.

  After it a head's first layers need no gradient of their input, and what is stored was encoded to
  act; counting both would give 90 M.
  """
  value, advantage = (576 * 256, 256 * 51), (576 * 256, 256 * 51 * 18)
  encoder = flops.EncoderMacs([(819_200,), (460_800,)], 0, 2)
  costs = flops.dqn(encoder, (value, advantage), 32, 1, double=True, augmented=False)
  before, after = costs.act + costs.update_from_pixels, costs.act + costs.update_from_latents
  assert round(before / 2e6) == 267
  assert round(after / 2e6) == 79
  also_counted = 2 * (32 * 2 * 576 * 256 + 819_200 + 460_800)
  assert round((after + also_counted) / 2e6) == 90
