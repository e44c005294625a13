"""From a seed, who is killed when."""

import random
from typing import Iterator, NamedTuple, Sequence

ACTORS = 3
PHASES = ('pixels', 'switch', 'latents')
NAMES = ('server', 'learner', *(f'actor{task}' for task in range(ACTORS)), 'evaluator')
# Of all kills; the rest is as likely for each. The switch is what server and learner make together.
_WEIGHTS = (4, 4, *(1,) * ACTORS, 1)


class Kill(NamedTuple):
  """SIGKILL of one process, or of two at once; or SIGSTOP and, much later, SIGCONT of an actor.

  Attributes:
    phase: published when it happens, at the earliest.
    delay: seconds that this phase lasts already, or that passed since the kill before.
    victims: names.
    pauses: seconds until each is started again.
    when_well: whether to wait until everybody is back that was killed before.
    agent_steps: published when it happens, at the earliest.
    stop_seconds: for which the victims are stopped; 0: they are killed.
    rows: of replay when it happens, at the least.
  """

  phase: int
  delay: float
  victims: Sequence[str]
  pauses: Sequence[float]
  when_well: bool
  agent_steps: int = 0
  stop_seconds: float = 0.0
  rows: int = 0


def straggler(task: int) -> Kill:
  """An actor hangs from just before the switch until it is over."""
  return Kill(0, 0.0, [f'actor{task}'], [0.0], True, agent_steps=185, stop_seconds=15.0)


def life(generator: random.Random) -> Iterator[Kill]:
  """Kills of one life: some before the switch, most of them at it, some after it."""
  for phase, count, longest in [(0, 3, 4.0), (1, 6, 2.0), (2, 3, 3.0)]:
    if phase == 1 and generator.random() < 0.4:
      yield straggler(generator.randrange(ACTORS))
    for _ in range(count):
      victims = {generator.choices(NAMES, _WEIGHTS)[0]}
      if generator.random() < 0.25:
        victims.add(generator.choice(NAMES))
      victims = sorted(victims)
      yield Kill(
        phase,
        generator.uniform(0, longest),
        victims,
        [generator.uniform(0, 1.5) for _ in victims],
        when_well=generator.random() < 0.7,
      )
