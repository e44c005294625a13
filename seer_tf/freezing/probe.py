"""The fixed observations on which an encoder's layers are compared with themselves over time."""

from typing import Callable, Dict, List, Mapping

import numpy as np

# Observations that go through the encoder together: what the wide first layers put out is large.
_BATCH_SIZE = 64


class Probe:
  """Collects observations early in a run, then measures layers on them, whenever it is asked.

  It is an observer of trajectories, like a writer.
  """

  def __init__(
    self,
    activations: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    size: int,
    every: int,
    positions: int,
    features: int,
  ):
    """Starts empty.

    Args:
      activations: of the present encoder: uint8 [B, H, W, C] -> layer name -> float [B, ...].
      size: observations to collect.
      every: agent steps from one of them to the next.
      positions: see `rows`.
      features: see `rows`.
    """
    self._activations = activations
    self._size = size
    self._every = every
    self._limits = (positions, features)
    self._seen = 0
    self._observations: List[np.ndarray] = []

  @property
  def is_full(self) -> bool:
    """Whether all observations are there."""
    return len(self._observations) >= self._size

  def __call__(self, trajectory):
    """Observes the `Trajectory` of one agent step or episode boundary, unbatched."""
    if self.is_full or trajectory.is_boundary():
      return
    if self._seen % self._every == 0:
      self._observations.append(np.array(trajectory.observation, np.uint8))
    self._seen += 1

  def measure(self) -> Dict[str, np.ndarray]:
    """What each layer puts out now, bounded by `rows`: layer name -> float32 [N, features]."""
    parts = [
      {
        name: rows(np.asarray(output), *self._limits)
        for name, output in self._activations(
          np.stack(self._observations[first : first + _BATCH_SIZE])
        ).items()
      }
      for first in range(0, len(self._observations), _BATCH_SIZE)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

  def close(self):
    """Forgets the observations: nothing is to be measured any more."""
    self._size, self._observations = 0, []

  def state(self) -> Dict[str, np.ndarray]:
    """All that a resumed run needs: `restore` takes it."""
    state = {'seen': np.asarray(self._seen, np.int64), 'size': np.asarray(self._size, np.int64)}
    if self._observations:
      state['observations'] = np.stack(self._observations)
    return state

  def restore(self, state: Mapping[str, np.ndarray]):
    """Goes on from what `state` returned."""
    self._seen, self._size = int(state['seen']), int(state['size'])
    self._observations = list(state.get('observations', []))


def rows(output: np.ndarray, positions: int, features: int) -> np.ndarray:
  """A layer's output as a matrix of bounded size, for a measure of similarity.

  Each of a few positions of a feature map, spread evenly over it, is an example of its own and the
  channels are the features (as Raghu et al. 2017 compare convolutions): so examples outnumber
  features, which canonical correlations need. Channels beyond the limit are left out evenly.

  Args:
    output: [B, features] or [B, height, width, channels].
    positions: largest number of positions per side of a feature map.
    features: largest number of features.

  Returns:
    float32 [B * positions used, features used].
  """
  some = lambda length, limit: np.unique(np.linspace(0, length - 1, min(length, limit)).astype(int))
  for axis in range(1, output.ndim):
    is_last = axis == output.ndim - 1
    chosen = some(output.shape[axis], features if is_last else positions)
    output = np.take(output, chosen, axis)
  return np.ascontiguousarray(output.reshape(-1, output.shape[-1]), np.float32)
