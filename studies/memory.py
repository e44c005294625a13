r"""Learning with little memory for replay: pixels, latents, latents grown into the same bytes.

    python -m studies.memory --seeds=3   # make study-memory: runs what is missing, then draws
    python -m studies.memory --seeds=0   # draws only

Each run is `launch.train` on a CPU preset with the constrained setting, cut like the rest of the
preset: 1,000 rows of pixels in control, as published but of 12,000 agent_steps instead of 80,000,
and 2,000 in a game (published: 10,000; of 500,000 agent_steps instead of 20,000). Rows go to
studies/memory/. Seeds come one after another, so that after any time all variants have about as
many.
"""

import collections
import pathlib

from absl import app, flags
import numpy as np

from studies import runs

_SEEDS = flags.DEFINE_integer('seeds', 3, 'Runs of each variant.', lower_bound=0)
_RUNS_DIR = flags.DEFINE_string('runs_dir', 'runs/study-memory', 'Where runs are kept meanwhile.')

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
  """Runs one variant to its end, unless that was done before, and keeps its rows."""
  preset, rows = TASKS[task]
  name = f'{task}_{variant}_seed{seed}'
  bindings = [f'ReplayConfig.pixels_capacity = {rows}', VARIANTS[variant]]
  runs.keep(ROWS / f'{name}.csv', pathlib.Path(_RUNS_DIR.value) / name, preset, bindings, seed)


def _draw() -> str:
  """A Markdown table: the last two evaluations' mean return, and what replay held then."""
  found = collections.defaultdict(list)
  for path in sorted(ROWS.glob('*_seed*.csv')):
    last = runs.load(path)[-2:]
    columns = ('mean_return', 'replay_rows', 'replay_used_bytes')
    figures = [runs.mean(column, last) for column in columns]
    found[path.stem.rpartition('_seed')[0]].append(figures)
  lines = [
    '| task and variant | seeds | return of each | mean | rows held | MB used |',
    '|---|---|---|---|---|---|',
  ]
  for name, seeds in found.items():
    returns, rows, used = np.transpose(seeds)
    each = ', '.join(f'{value:.1f}' for value in returns)
    lines.append(
      f'| {name} | {len(seeds)} | {each} | {returns.mean():.1f} | {rows.mean():,.0f} '
      f'| {used.mean() / 1e6:.2f} |'
    )
  return '\n'.join(lines)


def main(_):
  """Runs what is missing, then prints the table."""
  for seed in range(_SEEDS.value):
    for task in TASKS:
      for variant in VARIANTS:
        _run(task, variant, seed)
  print(_draw())


if __name__ == '__main__':
  app.run(main)
