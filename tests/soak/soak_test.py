"""A short soak: an actor hangs through the switch, at which server and learner are killed."""

from tests.soak import life, plan

_KILLS = [
  plan.Kill(0, 1.0, ['actor0'], [0.2], when_well=True),
  plan.Kill(0, 0.5, ['evaluator', 'server'], [0.1, 0.5], when_well=False),
  plan.straggler(2),
  plan.Kill(1, 0.3, ['learner'], [0.2], when_well=True),
  plan.Kill(1, 0.6, ['server'], [0.3], when_well=True),
  plan.Kill(1, 0.2, ['learner'], [0.0], when_well=False),
  # Through the switch actors act on and keep their rows: killed before they could deliver them, one
  # would take most of the run with it.
  plan.Kill(2, 0.5, ['actor1', 'learner'], [0.1, 0.3], when_well=True, rows=500),
]


def test_kills_lose_and_double_nothing(root, tmp_path, monkeypatch):
  monkeypatch.chdir(root)
  # Some hundred steps of these may die with the server when it is first killed.
  bindings = ['Experiment.reconnect_seconds = 600', 'Experiment.total_agent_steps = 1000']
  outcome = life.Life(tmp_path / 'life', bindings, limit_seconds=400).run(iter(_KILLS))
  assert not outcome.failed and not outcome.hung
  assert outcome.faults == life.audit.Faults([], [], [])
  assert len(outcome.kills) >= 6
  assert 400 < outcome.sure_rows <= outcome.rows
