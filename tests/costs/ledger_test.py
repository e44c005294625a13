"""Tests of the ledger."""

import math

from seer_tf.costs import flops, ledger

COSTS = flops.Costs(act=1, store=10, convert=20, update_from_pixels=1000, update_from_latents=100)


def test_flops_and_counts_by_phase():
  book = ledger.Ledger(COSTS)
  with book.timed('pixels'):
    book.acted('pixels', 1, encoded=False, stored=False)
    book.acted('pixels', 1, encoded=True, stored=False)
    with book.updates('pixels', 2, from_latents=False):
      pass
  book.converted('draining', 3)
  with book.timed('latents'):
    book.acted('latents', 1, encoded=True, stored=True)
    with book.updates('latents', 5, from_latents=True):
      pass
  pixels, latents = book.phase('pixels'), book.phase('latents')
  assert (pixels['flops'], pixels['agent_steps'], pixels['updates']) == (2001, 2, 2)
  assert (latents['flops'], latents['agent_steps'], latents['updates']) == (511, 1, 5)
  assert book.phase('draining')['flops'] == 60
  assert book.flops == 2001 + 60 + 511


def test_seconds_add_up_and_rates_follow():
  book = ledger.Ledger(COSTS)
  for phase in ('pixels', 'latents'):
    with book.timed(phase):
      book.acted(phase, 1, True, True)
      with book.updates(phase, 1, True):
        sum(range(100_000))
  pixels, latents = book.phase('pixels'), book.phase('latents')
  assert math.isclose(book.seconds, pixels['seconds'] + latents['seconds'])
  assert math.isclose(pixels['seconds_per_1000_agent_steps'], 1e3 * pixels['seconds'])
  assert 0 < pixels['ms_per_update'] <= 1e3 * pixels['seconds']
  assert math.isnan(book.phase('draining')['ms_per_update'])
