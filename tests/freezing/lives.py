"""The life of a schedule, with an encoder that turns until it is told to stand still."""

import numpy as np
from tf_agents.trajectories import trajectory

# Looks at 20, 30, … in `live`.
CONVERGED = dict(
  earliest_agent_steps=50, latest_agent_steps=300, threshold=0.99, patience=3,
  period_agent_steps=10, probe_observations=10,
)  # fmt: skip


class Encoder:
  """Two layers that an observation's value shows through; one turns by an angle, as told."""

  def __init__(self, names=('still', 'turning')):
    self.angle = 0.0
    self.looks = 0
    self.names = names

  def __call__(self, pixels):
    self.looks += 1
    x = pixels[:, 0, 0, :2].astype(np.float32) * [1, 10]
    turned = np.cos(self.angle) * x[:, :1] + np.sin(self.angle) * x[:, 1:]
    outputs = {'still': x, 'turning': turned}
    return {name: outputs[name] for name in self.names}


def observed(pixels):
  """The `Trajectory` of an agent step that began with these pixels."""
  return trajectory.mid(pixels, np.float32(0), (), np.float32(0), np.float32(1))


def live(when, turn_until, resumed=None, resume_at=None, names=('still', 'turning'), total=400,
         first=20, record=lambda *_: None):  # fmt: skip
  """Lives until all layers are frozen, or the run's end.

  Args:
    when: the schedule.
    turn_until: agent step from which the encoder stands still.
    resumed: makes the schedule that goes on from the state of `when`.
    resume_at: agent step at which it does.
    names: of the encoder's layers, in their order.
    total: agent steps of the run.
    first: agent step of the first update.
    record: see `schedule.Schedule.watch`.

  Returns:
    (agent step, layers frozen, reason) at each freeze; in the end (None, 0, reason) if not all are.
  """
  encoder, rng, frozen = Encoder(names), np.random.default_rng(0), []

  def begin(schedule):
    schedule.check(first, total)
    schedule.check_layers(names)
    return schedule.watch(encoder, record)

  observers = begin(when)
  for agent_steps in range(total):
    if agent_steps == resume_at:
      state, when = when.state(), resumed()
      observers = begin(when)
      when.restore({name: np.array(value) for name, value in state.items()})
    looks = encoder.looks
    count = min(when(agent_steps), len(names)) if agent_steps >= first else 0
    if count > (frozen[-1][1] if frozen else 0):
      frozen.append((agent_steps, count, when.reason))
      if count == len(names):
        return frozen
    if agent_steps < turn_until and encoder.looks > looks:
      encoder.angle += 1.0
    pixels = rng.integers(0, 255, (2, 2, 3), dtype=np.uint8)
    for observe in observers:
      observe(observed(pixels))
  return [*frozen, (None, 0, when.reason)]
