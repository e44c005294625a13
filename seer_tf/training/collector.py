"""Collecting: one environment and its running episode, whatever the policy and the writer."""

from typing import Callable, Sequence

from tf_agents.drivers import py_driver
from tf_agents.environments import py_environment
from tf_agents.metrics import py_metrics
from tf_agents.policies import py_policy


class Collector:
  """Takes agent steps in an environment and shows each to observers.

  TF-Agents' `Actor` resets its environment when it is made; a collector keeps the running episode
  when policy and observers change, so that nothing is lost at the switch from pixels to latents.
  """

  def __init__(self, environment: py_environment.PyEnvironment):
    """Resets `environment`; call `act_with` before `run`."""
    self._environment = environment
    self._time_step = environment.reset()
    self._policy_state = ()
    self._driver = None
    self._returns = py_metrics.AverageReturnMetric(buffer_size=1)
    self._episodes = py_metrics.NumberOfEpisodes()
    self.agent_steps = 0

  def act_with(self, policy: py_policy.PyPolicy, observers: Sequence[Callable]):
    """Acts with `policy` from the next agent step on, in the same episode.

    Args:
      policy: acts on unbatched time steps.
      observers: called with the `Trajectory` of every agent step and of every episode boundary.
    """
    self._policy_state = policy.get_initial_state(self._environment.batch_size or 1)
    self._driver = py_driver.PyDriver(
      self._environment, policy, [self._returns, self._episodes, *observers], max_steps=1
    )

  def run(self):
    """Takes one agent step, resetting the environment first if the last one ended an episode."""
    self._time_step, self._policy_state = self._driver.run(self._time_step, self._policy_state)
    self.agent_steps += 1

  @property
  def env_frames(self) -> int:
    """Frames that the simulator has advanced."""
    return self._environment.env_frames

  @property
  def last_return(self) -> float:
    """Undiscounted return of the newest finished episode; NaN before the first."""
    return float(self._returns.result()) if self._episodes.result() else float('nan')
