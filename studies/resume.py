r"""Does an interruption cost anything: runs that are killed and go on, beside runs that were not.

    python -m studies.resume --interrupted=3    # runs what is missing, then prints the table
    python -m studies.resume --interrupted=0    # prints only

A run is arm `middle` of `studies.freeze` on cartpole-swingup. It is killed by SIGKILL three times
(its replay server ends with it): from pixels, in the conversion, from latents; each time the same
command goes on. Rows go to studies/resume/, with a line for each start: when it was killed, from
where it went on, how many seconds after its beginning it acted. What was not interrupted is in
studies/freeze/.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

from absl import app, flags

from studies import freeze, runs

_INTERRUPTED = flags.DEFINE_integer('interrupted', 3, 'Runs to kill.', lower_bound=0)
_FOLDER = flags.DEFINE_string('resumed_dir', 'runs/study-resume', 'Where runs are meanwhile.')

ROWS = pathlib.Path(__file__).parent / 'resume'
TASK, ARM = 'cartpole_swingup', 'middle'
# What the run's bar shows when it is killed; the freeze is at agent step 2,500.
# The bar skips steps, so what it is to show is at least so much.
KILLS = (
  r'pixels .* (1[89]|2\d)\d\d/',
  r'converting replay: +[1-9]',
  r'latents .* (4[5-9]|[56]\d)\d\d/',
)
BINDINGS = ['Experiment.checkpoint_period = 500', 'Checkpoints.period_seconds = 60']


def _until(process, pattern):
  """Reads what a run shows until `pattern` or its end; returns (matched, seconds, lines read)."""
  start, lines = time.monotonic(), []
  for line in process.stderr:  # carriage returns end lines, too
    lines.append(line)
    if pattern and re.search(pattern, line):
      return True, time.monotonic() - start, lines
  return False, time.monotonic() - start, lines


def _interrupted(seed: int):
  """One run to its end, through all kills."""
  rows = ROWS / f'{TASK}-seed{seed}.csv'
  if rows.exists():
    return
  task, root_dir = freeze.TASKS[TASK], pathlib.Path(_FOLDER.value) / f'seed{seed}'
  shutil.rmtree(root_dir, ignore_errors=True)
  command = [
    *(sys.executable, '-m', 'launch.train', f'--gin_file={task.preset}', f'--seed={seed}'),
    f'--root_dir={root_dir}',
    *(f'--gin_bindings={b}' for b in [*freeze.bindings(task, ARM), *BINDINGS]),
  ]
  told = []
  for pattern in [*KILLS, None]:
    with subprocess.Popen(
      command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
      _, begins, first = _until(process, r'agent_steps \[.*\?|agent_steps \[.*return')
      _, _, lines = _until(process, pattern)
      went_on = re.findall(r'going on from agent step ([\d,]+)', ''.join(first + lines))
      if pattern:
        os.killpg(process.pid, signal.SIGKILL)
      elif process.wait():
        raise RuntimeError(f'{root_dir} failed: {"".join(lines)[-2000:]}')
    where = re.findall(r'(\d+)/\d+ agent_steps', ''.join(first + lines))
    told.append(
      dict(
        seed=seed,
        killed_at_agent_steps=int(where[-1]) if pattern and where else None,
        went_on_from_agent_steps=int(went_on[0].replace(',', '')) if went_on else None,
        seconds_until_it_acted=round(begins, 1),
      )
    )
  ROWS.mkdir(exist_ok=True)
  shutil.copy(root_dir / 'results.csv', rows)
  with (ROWS / 'kills.jsonl').open('a', encoding='utf-8') as file:
    file.writelines(json.dumps(line) + '\n' for line in told)
  shutil.rmtree(root_dir)


def _draw() -> str:
  """Markdown rows: mean return of the last three evaluations, of each seed."""
  lines = ['| runs | return of each seed | mean |', '|---|---|---|']
  kinds = {
    'not interrupted': freeze.ROWS.glob(f'{TASK}-{ARM}-seed*.csv'),
    'killed three times': ROWS.glob(f'{TASK}-seed*.csv'),
  }
  for kind, paths in kinds.items():
    returns = [runs.mean('mean_return', runs.load(path)[-3:]) for path in sorted(paths)]
    if returns:
      each = ', '.join(f'{value:.1f}' for value in returns)
      lines.append(f'| {kind} | {each} | {sum(returns) / len(returns):.1f} |')
  return '\n'.join(lines)


def main(argv):
  """Runs what is missing, then prints the table."""
  if len(argv) > 1:
    raise app.UsageError(f'expected no arguments besides flags, got {argv[1:]}')
  for seed in range(_INTERRUPTED.value):
    _interrupted(seed)
  print(_draw())


if __name__ == '__main__':
  app.run(main)
