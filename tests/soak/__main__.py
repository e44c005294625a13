r"""Kills processes of runs at random and audits what the runs leave; see `make soak`.

    python -m tests.soak --seed=0 --kills=50

It prints a table, one line with what was lost, doubled, stale and hung, and ends with 1 if that is
anything, or a process ended otherwise than by a kill or in peace.
"""

import argparse
import collections
import os
import pathlib
import random
import sys
import tempfile
import time
import warnings

from tests.soak import plan

# Lives differ in codec, and in whether all rows fit. The first is as the gin file has it.
_VARIANTS = (
  ('', []),
  ('float32', ['Experiment.codec_fn = @Float32']),
  (
    'small',
    ['ReplayConfig.pixels_capacity = 120', 'ReplayConfig.latents_capacity = 200'],
  ),
)


def _table(outcomes) -> str:
  counts = collections.Counter()
  for outcome in outcomes:
    counts.update((name, phase) for name, phase, _ in outcome.kills)
  lines = [f'{"kills":12}' + ''.join(f'{phase:>10}' for phase in plan.PHASES)]
  for name in plan.NAMES:
    lines.append(f'{name:12}' + ''.join(f'{counts[name, phase]:10}' for phase in plan.PHASES))
  kills = sum(counts.values())
  started = sum(outcome.starts for outcome in outcomes)
  lines.append(
    f'{kills} kills, {started - len(plan.NAMES) * len(outcomes)} restarts, {len(outcomes)} lives, '
    f'{sum(outcome.seconds for outcome in outcomes):.0f} seconds, '
    f'{sum(outcome.rows for outcome in outcomes):,} rows of latents, '
    f'{sum(outcome.sure_rows for outcome in outcomes):,} acknowledged for good'
  )
  return '\n'.join(lines)


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--seed', type=int, default=0, help='of the plan')
  parser.add_argument('--kills', type=int, default=50, help='at least')
  parser.add_argument('--seconds', type=float, default=7200, help='after which no life begins')
  parser.add_argument('--folder', type=pathlib.Path, help='for what the lives leave')
  words = parser.parse_args()
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # before anything imports TensorFlow
  warnings.simplefilter('ignore')  # of other people's code
  from tests.soak import life

  folder = words.folder or pathlib.Path(tempfile.mkdtemp(prefix='seer_tf_soak_'))
  print(f'seed {words.seed}, at least {words.kills} kills; lives are in {folder}', flush=True)
  generator, outcomes, start = random.Random(words.seed), [], time.monotonic()
  while sum(len(outcome.kills) for outcome in outcomes) < words.kills:
    if time.monotonic() - start > words.seconds:
      print('out of time')
      break
    name, bindings = _VARIANTS[len(outcomes) % len(_VARIANTS)]
    kills = list(plan.life(generator))
    outcome = life.Life(folder / f'life{len(outcomes)}', bindings).run(iter(kills))
    outcomes.append(outcome)
    done = ' '.join(f'{seconds}:{who}' for who, _, seconds in outcome.kills)
    print(f'life {len(outcomes) - 1} {name}: {outcome.seconds:.0f} s, kills {done}', flush=True)
    for line in [*outcome.failed, *outcome.hung]:
      print(f'  {line}')
    shown = life.audit.shown(outcome.faults)
    if shown:
      print(shown)
  print(_table(outcomes))
  count = lambda kind: sum(len(getattr(outcome.faults, kind)) for outcome in outcomes)
  hung = sum(len(outcome.hung) for outcome in outcomes)
  failed = sum(len(outcome.failed) for outcome in outcomes)
  figures = [count('lost'), count('doubled'), count('stale'), hung]
  print('lost {} doubled {} stale {} hung {}'.format(*figures))
  if failed:
    print(f'{failed} processes ended as they should not')
  return int(any(figures) or failed > 0)


if __name__ == '__main__':
  sys.exit(main())
