"""The ledger: FLOPs, seconds and counts of a run, in each phase."""

import collections
import contextlib
import json
import time
from typing import Dict, Mapping

import numpy as np

from seer_tf.costs import flops


class Ledger:
  """Adds up what each phase of a run took. Evaluation is outside: neither counted nor timed."""

  def __init__(self, costs: flops.Costs):
    """Starts at zero.

    Args:
      costs: FLOPs of an action, a stored observation and an update, from here on; a layer that
        freezes changes them.
    """
    self.costs = costs
    self._flops = collections.Counter()
    self._seconds = collections.Counter()
    self._agent_steps = collections.Counter()
    self._updates = collections.Counter()
    self._update_seconds = collections.Counter()
    self._waiting_seconds = collections.Counter()

  @contextlib.contextmanager
  def timed(self, phase: str):
    """Adds the wall-clock seconds inside to `phase`."""
    start = time.perf_counter()
    try:
      yield
    finally:
      self._seconds[phase] += time.perf_counter() - start

  @contextlib.contextmanager
  def updates(self, phase: str, count: int, from_latents: bool):
    """Adds `count` updates to `phase`, timed as updates (waiting for data included)."""
    start = time.perf_counter()
    yield
    self._update_seconds[phase] += time.perf_counter() - start
    self._updates[phase] += count
    costs = self.costs
    self._flops[phase] += count * (
      costs.update_from_latents if from_latents else costs.update_from_pixels
    )

  def waited(self, phase: str, seconds: float):
    """Adds seconds of the updates of `phase` in which the learner waited for data."""
    self._waiting_seconds[phase] += seconds

  def acted(self, phase: str, agent_steps: int, encoded: bool, stored: bool):
    """Adds agent steps to `phase`: encoded for acting (not if random), stored as latents."""
    self._agent_steps[phase] += agent_steps
    each = encoded * self.costs.act + stored * self.costs.store
    self._flops[phase] += agent_steps * each

  def converted(self, phase: str, observations: int):
    """Adds observations that were converted to latents to `phase`."""
    self._flops[phase] += observations * self.costs.convert

  def state(self) -> Dict[str, np.ndarray]:
    """The sums so far, for a checkpoint."""
    return {'sums': np.asarray(json.dumps(self._sums))}

  def restore(self, state: Mapping[str, np.ndarray]):
    """Goes on from what `state` returned."""
    for name, sums in json.loads(str(state['sums'])).items():
      self._sums[name].clear()
      self._sums[name].update(sums)

  @property
  def _sums(self) -> Dict[str, collections.Counter]:
    return dict(
      flops=self._flops,
      seconds=self._seconds,
      agent_steps=self._agent_steps,
      updates=self._updates,
      update_seconds=self._update_seconds,
      waiting_seconds=self._waiting_seconds,
    )

  @property
  def flops(self) -> int:
    """FLOPs of the whole run so far."""
    return sum(self._flops.values())

  @property
  def seconds(self) -> float:
    """Wall-clock seconds of the whole run so far, without evaluation."""
    return sum(self._seconds.values())

  def phase(self, phase: str) -> dict:
    """Totals of one phase; rates are NaN where nothing was counted."""
    ratio = lambda a, b: a / b if b else float('nan')
    return dict(
      flops=self._flops[phase],
      seconds=self._seconds[phase],
      agent_steps=self._agent_steps[phase],
      updates=self._updates[phase],
      seconds_per_1000_agent_steps=1e3 * ratio(self._seconds[phase], self._agent_steps[phase]),
      ms_per_update=1e3 * ratio(self._update_seconds[phase], self._updates[phase]),
      waiting_percent=1e2 * ratio(self._waiting_seconds[phase], self._update_seconds[phase]),
    )
