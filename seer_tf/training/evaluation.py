"""Evaluating: an environment of its own, the greedy policy, the return of every episode."""

from typing import List

from tf_agents.environments import py_environment
from tf_agents.policies import py_tf_eager_policy, tf_policy
from tf_agents.train import actor


class EpisodeReturns:
  """Observer that lists the undiscounted return of each finished episode."""

  def __init__(self):
    self.returns: List[float] = []
    self._running = 0.0

  def __call__(self, trajectory):
    """Observes the `Trajectory` of one agent step or episode boundary."""
    if trajectory.is_boundary():
      self.returns.append(self._running)
      self._running = 0.0
    else:
      self._running += float(trajectory.reward)


class Evaluator:
  """Runs whole episodes with a policy and lists their returns."""

  def __init__(
    self,
    environment: py_environment.PyEnvironment,
    policy: tf_policy.TFPolicy,
    updates,
    episodes: int,
  ):
    """Makes a TF-Agents actor that runs `episodes` episodes of `environment` per evaluation."""
    self._returns = EpisodeReturns()
    self._actor = actor.Actor(
      environment,
      py_tf_eager_policy.PyTFEagerPolicy(policy, use_tf_function=True),
      updates,
      episodes_per_run=episodes,
      observers=[self._returns],
    )

  def __call__(self) -> List[float]:
    """Returns of `episodes` new episodes."""
    self._returns.returns = []
    self._actor.run()
    return self._returns.returns
