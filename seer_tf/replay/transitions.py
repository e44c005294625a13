"""The one transition builder: windows of rows in, n-step transitions out.

Replay stores streams of rows (`tables.Row`); an item is a window of W consecutive rows of one
stream and a position in it is where a transition starts. Everything that depends on episode ends,
truncations, padding and the write head is computed here, once, for pixels and latents alike. All
functions are pure, work on batches of windows and hold no loop over time.

Row t holds o_t, a_t, r_{t+1}, d_{t+1} and the step type of o_t. A LAST row shows the observation
that ended an episode; its action, reward and discount mean nothing and are never used. A stream may
also be cut: a FIRST row that does not follow a LAST row (an actor was restarted), or PADDING rows
behind the newest row (the write head).

With k = min(n, steps to the LAST row, steps to the write head or cut):

    return     R = sum_{i<k} gamma^i (prod_{j<i} d_{t+1+j}) r_{t+1+i}
    discount   D = gamma^k prod_{j<k} d_{t+1+j}
    target       = R + D * value(o_{t+k})

so a time limit (LAST with discount 1) bootstraps from the last observation, a terminal (discount 0)
does not, and no window crosses an episode or the write head.

    rows: FIRST  MID  MID  LAST FIRST  MID  PADDING       n = 3
    k:      3     2    1    0     1     0      0          valid where k > 0
"""

from typing import Callable, NamedTuple, Optional, Tuple

import tensorflow as tf
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.trajectories import time_step as ts

from seer_tf.replay import tables


class Targets(NamedTuple):
  """n-step targets of a batch of starts; where `valid` is False the rest is without meaning."""

  steps: tf.Tensor  # int32 [B], k: agent steps from the start to the bootstrap observation
  n_step_return: tf.Tensor  # float32 [B], R
  discount: tf.Tensor  # float32 [B], D: gamma is in it, so an agent must not apply its own
  valid: tf.Tensor  # bool [B]


def _at(values: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
  """Rows `index` ([B] or [B, N]) of `values` ([B, W, ...]), each window its own."""
  return tf.gather(values, index, batch_dims=1)


def stack_indices(step_type: tf.Tensor, position: tf.Tensor, frame_stack: int) -> tf.Tensor:
  """Rows whose frames a frame-stacking environment would show at `position`.

  The stack never reaches over the FIRST row of the position's episode, over a cut or into padding:
  it repeats the oldest frame it may use, as the live environment does at reset.

  Args:
    step_type: int32 [B, W].
    position: int32 [B], in [0, W); the row there must not be PADDING.
    frame_stack: frames in a stack, >= 1. Rows in front of the window count as not there, so an
      exact stack needs frame_stack - 1 rows of history in front of `position`.

  Returns:
    int32 [B, frame_stack], oldest to newest; the last column is `position`.
  """
  step_type.shape.assert_has_rank(2)
  position = tf.cast(position, tf.int32)
  back = tf.range(1, frame_stack, dtype=tf.int32)
  older = position[:, None] - back
  newer_type = _at(step_type, tf.maximum(older + 1, 0))
  older_type = _at(step_type, tf.maximum(older, 0))
  joined = (
    (older >= 0)
    & (newer_type != ts.StepType.FIRST)
    & (older_type != ts.StepType.LAST)
    & (older_type != tables.PADDING)
  )
  reach = tf.reduce_sum(tf.math.cumprod(tf.cast(joined, tf.int32), axis=1), axis=1)
  lag = tf.range(frame_stack - 1, -1, -1, dtype=tf.int32)
  return position[:, None] - tf.minimum(lag, reach[:, None])


def stack_frames(frames: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
  """Stacks of the frames at `indices`, oldest first.

  Args:
    frames: [B, W, h, w, C], any type.
    indices: int32 [B, S].

  Returns:
    [B, h, w, S * C].
  """
  frames.shape.assert_has_rank(5)
  indices.shape.assert_has_rank(2)
  return as_stacks(_at(frames, indices))


def as_stacks(frames: tf.Tensor) -> tf.Tensor:
  """[B, S, h, w, C] -> [B, h, w, S * C]; for few channels much faster than to concatenate."""
  height, width, channels = frames.shape[2:]
  stacked = tf.transpose(frames, [0, 2, 3, 1, 4])
  return tf.reshape(stacked, [-1, height, width, frames.shape[1] * channels])


def starts(here, following):
  """Whether rows start a transition, from step types of them and of the rows after; any arrays."""
  first, mid, last = ts.StepType.FIRST, ts.StepType.MID, ts.StepType.LAST
  return ((here == first) | (here == mid)) & ((following == mid) | (following == last))


def n_step_targets(
  step_type: tf.Tensor,
  reward: tf.Tensor,
  discount: tf.Tensor,
  position: tf.Tensor,
  n_step: int,
  gamma: float,
) -> Targets:
  """n-step returns and discounts of the transitions that start at `position`.

  The equations stand at the top of this file.

  Args:
    step_type: int32 [B, W].
    reward: float32 [B, W], r_{t+1}.
    discount: float32 [B, W], the environment's discount d_{t+1}.
    position: int32 [B], in [0, W). Rows behind the window count as not yet written, so n_step rows
      must follow.
    n_step: n >= 1.
    gamma: discount per agent step.

  Returns:
    Targets. A start is valid if its row is FIRST or MID and the row after it continues its episode.
  """
  step_type.shape.assert_has_rank(2)
  position = tf.cast(position, tf.int32)
  length = tf.shape(step_type)[1]
  here = position[:, None] + tf.range(n_step, dtype=tf.int32)
  here_type = _at(step_type, tf.minimum(here, length - 1))
  next_type = _at(step_type, tf.minimum(here + 1, length - 1))
  joined = (here + 1 < length) & starts(here_type, next_type)
  used = tf.math.cumprod(tf.cast(joined, tf.int32), axis=1)
  within = tf.cast(used, tf.bool)
  # tf.where, not a product: what lies behind the end may hold anything, also NaN.
  rewards = tf.where(within, _at(reward, tf.minimum(here, length - 1)), 0.0)
  factors = tf.where(within, gamma * _at(discount, tf.minimum(here, length - 1)), 1.0)
  steps = tf.reduce_sum(used, axis=1)
  return Targets(
    steps=steps,
    n_step_return=tf.reduce_sum(tf.math.cumprod(factors, axis=1, exclusive=True) * rewards, axis=1),
    discount=tf.reduce_prod(factors, axis=1),
    valid=steps > 0,
  )


def pixels_transition(
  rows: tables.Row, position: tf.Tensor, frame_stack: int, n_step: int, gamma: float
) -> Tuple[trajectory.Transition, tf.Tensor]:
  """Transitions from windows of frames.

  Args:
    rows: windows [B, W, ...] with observation uint8 [B, W, h, w, C].
    position: int32 [B], start of each transition.
    frame_stack: frames in an observation.
    n_step: n >= 1.
    gamma: discount per agent step.

  Returns:
    (Transition with observations uint8 [B, h, w, C * frame_stack], valid bool [B]).
    next_time_step.reward is the n-step return and next_time_step.discount gamma^k prod d;
    time_step's reward and discount are zero, as in TF-Agents.
  """
  targets = n_step_targets(rows.step_type, rows.reward, rows.discount, position, n_step, gamma)

  def observe(index):
    return stack_frames(rows.observation, stack_indices(rows.step_type, index, frame_stack))

  end = tf.cast(position, tf.int32) + targets.steps
  return _transition(rows, position, targets, observe(position), observe(end)), targets.valid


def latents_transition(
  rows: tables.Row,
  position: tf.Tensor,
  n_step: int,
  gamma: float,
  seed: Optional[int] = None,
  decode: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> Tuple[trajectory.Transition, tf.Tensor]:
  """Transitions from windows of latents of K stored crops.

  Each observation, the one at t and the one at t + k by itself, is one of its K crops, drawn
  uniformly anew each time.

  Args:
    rows: windows [B, W, ...] with observation [B, W, K, D] as a codec stores them.
    position: int32 [B], start of each transition.
    n_step: n >= 1.
    gamma: discount per agent step.
    seed: of the choice of crops; None draws one.
    decode: of that codec, [B, D] -> float32 [B, D]; only what was drawn is decoded.

  Returns:
    (Transition with observations float32 [B, D], valid bool [B]), otherwise as `pixels_transition`.
  """
  rows.observation.shape.assert_has_rank(4)
  targets = n_step_targets(rows.step_type, rows.reward, rows.discount, position, n_step, gamma)
  position = tf.cast(position, tf.int32)
  shape = tf.shape(rows.observation)
  batch_size, length, crops, width = shape[0], shape[1], shape[2], rows.observation.shape[3]
  crop = tf.random.uniform([2, batch_size], maxval=crops, dtype=tf.int32, seed=seed)
  flat = tf.reshape(rows.observation, [batch_size, length * crops, width])

  def observe(index, choice):
    return decode(_at(flat, index * crops + choice))

  start, end = observe(position, crop[0]), observe(position + targets.steps, crop[1])
  return _transition(rows, position, targets, start, end), targets.valid


def _transition(rows, position, targets, observation, next_observation) -> trajectory.Transition:
  """Puts the parts into TF-Agents' structure."""
  unknown = tf.zeros_like(targets.n_step_return)
  return trajectory.Transition(
    time_step=ts.TimeStep(
      step_type=_at(rows.step_type, position),
      reward=unknown,
      discount=unknown,
      observation=observation,
    ),
    action_step=policy_step.PolicyStep(action=_at(rows.action, position), state=(), info=()),
    next_time_step=ts.TimeStep(
      step_type=_at(rows.step_type, tf.cast(position, tf.int32) + targets.steps),
      reward=targets.n_step_return,
      discount=targets.discount,
      observation=next_observation,
    ),
  )
