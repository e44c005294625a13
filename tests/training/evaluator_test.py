"""What an evaluator in a process of its own makes of what it reads, and when it goes back."""

import gin
import pytest
import reverb

from seer_tf.replay import messages, server, tables
from seer_tf.training import evaluator, experiment, records, subscription, weights

REPORT = server.Report(0, 0, 0, 0.0, 0, 1, 0, 0, '', 0, 0, 0)


@pytest.fixture
def looking(root, tmp_path, monkeypatch):
  """(evaluator with evaluations of agent steps 400 and 800, subscription, client)."""
  monkeypatch.chdir(root)
  with gin.unlock_config():
    gin.clear_config()
    gin.parse_config_files_and_bindings(['tests/counting.gin'], [])
    described = experiment.Experiment()
    evaluating = evaluator.Evaluator(described, str(tmp_path), seed=0)
    tables_server = reverb.Server(tables.make_tables(evaluating.replay_config))
    client = reverb.Client(f'localhost:{tables_server.port}')
    evaluating._records = records.Records(str(tmp_path))
    for steps in (400, 800):
      clocks = records.Clocks(steps, steps, steps)
      evaluating._records.evaluated(clocks, 'pixels', [1.0], 0.0, 0.0, REPORT)
    yield evaluating, subscription.Subscription(client, evaluating._agent, None, 60), client
    evaluating._records.close()
    tables_server.stop()
    gin.clear_config()


def test_only_a_learner_that_is_heard_again_takes_evaluations_back(looking):
  evaluating, seen, client = looking

  def evaluated_after(version, agent_steps):
    if version >= 0:
      variables = messages.Variables(
        version=version,
        agent_steps=agent_steps,
        weights=weights.pack(evaluating._agent),
        configuration=gin.config_str(),
      )
      messages.publish(client, variables)
    evaluating._look(client, seen)
    return [row.agent_steps for row in evaluating._records.evaluations]

  assert evaluated_after(-1, 0) == [400, 800]  # a server that has started empty
  assert evaluated_after(7, 300) == [400, 800]  # or from a checkpoint older than the learner's
  assert evaluated_after(-1, 0) == [400, 800]
  assert evaluated_after(8, 810) == [400, 800]
  assert evaluated_after(9, 500) == [400]  # now it has gone back
