"""Tests of freezing layer after layer."""

import numpy as np
import pytest

from seer_tf.freezing import progressive
from tests.freezing import lives

NAMES = ['conv1', 'conv2', 'dense']


def by_step(**steps):
  return progressive.Progressive(steps)


def test_layers_freeze_at_their_steps():
  when = by_step(conv1=20, conv2=30, dense=30)
  when.check(10, 200)
  when.check_layers(NAMES)
  assert [when(agent_steps) for agent_steps in (10, 19, 20, 29, 30, 199)] == [0, 0, 1, 1, 3, 3]
  assert when.reason == 'as configured'


@pytest.mark.parametrize('at', [10, 200])
def test_a_step_outside_the_run_is_refused(at):
  steps = {'conv1': at, 'conv2': 200} if at < 200 else {'conv1': 11, 'conv2': at}
  with pytest.raises(ValueError, match=rf'has {at} for conv.*agent step 10\).*agent step 200\)'):
    progressive.Progressive(steps).check(10, 200)


@pytest.mark.parametrize('steps', [2000, 'conv1', {'conv1': 'soon'}, {'conv1': 20.5}])
def test_what_is_no_step_for_each_layer_is_refused(steps):
  with pytest.raises(ValueError, match='give the name of each layer and its agent step'):
    progressive.Progressive(steps)


def test_a_layer_before_the_one_below_it_is_refused():
  with pytest.raises(ValueError, match='has 20 for conv2 and 30 for conv1, which is below it'):
    by_step(conv1=30, conv2=20, dense=40).check(10, 200)


@pytest.mark.parametrize(
  'steps, what',
  [
    (dict(conv1=20, dense=30), r"skipped: \['conv2'\]"),
    (dict(conv1=20, conv2=30), r"skipped: \['dense'\]"),
    (dict(conv1=20, conv2=30, conv3=40), r"unknown: \['conv3'\]"),
    (dict(conv2=20, conv1=20, dense=20), 'order'),
  ],
)
def test_another_order_is_refused(steps, what):
  with pytest.raises(ValueError, match=rf'\({what}\); .*in this order: \[.conv1., .conv2., .dense'):
    by_step(**steps).check_layers(NAMES)


def converged(**changes):
  return progressive.ProgressiveWhenConverged(**{**lives.CONVERGED, **changes})


def freezes(when, turn_until, resume_at=None, names=('still', 'turning')):
  """(agent step, layers, reason) of each freeze."""
  lived = lives.live(when, turn_until, converged if resume_at else None, resume_at, names)
  return [(at, count, reason) for at, count, reason in lived if count]


def test_a_layer_freezes_when_it_has_converged():
  # It looks at 20, 30, …; the earliest step is 50. The other turns last after the look at 100.
  first, second = freezes(converged(), turn_until=101)
  assert first[:2] == (50, 1) and first[2].startswith('converged: still at least 0.99')
  assert second[:2] == (140, 2) and second[2].startswith('converged: turning at least 0.99')


def test_a_layer_waits_for_the_one_below_it():
  (only,) = freezes(converged(), turn_until=101, names=('turning', 'still'))
  assert only[:2] == (140, 2)


def test_what_never_converges_freezes_at_the_latest_and_that_is_said():
  first, second = freezes(converged(), turn_until=400)
  assert first[:2] == (50, 1)
  assert second[:2] == (300, 2)
  assert 'turning have NOT converged' in second[2]
  assert 'ProgressiveWhenConverged.latest_agent_steps: 0 comparisons of turning' in second[2]


def test_a_layer_of_several_outputs_converges_with_the_last_of_them():
  when = converged()
  when.check_layers(['dense'])
  when.watch(lives.Encoder(), lambda *_: None)
  when._in_a_row = {'dense/critic': 5, 'dense/actor': 2}
  assert when(299) == 0
  when._in_a_row['dense/actor'] = 3
  assert when(299) == 1


@pytest.mark.parametrize('resume_at', [5, 25, 55, 115, 130, 139])
def test_a_resumed_run_freezes_at_the_same_steps(resume_at):
  lived = freezes(converged(), 101, resume_at=resume_at)
  assert [(at, count) for at, count, _ in lived] == [(50, 1), (140, 2)]


def test_what_was_frozen_stays_so_after_resuming():
  when = converged()
  when.check_layers(['still', 'turning'])
  when.watch(lives.Encoder(), lambda *_: None)
  when.restore({**when.state(), 'next_look': np.array(400), 'frozen': np.array(1)})
  assert when(60) == 1
