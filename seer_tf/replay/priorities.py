"""Which transitions are drawn how often: all alike, or by proportional prioritisation.

Schaul et al., Prioritized Experience Replay, 2016, as Rainbow (Hessel et al. 2018) uses it. With
p_i the newest error of transition i, of N in the table,

    P(i) = p_i^omega / sum_j p_j^omega      w_i = (N P(i))^-beta / max_{batch} w

the server draws by P, and an update weights its losses by w; beta grows in a straight line from its
initial value to 1 at the end of learning. A transition that was never drawn has the largest p there
has been, so that each is soon seen.

`UniformReplay` and `PrioritisedReplay` have the same methods: a writer asks `of` for priorities, a
learner weights a batch by `weights` and tells `learned` what came of it.

Not guaranteed: that a priority is of the present weights. It is as old as the transition's last
update, and the few batches that are drawn ahead were drawn before the updates in between.
"""

from typing import Any, Dict, Mapping, NamedTuple, Tuple

import gin
import numpy as np
import reverb
import tensorflow as tf

from seer_tf.replay import server, tables, writers


class Drawn(NamedTuple):
  """How a batch was drawn by priority; of uniform replay datasets give () instead."""

  table: Any  # string, a scalar: its table
  key: Any  # uint64 [B], of the items in the server
  number: Any  # int64 [B], of the rows in their stream, where the transitions start
  probability: Any  # float64 [B], P at the time of drawing
  table_size: Any  # int64 [B], N at the time of drawing


def importance_weights(probability: tf.Tensor, table_size: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
  """Weights float32 [B], the largest of them 1, that undo the share `beta` of the bias.

  Args:
    probability: float64 [B], P of each transition.
    table_size: [B], N.
    beta: scalar in [0, 1]; 1 undoes the bias fully.
  """
  drawn_too_often = tf.cast(table_size, tf.float64) * tf.cast(probability, tf.float64)
  weights = drawn_too_often ** -tf.cast(beta, tf.float64)
  return tf.cast(weights / tf.reduce_max(weights), tf.float32)


class UniformReplay:
  """Draws all transitions alike: no priorities, no weights."""

  def of(self, numbers: np.ndarray) -> np.ndarray:
    """What writers give items for a priority: the time, see `writers.creation_times`."""
    return writers.creation_times(numbers)

  def weights(self, drawn, agent_steps):
    """The weights of a batch in its update: none."""

  def learned(self, drawn, loss_info):
    """Takes note of an update."""

  def state(self) -> Dict[str, np.ndarray]:
    """What a resumed run needs to know."""
    return {}

  def restore(self, state: Mapping[str, np.ndarray]):
    """Goes on from what `state` returned."""


@gin.configurable
class PrioritisedReplay:
  """Priorities by the numbers of rows, which they keep when pixels become latents.

  It knows those of as many rows as replay can hold, 12 bytes each, and keeps the server's equal to
  them. Rows must be of one stream. Not thread-safe.
  """

  def __init__(
    self,
    client: reverb.Client,
    config: tables.ReplayConfig,
    learning: Tuple[int, int],
    initial_beta: float = 0.4,
    least_priority: float = 1e-6,
    timeout_seconds: float = 60,
  ):
    """Knows no row yet.

    Args:
      client: of the replay server.
      config: what it holds.
      learning: agent steps at which learning begins, and at which it ends and beta is 1.
      initial_beta: beta where learning begins, in [0, 1].
      least_priority: added to every error, so that none is never drawn again; above 0.
      timeout_seconds: limit of each wait for the server.

    Raises:
      ValueError: if a number makes no sense.
    """
    if not 0 <= initial_beta <= 1:
      raise ValueError(f'PrioritisedReplay.initial_beta is {initial_beta}; give 0 to 1.')
    if not 0 < least_priority < np.inf:
      raise ValueError(
        f'PrioritisedReplay.least_priority is {least_priority}; give a finite number above 0.'
      )
    self._client = client
    self._learning = learning
    self._initial_beta = initial_beta
    self._least_priority = least_priority
    self._timeout_seconds = timeout_seconds
    # Row i is in place i modulo the size, as long as no later one has taken it.
    windows = (*config.pixels_layouts.values(), *config.latents_layouts.values())
    rows = max(config.pixels_capacity, config.latents_capacity)
    size = rows + max(layout.window for layout in windows)
    self._numbers = np.full(size, -1, np.int64)
    self._priorities = np.zeros(size, np.float32)
    self._largest = 1.0

  def of(self, numbers: np.ndarray) -> np.ndarray:
    """Priorities float32 [N] of the rows with `numbers` int64 [N].

    A row not known yet gets, and keeps, the largest priority there has been.
    """
    places = numbers % len(self._numbers)
    new = self._numbers[places] != numbers
    self._numbers[places[new]] = numbers[new]
    self._priorities[places[new]] = self._largest
    return self._priorities[places]

  def weights(self, drawn: Drawn, agent_steps: tf.Tensor) -> tf.Tensor:
    """The importance weights float32 [B] of a batch, after so many agent steps."""
    first, last = self._learning
    done = tf.cast(agent_steps - first, tf.float64) / max(1, last - first)
    done = tf.clip_by_value(done, 0.0, 1.0)
    beta = self._initial_beta + (1 - self._initial_beta) * done
    return importance_weights(drawn.probability, drawn.table_size, beta)

  def learned(self, drawn: Drawn, loss_info):
    """Takes the batch's errors for its priorities, here and in the server; also in a graph.

    Args:
      drawn: the batch.
      loss_info: what the agent's update returned; its extra has `td_error`, float32 [B].

    Raises:
      ValueError, TimeoutError: as `update`; in a graph as a `tf.errors.OpError`.
    """
    inputs = [drawn.table, drawn.key, drawn.number, loss_info.extra.td_error]
    tf.numpy_function(lambda table, *batch: self.update(table.decode(), *batch), inputs, [])

  def update(self, table: str, keys: np.ndarray, numbers: np.ndarray, errors: np.ndarray):
    """Sets priorities, |error| and a little more; of rows that occur twice the last counts.

    Args:
      table: 'pixels' or 'latents'.
      keys: uint64 [B], of the items. Those that the table has evicted are passed over.
      numbers: int64 [B], of their rows.
      errors: float32 [B].

    Raises:
      ValueError: if an error is not finite.
      TimeoutError: if the server does not answer.
    """
    priorities = np.abs(errors).astype(np.float64) + self._least_priority
    if not np.isfinite(priorities).all():
      raise ValueError(
        f'{np.sum(~np.isfinite(priorities))} of {len(errors)} TD errors are not finite, and no '
        'priority can be made of them: learning has diverged; lower its learning rate.'
      )
    self._largest = max(self._largest, float(priorities.max()))
    places = numbers % len(self._numbers)
    known = self._numbers[places] == numbers
    self._priorities[places[known]] = priorities[known]
    changes = dict(zip(keys.tolist(), priorities.tolist()))
    server.with_limit(
      lambda: self._client.mutate_priorities(table, updates=changes),
      self._timeout_seconds,
      f'Replay server {self._client.server_address}, table {table}, new priorities',
    )

  def state(self) -> Dict[str, np.ndarray]:
    """What a resumed run needs to know: the rows known, by number, and the largest priority."""
    known = self._numbers >= 0
    return {
      'numbers': self._numbers[known],
      'priorities': self._priorities[known],
      'largest': np.asarray(self._largest),
    }

  def restore(self, state: Mapping[str, np.ndarray]):
    """Goes on from what `state` returned."""
    places = state['numbers'] % len(self._numbers)
    self._numbers[places] = state['numbers']
    self._priorities[places] = state['priorities']
    self._largest = float(state['largest'])


def of_replay(
  client: reverb.Client,
  config: tables.ReplayConfig,
  learning: Tuple[int, int],
  timeout_seconds: float,
):
  """The one of the two that a configuration asks for."""
  if not config.prioritised:
    return UniformReplay()
  return PrioritisedReplay(client, config, learning, timeout_seconds=timeout_seconds)
