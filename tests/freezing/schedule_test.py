"""Tests of when to freeze."""

import pytest

from seer_tf.freezing import schedule


def test_at_step():
  at = schedule.AtStep(100)
  assert [at(agent_steps) for agent_steps in (0, 99, 100, 101)] == [False, False, True, True]


@pytest.mark.parametrize('freeze_at', [0, 10, 200, 300])
def test_freeze_outside_the_run_is_refused(freeze_at):
  with pytest.raises(ValueError, match=rf'is {freeze_at}, .*agent step 10\).*agent step 200\)'):
    schedule.AtStep(freeze_at).check(first_update_at_agent_steps=10, total_agent_steps=200)


def test_freeze_inside_the_run_is_accepted():
  schedule.AtStep(11).check(10, 200)
  schedule.AtStep(199).check(10, 200)
