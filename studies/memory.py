r"""Learning with little memory for replay: pixels, latents, latents grown into the same bytes.

    python -m studies.memory --seeds=3   # make study-memory: runs what is missing, then draws
    python -m studies.memory --seeds=0   # draws only

Each run is `launch.train` on a CPU preset with the constrained setting, cut like the rest of the
preset: 1,000 rows of pixels in control, as published but of 12,000 agent_steps instead of 80,000,
and 2,000 in a game (published: 10,000; of 500,000 agent_steps instead of 20,000). A run that has
ended leaves its `results.csv` in studies/memory/; what is there is not run again, so the same
command goes on where it was stopped. Seeds come one after another, so that after any time all
variants have about as many.
"""

import collections
import csv
import os
import pathlib
import shutil
import subprocess
import sys

from absl import app, flags
import numpy as np

_SEEDS = flags.DEFINE_integer('seeds', 3, 'Runs of each variant.', lower_bound=0)
_ROOT_DIR = flags.DEFINE_string('root_dir', 'runs/study-memory', 'Where runs are kept meanwhile.')

ROWS = pathlib.Path(__file__).parent / 'memory'
# Preset, and rows of pixels that replay holds.
TASKS = {
  'cartpole_swingup': ('gin_configs/cartpole_swingup_cpu.gin', 1000),
  'krull': ('gin_configs/rainbow_atari_cpu.gin', 2000),
}
VARIANTS = {
  'pixels': 'Experiment.schedule_fn = @Never',
  'latents': 'Capacity.growth = @no_growth',
  'latents_grown': 'Capacity.growth = @measured_growth',
}


def _run(task: str, variant: str, seed: int):
  """Runs one variant to its end and keeps its rows; raises if it fails."""
  preset, rows = TASKS[task]
  root_dir = os.path.join(_ROOT_DIR.value, f'{task}_{variant}_seed{seed}')
  shutil.rmtree(root_dir, ignore_errors=True)  # a run that was stopped begins anew
  bindings = [f'ReplayConfig.pixels_capacity = {rows}', VARIANTS[variant]]
  subprocess.run(
    [
      *(sys.executable, '-m', 'launch.train', f'--gin_file={preset}', f'--seed={seed}'),
      *(f'--root_dir={root_dir}', *(f'--gin_bindings={binding}' for binding in bindings)),
    ],
    check=True,
  )
  ROWS.mkdir(exist_ok=True)
  partial = ROWS / 'partial'
  shutil.copy(os.path.join(root_dir, 'results.csv'), partial)
  partial.rename(_rows(task, variant, seed))


def _rows(task, variant, seed) -> pathlib.Path:
  return ROWS / f'{task}_{variant}_seed{seed}.csv'


def _draw() -> str:
  """A Markdown table: the last two evaluations' mean return, and what replay held then."""
  found = collections.defaultdict(list)
  for path in sorted(ROWS.glob('*_seed*.csv')):
    with path.open() as file:
      last = list(csv.DictReader(file))[-2:]
    columns = ('mean_return', 'replay_rows', 'replay_used_bytes')
    figures = [np.mean([float(row[column]) for row in last]) for column in columns]
    found[path.stem.rpartition('_seed')[0]].append(figures)
  lines = [
    '| task and variant | seeds | return of each | mean | rows held | MB used |',
    '|---|---|---|---|---|---|',
  ]
  for name, runs in found.items():
    returns, rows, used = np.transpose(runs)
    each = ', '.join(f'{value:.1f}' for value in returns)
    lines.append(
      f'| {name} | {len(runs)} | {each} | {returns.mean():.1f} | {rows.mean():,.0f} '
      f'| {used.mean() / 1e6:.2f} |'
    )
  return '\n'.join(lines)


def main(_):
  """Runs what is missing, then prints the table."""
  for seed in range(_SEEDS.value):
    for task in TASKS:
      for variant in VARIANTS:
        if not _rows(task, variant, seed).exists():
          _run(task, variant, seed)
  print(_draw())


if __name__ == '__main__':
  app.run(main)
