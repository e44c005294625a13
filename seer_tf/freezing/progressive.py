"""Layer after layer: each freeze makes the update cheaper at once; replay is converted at the last.

A layer freezes no earlier than those below it, whose output it was trained on.
"""

from typing import Dict, Mapping, Sequence

import gin
import numpy as np

from seer_tf.freezing import schedule


@gin.configurable
class Progressive(schedule.Schedule):
  """Freezes each layer once the agent has taken a number of actions of its own."""

  def __init__(self, freeze_at_agent_steps: Mapping[str, int] = gin.REQUIRED):
    """Keeps the order that it is given.

    Args:
      freeze_at_agent_steps: name of each layer below the cut, first to last -> agent steps, never
        fewer than for the layer below it: {'conv1': 2000, 'conv2': 3000, …}.

    Raises:
      ValueError: if it is something else.
    """
    if not isinstance(freeze_at_agent_steps, Mapping) or not all(
      isinstance(at, int) for at in freeze_at_agent_steps.values()
    ):
      raise ValueError(
        f'Progressive.freeze_at_agent_steps is {freeze_at_agent_steps!r}; give the name of each '
        "layer and its agent step, such as {'conv1': 2000, 'conv2': 3000}."
      )
    self._steps = dict(freeze_at_agent_steps)

  def check(self, first_update_at_agent_steps: int, total_agent_steps: int):
    """Refuses a layer that would freeze untrained or never, or earlier than one below it.

    Raises:
      ValueError: with the range, or the order, that would do.
    """
    below = ''
    for name, at in self._steps.items():
      if not first_update_at_agent_steps < at < total_agent_steps:
        raise ValueError(
          f'Progressive.freeze_at_agent_steps has {at} for {name}, but it must lie after the first '
          f'update (agent step {first_update_at_agent_steps}) and before the end of the run (agent '
          f'step {total_agent_steps}): choose a value between, or change the length of the run '
          f'(Experiment.total_agent_steps).'
        )
      if below and at < self._steps[below]:
        raise ValueError(
          f'Progressive.freeze_at_agent_steps has {at} for {name} and {self._steps[below]} for '
          f'{below}, which is below it: a layer cannot freeze earlier than those below it.'
        )
      below = name

  def check_layers(self, names: Sequence[str]):
    """Refuses an order that names other layers, or skips one.

    Raises:
      ValueError: with the order that would do.
    """
    if list(self._steps) != list(names):
      unknown = sorted(set(self._steps) - set(names))
      skipped = [name for name in names if name not in self._steps]
      what = f'unknown: {unknown}' if unknown else f'skipped: {skipped}' if skipped else 'order'
      raise ValueError(
        f'Progressive.freeze_at_agent_steps names {list(self._steps)} ({what}); name every layer '
        f'up to Experiment.freeze_up_to, in this order: {list(names)}.'
      )

  def __call__(self, agent_steps: int) -> int:
    """How many layers are to be frozen once `agent_steps` actions were taken."""
    frozen = sum(agent_steps >= at for at in self._steps.values())
    if frozen:
      self.reason = 'as configured'
    return frozen


@gin.configurable
class ProgressiveWhenConverged(schedule.WhenConverged):
  """Freezes a layer when it, and each one below it, has stopped changing.

  As `schedule.WhenConverged`, with the same parameters, but for each layer by itself. At the latest
  step it freezes what has not converged, and says so.
  """

  def check_layers(self, names: Sequence[str]):
    """Keeps the layers' names; none is frozen yet."""
    super().check_layers(names)
    self._frozen = 0

  def _frozen_so_far(self) -> int:
    """Layers to freeze between the earliest and the latest step."""
    while self._frozen < len(self._names) and self._times(self._frozen) >= self._patience:
      self.reason = (
        f'converged: {self._names[self._frozen]} at least {self._threshold:g} similar to itself '
        f'{self._period} agent steps before, {self._times(self._frozen)} times in a row'
      )
      self._frozen += 1
    return self._frozen

  def _frozen_at_the_latest(self) -> int:
    """All layers; says which have not converged."""
    rest = self._names[self._frozen_so_far() :]
    if rest:
      self.reason = (
        f'{", ".join(rest)} have NOT converged, but this is {type(self).__name__}.'
        f'latest_agent_steps: {self._times(self._frozen)} comparisons of {rest[0]} in a row '
        f'reached {self._threshold:g}, not {self._patience}'
      )
    return len(self._names)

  def _times(self, layer: int) -> int:
    """Comparisons in a row in which all that a layer puts out was similar enough."""
    own = [n for name, n in self._in_a_row.items() if name.split('/')[0] == self._names[layer]]
    return min(own, default=0)

  def state(self) -> Dict[str, np.ndarray]:
    """See `schedule.WhenConverged`; and how many layers are frozen."""
    return {**super().state(), 'frozen': np.asarray(self._frozen, np.int64)}

  def restore(self, state: Mapping[str, np.ndarray]):
    """Goes on from what `state` returned; both checks and `watch` were called before."""
    super().restore(state)
    self._frozen = int(state['frozen'])
