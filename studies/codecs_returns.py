r"""Does the default codec change what is learned: returns with latents as bytes and as float32.

    python -m studies.codecs_returns --seeds=3   # runs what is missing, then prints the table
    python -m studies.codecs_returns --seeds=0   # prints only

Each run is `launch.train` on a CPU preset at its full length; only the codec differs. Rows lie with
those of their preset.
"""

import pathlib

from absl import app, flags
import numpy as np

from studies import runs

_SEEDS = flags.DEFINE_integer('seeds', 3, 'Runs of each codec.', lower_bound=0)
_TASKS = flags.DEFINE_list('tasks', None, 'Tasks to run; by default all.')
_RUNS_DIR = flags.DEFINE_string('runs_dir', 'runs/study-codecs', 'Where runs are kept meanwhile.')

ROWS = pathlib.Path(__file__).parent
# Task -> preset, and where its rows lie.
TASKS = {
  'cartpole_swingup': ('gin_configs/cartpole_swingup_cpu.gin', 'cartpole_swingup_cpu/'),
  'krull': ('gin_configs/rainbow_atari_cpu.gin', 'rainbow_atari_cpu/krull_'),
}
# Codec -> what names its rows.
CODECS = {'Uint8': 'uint8_', 'Float32': ''}


def _path(task: str, codec: str, seed) -> pathlib.Path:
  return ROWS / f'{TASKS[task][1]}{CODECS[codec]}seed{seed}.csv'


def _draw(task: str) -> str:
  """Markdown rows: the last two evaluations' mean return of each seed there is."""
  lines = []
  for codec in CODECS:
    pattern = _path(task, codec, '[0-9]')
    paths = sorted(pattern.parent.glob(pattern.name))
    returns = [runs.mean('mean_return', runs.load(path)[-2:]) for path in paths]
    if not returns:
      continue
    each = ', '.join(f'{value:.1f}' for value in returns)
    lines.append(f'| {task}, {codec} | {each} | {np.mean(returns):.1f} |')
  return '\n'.join(lines)


def main(_):
  """Runs what is missing, then prints the table."""
  tasks = _TASKS.value or list(TASKS)
  if set(tasks) - set(TASKS):
    raise app.UsageError(f'unknown: {sorted(set(tasks) - set(TASKS))}; tasks {list(TASKS)}')
  for seed in range(_SEEDS.value):
    for task in tasks:
      for codec in CODECS:
        rows = _path(task, codec, seed)
        root_dir = pathlib.Path(_RUNS_DIR.value) / f'{task}_{codec}_seed{seed}'
        bindings = [f'Experiment.codec_fn = @{codec}']
        runs.keep(rows, root_dir, TASKS[task][0], bindings, seed)
  print('| task and codec | return of each seed | mean |\n|---|---|---|')
  for task in tasks:
    print(_draw(task))


if __name__ == '__main__':
  app.run(main)
