"""Updates after the freeze that spend what it saves: never freezing takes as many FLOPs."""

import gin
import pytest
import tensorflow as tf

from seer_tf.costs import ledger
from seer_tf.training import experiment as experiment_lib
from studies import freeze

STUDIED = {
  name: (freeze.TASKS[name].preset, freeze.bindings(freeze.TASKS[name], 'middle_equal_flops'))
  for name in ('cartpole_swingup', 'cartpole_swingup_curl', 'krull')
}
RUNS = {'preset': ('gin_configs/cartpole_swingup_equal_flops_cpu.gin', []), **STUDIED}


@pytest.fixture
def run(root, monkeypatch, request):
  """An experiment, the agent step of its freeze, its replay and its agent's costs."""
  monkeypatch.chdir(root)
  preset, bindings = RUNS[request.param]
  with gin.unlock_config():
    gin.clear_config()
    gin.parse_config_files_and_bindings([preset], bindings)
    experiment = experiment_lib.Experiment()
    freeze_at = experiment.schedule_fn().freeze_at_agent_steps
    environment = experiment.environment_fn()
    replay = experiment.replay_config(environment)
    agent = experiment.agent(environment, tf.Variable(0, dtype=tf.int64))
    environment.close()
    gin.clear_config()
  return experiment, freeze_at, replay, agent.costs(experiment.batch_size, replay.stored_crops)


@pytest.mark.parametrize('run', RUNS, indirect=True)
def test_no_other_number_of_updates_comes_nearer_to_never_freezing(run):
  experiment, freeze_at, replay, costs = run

  def flops(freeze_at, updates_from_latents):
    """Counted as a run counts."""
    counted = ledger.Ledger(costs)
    for agent_step in range(experiment.total_agent_steps):
      learns, from_latents = (
        agent_step >= experiment.initial_random_agent_steps,
        agent_step >= freeze_at,
      )
      counted.acted('', 1, encoded=learns, stored=from_latents)
      if learns:
        with counted.updates('', updates_from_latents if from_latents else 1, from_latents):
          pass
    if freeze_at < experiment.total_agent_steps:
      counted.converted('', freeze_at)
    return counted.flops

  assert replay.pixels_capacity >= experiment.total_agent_steps
  assert experiment.updates(from_latents=False) == 1
  never, updates = flops(experiment.total_agent_steps, 1), experiment.updates(from_latents=True)
  assert updates == min(range(1, 100), key=lambda count: abs(flops(freeze_at, count) - never))
  spent_on_latents = flops(freeze_at, updates) - freeze_at / experiment.total_agent_steps * never
  assert spent_on_latents > 0.2 * never
