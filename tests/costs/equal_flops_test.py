"""The preset that spends on updates what the freeze saves takes as many FLOPs as never freezing."""

import gin
import pytest
import tensorflow as tf

from seer_tf.costs import ledger
from seer_tf.training import experiment as experiment_lib


@pytest.fixture
def run(root, monkeypatch):
  """The preset's experiment, its replay and its agent's costs."""
  monkeypatch.chdir(root)
  with gin.unlock_config():
    gin.clear_config()
    gin.parse_config_files_and_bindings(['gin_configs/cartpole_swingup_equal_flops_cpu.gin'], [])
    experiment = experiment_lib.Experiment()
    freeze_at = experiment.schedule_fn().freeze_at_agent_steps
    environment = experiment.environment_fn()
    replay = experiment.replay_config(environment)
    agent = experiment.agent(environment, tf.Variable(0, dtype=tf.int64))
    environment.close()
    gin.clear_config()
  return experiment, freeze_at, replay, agent.costs(experiment.batch_size, replay.stored_crops)


def test_equal_flops(run):
  experiment, freeze_at, replay, costs = run

  def flops(freeze_at):
    """Counted as a run counts."""
    counted = ledger.Ledger(costs)
    for agent_step in range(experiment.total_agent_steps):
      learns, from_latents = (
        agent_step >= experiment.initial_random_agent_steps,
        agent_step >= freeze_at,
      )
      counted.acted('', 1, encoded=learns, stored=from_latents)
      if learns:
        with counted.updates('', experiment.updates(from_latents), from_latents):
          pass
    if freeze_at < experiment.total_agent_steps:
      counted.converted('', freeze_at)
    return counted.flops

  assert replay.pixels_capacity >= experiment.total_agent_steps
  never = flops(experiment.total_agent_steps)
  assert abs(flops(freeze_at) / never - 1) < 0.02
  spent_on_latents = flops(freeze_at) - freeze_at / experiment.total_agent_steps * never
  assert spent_on_latents > 0.2 * never
