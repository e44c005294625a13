"""Settings of a run that do not fit together, found before its first agent step."""

from seer_tf.replay import tables
from seer_tf.training import experiment as experiment_lib


def check_first_sample(experiment: experiment_lib.Experiment, config: tables.ReplayConfig):
  """Refuses a run that would wait for a transition that replay cannot hold yet, or ever.

  Raises:
    ValueError: with the smallest number that would do.
  """
  needed = config.rows_to_sample
  rows = {
    'Experiment.initial_random_agent_steps': experiment.initial_random_agent_steps,
    'ReplayConfig.pixels_capacity': config.pixels_capacity,
    'ReplayConfig.latents_capacity': config.latents_capacity,
  }
  for name, count in rows.items():
    if count < needed:
      raise ValueError(
        f'{name} is {count}, but before the first update replay must hold {needed} rows: a block '
        f'and the ReplayConfig.n_step = {config.n_step} agent steps behind it. Give at least '
        f'{needed}, or a smaller ReplayConfig.n_step, block_length or pixels_block_length.'
      )


def check_streams(config: tables.ReplayConfig):
  """Refuses what does not go with actors of their own.

  Raises:
    ValueError: with what to bind instead.
  """
  if config.prioritised:
    raise ValueError(
      f'ReplayConfig.priority_exponent is {config.priority_exponent}, but priorities are known to '
      'one process only: bind 0 for actors of their own, or use launch.train.'
    )


def check_draws(experiment: experiment_lib.Experiment, config: tables.ReplayConfig, agent):
  """Refuses what no batch could be drawn or ranked by.

  Raises:
    ValueError: with what to bind instead.
  """
  if config.prioritised and not agent.has_td_errors:
    raise ValueError(
      f'ReplayConfig.priority_exponent is {config.priority_exponent}, but '
      f'{type(agent).__name__} has no TD error of each transition to make priorities of: '
      'bind 0 for uniform replay, or Experiment.agent_fn = @SeerDqnAgent.'
    )
  if experiment.draws_per_block > config.block_length:
    raise ValueError(
      f'Experiment.draws_per_block is {experiment.draws_per_block}, but an item of latents owns '
      f'ReplayConfig.block_length = {config.block_length} rows: give no more than that.'
    )
