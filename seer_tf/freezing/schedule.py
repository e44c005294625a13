"""When to freeze. The learner asks its schedule before its first update and then between updates.

That is once per agent step, unless actors elsewhere take several in the time of a question.

The answer is a number of layers of the lower encoder, from the first on, that are frozen from then
on; it never falls. The schedules here freeze all at once, those in `progressive` one after another.

A schedule may look at the encoder: `watch` hands it what it needs, before the first agent step.
What it knows is plain arrays (`state`, `restore`), so that a checkpoint can hold it.
"""

import sys
import time
from typing import Callable, Dict, Mapping, Sequence

import gin
import numpy as np

from seer_tf.analysis import similarity
from seer_tf.freezing import probe as probe_lib

# As a number of frozen layers: every one, however many there are.
ALL = sys.maxsize


class Schedule:
  """What every schedule answers to; one that looks at nothing and never freezes.

  Attributes:
    reason: why it froze what it froze last, in words; empty before.
  """

  reason = ''

  def __call__(self, agent_steps: int) -> int:
    """How many layers are to be frozen once `agent_steps` actions were taken."""
    return 0

  def check(self, first_update_at_agent_steps: int, total_agent_steps: int):
    """Raises a `ValueError` if this run does not suit the schedule; called before all else."""

  def check_layers(self, names: Sequence[str]):
    """Gets to know the lower encoder's layers, first to last; called after `check`.

    Raises:
      ValueError: if they do not suit the schedule.
    """

  def watch(
    self,
    activations: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    record: Callable[[int, Mapping[str, float]], None],
  ) -> Sequence[Callable]:
    """Gets to know the encoder before the first agent step.

    Args:
      activations: of the present encoder: uint8 [B, H, W, C] -> layer name -> float [B, ...].
      record: takes agent_steps and figures by name, for TensorBoard.

    Returns:
      Observers of the `Trajectory` of every agent step until the freeze. Where others act than the
      learner they see observations out of replay instead, until `is_full` of each is true.
    """
    return ()

  def state(self) -> Dict[str, np.ndarray]:
    """What a resumed run needs to know."""
    return {}

  def restore(self, state: Mapping[str, np.ndarray]):
    """Goes on from what `state` returned; both checks and `watch` were called before."""


@gin.configurable
class Never(Schedule):
  """Never freezes: the run learns from pixels to its end."""


@gin.configurable
class AtStart(Schedule):
  """Freezes before the first update, when the initial random actions have been taken.

  The encoder stays as it was made: random, or transferred from another run.
  """

  reason = 'before the first update'

  def __call__(self, agent_steps: int) -> int:
    """All layers."""
    return ALL


@gin.configurable
class AtStep(Schedule):
  """Freezes once the agent has taken `freeze_at_agent_steps` actions, as published."""

  def __init__(self, freeze_at_agent_steps: int = gin.REQUIRED):
    self.freeze_at_agent_steps = freeze_at_agent_steps
    self.reason = 'as configured'

  def __call__(self, agent_steps: int) -> int:
    """How many layers are to be frozen once `agent_steps` actions were taken."""
    return ALL if agent_steps >= self.freeze_at_agent_steps else 0

  def check(self, first_update_at_agent_steps: int, total_agent_steps: int):
    """Refuses a freeze that this run could never reach, or that would freeze untrained weights.

    Raises:
      ValueError: with the range that would do.
    """
    at = self.freeze_at_agent_steps
    if not isinstance(at, int):
      raise ValueError(f'AtStep.freeze_at_agent_steps is {at!r}; give a whole number.')
    if not first_update_at_agent_steps < at < total_agent_steps:
      raise ValueError(
        f'freeze_at_agent_steps is {at}, but it must lie after the first update (agent step '
        f'{first_update_at_agent_steps}) and before the end of the run (agent step '
        f'{total_agent_steps}): choose a value between, or change the length of the run '
        f'(Experiment.total_agent_steps) or when it begins to learn '
        f'(Experiment.initial_random_agent_steps); to freeze an untrained encoder, bind '
        f'Experiment.schedule_fn = @AtStart.'
      )


@gin.configurable
class WhenConverged(Schedule):
  """Freezes when the layers of the lower encoder have stopped changing.

  Every `period_agent_steps` each layer's activations on a fixed probe batch (observations of the
  first agent steps, centre crops) are compared with those of the period before. Once the least
  similar layer has reached `threshold` in `patience` comparisons in a row, and the earliest step is
  there, it freezes; at the latest step it freezes anyway, and says so.
  """

  def __init__(
    self,
    earliest_agent_steps: int = gin.REQUIRED,
    latest_agent_steps: int = gin.REQUIRED,
    threshold: float = 0.99,
    patience: int = 3,
    period_agent_steps: int = 250,
    similarity_fn: Callable[[np.ndarray, np.ndarray], float] = similarity.linear_cka,
    probe_observations: int = 256,
    probe_positions: int = 3,
    probe_features: int = 64,
  ):
    """Checks its numbers.

    Args:
      earliest_agent_steps: it freezes at this agent step at the earliest.
      latest_agent_steps: and at this one at the latest.
      threshold: similarity of the least similar layer, in (0, 1], that counts as converged.
      patience: comparisons in a row that must reach it.
      period_agent_steps: agent steps between two looks at the encoder.
      similarity_fn: of `analysis.similarity`, or any other function of two activations [N, D].
      probe_observations: observations in the probe batch, kept in this process; at least 2.
      probe_positions: positions per side of a feature map that are compared; see `probe.rows`.
      probe_features: features or channels of a layer that are compared; SVCCA and PWCCA need
        several times as many observations.

    Raises:
      ValueError: for a number out of its range.
    """
    counts = dict(
      patience=patience,
      period_agent_steps=period_agent_steps,
      probe_observations=probe_observations,
      probe_positions=probe_positions,
      probe_features=probe_features,
    )
    for name, value in counts.items():
      least = 2 if name == 'probe_observations' else 1  # one alone has nothing to be compared with
      if not isinstance(value, int) or value < least:
        raise ValueError(
          f'{type(self).__name__}.{name} is {value!r}; give a whole number, at least {least}.'
        )
    for name, value in dict(
      earliest_agent_steps=earliest_agent_steps, latest_agent_steps=latest_agent_steps
    ).items():
      if not isinstance(value, int):
        raise ValueError(f'{type(self).__name__}.{name} is {value!r}; give a whole number.')
    if not 0 < threshold <= 1:
      raise ValueError(
        f'{type(self).__name__}.threshold is {threshold}; give a value above 0, up to 1.'
      )
    self._range = (earliest_agent_steps, latest_agent_steps)
    self._threshold = threshold
    self._patience = patience
    self._period = period_agent_steps
    self._similarity_fn = similarity_fn
    self._probe_sizes = (probe_observations, probe_positions, probe_features)
    self._probe = None
    self._record = None
    self._first_update = 0
    self._next_look = 0
    self._in_a_row: Dict[str, int] = {}  # comparisons, of each of the encoder's outputs
    self._previous: Dict[str, np.ndarray] = {}
    self._least = ''  # of the newest comparison in this process, in words
    self.reason = ''

  def check(self, first_update_at_agent_steps: int, total_agent_steps: int):
    """Refuses a range outside the run, or one too short ever to see convergence.

    Raises:
      ValueError: with the range that would do.
    """
    earliest, latest = self._range
    if not first_update_at_agent_steps < earliest <= latest < total_agent_steps:
      raise ValueError(
        f'{type(self).__name__} may freeze from agent step {earliest} to {latest}, but both must '
        f'lie after the first update (agent step {first_update_at_agent_steps}) and before the end '
        f'of the run (agent step {total_agent_steps}), and in this order: change '
        f'earliest_agent_steps, latest_agent_steps or the length of the run '
        f'(Experiment.total_agent_steps).'
      )
    begin = max(first_update_at_agent_steps, self._probe_sizes[0])
    needed = begin + self._patience * self._period
    if latest < needed:
      raise ValueError(
        f'{type(self).__name__}.latest_agent_steps is {latest}, too early to see convergence: '
        f'{begin} agent steps before the first look and {self._patience} periods of {self._period} '
        f'make {needed}. Give at least that, or a smaller patience, period or probe.'
      )
    self._first_update = first_update_at_agent_steps

  def check_layers(self, names: Sequence[str]):
    """Keeps the layers' names."""
    self._names = list(names)

  def watch(self, activations, record):
    """See `Schedule`; the observer fills the probe batch with early observations, evenly.

    From the first agent step on it takes one of every so many that it is full soon after the first
    update at the latest, if this process acts.
    """
    size, positions, features = self._probe_sizes
    every = max(1, self._first_update // size)
    self._probe = probe_lib.Probe(activations, size, every, positions, features)
    self._record = record
    return (self._probe,)

  def __call__(self, agent_steps: int) -> int:
    """How many layers are to be frozen; looks at the encoder where a period is over."""
    earliest, latest = self._range
    if agent_steps >= self._next_look and self._probe.is_full:
      self._look(agent_steps)
    frozen = 0
    if agent_steps >= latest:
      frozen = self._frozen_at_the_latest()
    elif agent_steps >= earliest:
      frozen = self._frozen_so_far()
    if frozen >= len(self._names):  # there is nothing left to look at
      self._next_look, self._previous = ALL, {}
      self._probe.close()
    return frozen

  def _frozen_so_far(self) -> int:
    """Layers to freeze between the earliest and the latest step: all, if all have converged."""
    times = min(self._in_a_row.values(), default=0)
    if times < self._patience:
      return 0
    self.reason = (
      f'converged: each layer at least {self._threshold:g} similar to itself '
      f'{self._period} agent steps before, {times} times in a row'
    )
    return ALL

  def _frozen_at_the_latest(self) -> int:
    """All layers, whether they have converged or not."""
    if self._frozen_so_far() < ALL:
      self.reason = (
        f'it has NOT converged, but this is {type(self).__name__}.latest_agent_steps: '
        f'{min(self._in_a_row.values(), default=0)} comparisons in a row reached '
        f'{self._threshold:g}, not {self._patience}{self._least}'
      )
    return ALL

  def _look(self, agent_steps: int):
    """Compares each layer with itself a period ago."""
    start = time.perf_counter()
    self._next_look = agent_steps + self._period
    now, figures = self._probe.measure(), {}
    for name, output in now.items():
      if not np.isfinite(output).all():
        raise ValueError(
          f'Layer {name} puts out values that are infinite or not numbers at agent step '
          f'{agent_steps}: learning has diverged. Try a smaller learning rate.'
        )
    if self._previous:
      figures = {
        name: self._similarity_fn(self._previous[name], output) for name, output in now.items()
      }
      self._in_a_row = {
        name: self._in_a_row.get(name, 0) + 1 if value >= self._threshold else 0
        for name, value in figures.items()
      }
      value, name = min((value, name) for name, value in figures.items())
      self._least = f'; in the last one {name} was least similar, {value:.3g}'
      figures['converged_in_a_row'] = min(self._in_a_row.values())
    self._record(agent_steps, {**figures, 'seconds': time.perf_counter() - start})
    self._previous = now

  def state(self) -> Dict[str, np.ndarray]:
    """The probe batch, the activations of the last look, and where the counts stand."""
    return {
      'next_look': np.asarray(self._next_look, np.int64),
      **{f'in_a_row/{name}': np.asarray(n, np.int64) for name, n in self._in_a_row.items()},
      **{f'probe/{name}': value for name, value in self._probe.state().items()},
      **{f'previous/{name}': value for name, value in self._previous.items()},
    }

  def restore(self, state: Mapping[str, np.ndarray]):
    """Goes on from what `state` returned; both checks and `watch` were called before."""
    below = lambda prefix: {
      name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)
    }
    self._next_look = int(state['next_look'])
    self._in_a_row = {name: int(count) for name, count in below('in_a_row/').items()}
    self._probe.restore(below('probe/'))
    self._previous = below('previous/')
