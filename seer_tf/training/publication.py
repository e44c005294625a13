"""What a learner publishes: how it stands, and the weights to act with, when they are due."""

import collections
import time
from typing import Dict

import gin
import numpy as np
import reverb

from seer_tf.replay import messages
from seer_tf.training import faults, weights

# Versions whose updates are remembered: what an actor acts on is hardly older.
_VERSIONS = 1000


class Publication:
  """Counts versions and orders across publications, and across starts of a run."""

  def __init__(self, agent, with_weights: bool, period_seconds: float):
    """Publishes nothing yet.

    Args:
      agent: whose phase and weights are published.
      with_weights: whether anybody needs weights.
      period_seconds: from one publication to the next that is due by itself.
    """
    self._agent = agent
    self._with_weights = with_weights
    self._period_seconds = period_seconds
    self._configuration = gin.config_str() if with_weights else ''
    self._version = 0
    self._learner = self._begun = 0
    self._order = 0
    self._next = 0.0
    self._updates: Dict[int, int] = collections.OrderedDict()

  @property
  def is_due(self) -> bool:
    """Whether whoever reads it has waited long enough."""
    return time.monotonic() >= self._next

  def publish(self, client: reverb.Client, timeout_seconds: float, **values):
    """Publishes `values` of `messages.Variables`, with phase, weights, version and order.

    Raises:
      TimeoutError: if the server does not answer.
    """
    # Of the time, too: learner and server may both have gone back behind what actors have read.
    self._version = max(self._version + 1, int(1e3 * time.time()))
    variables = messages.Variables(
      phase=int(self._agent.phase),
      version=self._version,
      learner=self._learner,
      weights=weights.pack(self._agent) if self._with_weights else b'',
      configuration=self._configuration,
      checkpoint_order=self._order,
      **values,
    )
    faults.reach('publication')
    messages.publish(client, variables, timeout_seconds)
    self._next = time.monotonic() + self._period_seconds
    self._updates[self._version] = variables.updates
    while len(self._updates) > _VERSIONS:
      self._updates.popitem(last=False)

  def order_checkpoint(self) -> int:
    """The next publication asks the server for a checkpoint; returns the order's number."""
    self._order += 1
    return self._order

  def is_anothers(self, version: int) -> bool:
    """Whether this version comes from another learner: it is newer than all of this one's."""
    return version > self._version

  def gives_way(self, version: int, learner: int) -> bool:
    """Whether another learner has published this since, which was here before."""
    return version > self._begun and learner < self._learner

  def begin(self, variables: messages.Variables):
    """Goes on behind what an earlier start has published, as a server still has it."""
    self._learner = int(1e3 * time.time())
    self._version = max(self._version, variables.version)
    self._order = max(self._order, variables.checkpoint_order)
    self._begun = self._version

  def age(self, version: int, updates: int) -> float:
    """Updates made since `version` was published; NaN if that is not known any more."""
    return updates - self._updates[version] if version in self._updates else float('nan')

  def state(self) -> Dict[str, np.ndarray]:
    """The counts."""
    return {'counts': np.asarray([self._version, self._order], np.int64)}

  def restore(self, state):
    """Goes on from what `state` returned."""
    self._version, self._order = (int(count) for count in state['counts'])
