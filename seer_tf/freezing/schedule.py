"""When to freeze."""

import gin


@gin.configurable
class AtStep:
  """Freezes once the agent has taken `freeze_at_agent_steps` actions, as published."""

  def __init__(self, freeze_at_agent_steps: int = gin.REQUIRED):
    self.freeze_at_agent_steps = freeze_at_agent_steps

  def __call__(self, agent_steps: int) -> bool:
    """Whether the lower encoder is to be frozen once `agent_steps` actions were taken."""
    return agent_steps >= self.freeze_at_agent_steps

  def check(self, first_update_at_agent_steps: int, total_agent_steps: int):
    """Refuses a freeze that this run could never reach, or that would freeze untrained weights.

    Raises:
      ValueError: with the range that would do.
    """
    at = self.freeze_at_agent_steps
    if not first_update_at_agent_steps < at < total_agent_steps:
      raise ValueError(
        f'freeze_at_agent_steps is {at}, but it must lie after the first update (agent step '
        f'{first_update_at_agent_steps}) and before the end of the run (agent step '
        f'{total_agent_steps}): choose a value between, or change the length of the run.'
      )
