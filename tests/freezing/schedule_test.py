"""Tests of when to freeze."""

import re

import numpy as np
import pytest

from seer_tf.analysis import similarity
from seer_tf.freezing import schedule
from tests.freezing import lives

ALL = schedule.ALL


def test_at_step():
  at = schedule.AtStep(100)
  assert [at(agent_steps) for agent_steps in (0, 99, 100, 101)] == [0, 0, ALL, ALL]


@pytest.mark.parametrize('freeze_at', [0, 10, 200, 300])
def test_freeze_outside_the_run_is_refused(freeze_at):
  with pytest.raises(ValueError, match=rf'is {freeze_at}, .*agent step 10\).*agent step 200\)'):
    schedule.AtStep(freeze_at).check(first_update_at_agent_steps=10, total_agent_steps=200)


def test_freeze_inside_the_run_is_accepted():
  schedule.AtStep(11).check(10, 200)
  schedule.AtStep(199).check(10, 200)


def test_never_and_at_start():
  for when, expected in ((schedule.Never(), 0), (schedule.AtStart(), ALL)):
    when.check(10, 200)
    assert [when(agent_steps) for agent_steps in (10, 11, 199)] == [expected] * 3


def converged(**changes):
  return schedule.WhenConverged(**{**lives.CONVERGED, **changes})


def live(when, turn_until, **kwargs):
  """Agent step at which `when` freezes everything, and why."""
  ((at, _, reason),) = lives.live(when, turn_until, converged, **kwargs)
  return at, reason


@pytest.mark.parametrize('measure', [similarity.linear_cka, similarity.svcca, similarity.pwcca])
def test_freezes_when_every_layer_has_stood_still_for_the_patience(measure):
  # Looks at 20, 30, ...; turned for the last time after the look at 100, so that those at 120, 130
  # and 140 see no change. A single feature is as similar to itself as it correlates.
  at, reason = live(converged(similarity_fn=measure), turn_until=101)
  assert at == 140
  assert reason.startswith('converged: each layer at least 0.99')


def test_does_not_freeze_before_the_earliest():
  assert live(converged(earliest_agent_steps=95), turn_until=0)[0] == 95


def test_freezes_at_the_latest_and_says_so():
  at, reason = live(converged(), turn_until=400)
  assert at == 300
  assert 'NOT converged' in reason and '0 comparisons in a row reached 0.99, not 3' in reason
  assert re.search(r'in the last one turning was least similar, 0\.\d+$', reason)


def test_records_each_layer():
  recorded = []
  live(converged(), 401, record=lambda agent_steps, values: recorded.append((agent_steps, values)))
  first, figures = recorded.pop(0)  # nothing to compare with, but it takes time, too
  assert first == 20 and list(figures) == ['seconds'] and figures['seconds'] > 0
  assert [agent_steps for agent_steps, _ in recorded] == list(range(30, 301, 10))
  for _, values in recorded:
    assert values['still'] == pytest.approx(1.0)
    assert values['turning'] < 0.99
    assert values['converged_in_a_row'] == 0
    assert values['seconds'] > 0


@pytest.mark.parametrize('resume_at', [5, 25, 115, 121, 130, 139])
def test_a_resumed_run_freezes_at_the_same_step(resume_at):
  assert live(converged(), 101, resume_at=resume_at)[0] == 140


@pytest.mark.parametrize('turn_until', [0, 400])
def test_forgets_its_probe_batch_once_all_is_frozen(turn_until):
  when, again = converged(), converged()
  at, _ = live(when, turn_until)
  assert not [name for name in when.state() if name.startswith(('probe/obs', 'previous/'))]
  again.check(20, 400)
  again.check_layers(('still', 'turning'))
  again.watch(lambda pixels: {}, lambda *_: None)
  again.restore(when.state())
  assert again(at + 100) == when(at + 100) == ALL


def test_waits_for_its_probe_batch():
  """31 observations are there after agent step 31 only; so it looks at 31, 41, 51 and 61."""
  assert live(converged(probe_observations=31), turn_until=0)[0] == 61


@pytest.mark.parametrize('earliest, latest', [(10, 150), (20, 10), (30, 200), (60, 50)])
def test_range_outside_the_run_is_refused(earliest, latest):
  when = converged(earliest_agent_steps=earliest, latest_agent_steps=latest)
  with pytest.raises(ValueError, match=rf'from agent step {earliest} to {latest}.*200\), and'):
    when.check(first_update_at_agent_steps=10, total_agent_steps=200)


def test_a_latest_step_before_any_convergence_is_refused():
  when = converged(latest_agent_steps=59, earliest_agent_steps=59)
  with pytest.raises(ValueError, match='is 59, too early to see convergence: 30.*make 60'):
    when.check(30, 200)


@pytest.mark.parametrize(
  'name, value',
  [('threshold', 0), ('threshold', 1.1), ('patience', 0), ('period_agent_steps', 0.5),
   ('probe_observations', 0), ('probe_observations', 1),
   ('probe_positions', 0), ('probe_features', -1)],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(name, value):
  with pytest.raises(ValueError, match=f'WhenConverged.{name} is {value}'):
    converged(**{name: value})


def test_layers_that_put_out_no_numbers_are_named():
  when = converged()
  when.check(20, 400)
  outputs = lambda pixels: {
    'conv1': np.ones([len(pixels), 3]), 'conv2': np.full([len(pixels), 3], np.nan)
  }  # fmt: skip
  (observe,) = when.watch(outputs, lambda *_: None)
  for _ in range(20):
    observe(lives.observed(np.zeros([2, 2, 3], np.uint8)))
  with pytest.raises(ValueError, match='Layer conv2 puts out .* not numbers at agent step 20'):
    when(20)
