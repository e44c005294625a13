"""Runs of a study: each is made once and its rows are kept, so that a study can be stopped.

A run that has ended leaves its `results.csv` where the study says; what is there is not run again.
"""

import csv
import pathlib
import shutil
import signal
import subprocess
import sys
import types
from typing import Dict, List, Mapping, Sequence, Tuple

import numpy as np

from seer_tf.training import checkpoints, records


def keep(
  rows: pathlib.Path,
  root_dir: pathlib.Path,
  preset: str,
  bindings: Sequence[str],
  seed: int,
  scalars: Mapping[str, pathlib.Path] = types.MappingProxyType({}),
):
  """Trains, unless that was done before; a run that was stopped goes on.

  Args:
    rows: file for the run's `results.csv`.
    root_dir: where the run is meanwhile; removed once it has ended.
    preset: gin file.
    bindings: gin bindings on top of it.
    seed: of the run.
    scalars: topic -> file for what TensorBoard shows of it by agent_steps, if there is any.

  Raises:
    subprocess.CalledProcessError: if the run fails.
  """
  if rows.exists():
    return
  if not checkpoints.exists(str(root_dir)):  # what a server alone has kept is no run to go on with
    shutil.rmtree(root_dir, ignore_errors=True)
  train(
    [
      *(sys.executable, '-m', 'launch.train', f'--gin_file={preset}', f'--seed={seed}'),
      *(f'--root_dir={root_dir}', *(f'--gin_bindings={binding}' for binding in bindings)),
    ]
  )
  for topic, path in scalars.items():
    write_scalars(path, root_dir, topic)
  rows.parent.mkdir(parents=True, exist_ok=True)
  partial = rows.with_suffix('.partial')
  shutil.copy(root_dir / 'results.csv', partial)
  partial.rename(rows)
  shutil.rmtree(root_dir)


def train(command: Sequence[str]):
  """Runs a command to its end; told to leave, it has the time that it takes, and so ends the study.

  Ctrl-C it gets as well as the study; SIGTERM, which the study alone gets, is passed on to it.

  Raises:
    subprocess.CalledProcessError: if it fails.
    SystemExit: after SIGTERM.
  """
  told, processes = [], []

  def pass_on(number, _):
    told.append(number)
    for process in processes:
      process.send_signal(number)

  before = signal.signal(signal.SIGTERM, pass_on)
  try:
    processes.append(subprocess.Popen(command))
    if told:  # before there was anything to pass it on to
      processes[0].send_signal(told[0])
    code = processes[0].wait()
  except KeyboardInterrupt:
    for process in processes:
      process.wait()
    raise
  finally:
    signal.signal(signal.SIGTERM, before)
  if told:
    raise SystemExit(128 + told[0])
  if code:
    raise subprocess.CalledProcessError(code, command)


def write_scalars(path: pathlib.Path, root_dir: pathlib.Path, topic: str):
  """Writes what a run shows in TensorBoard of a topic, by agent_steps; no file if that is nothing.

  Args:
    path: of the file: a row for each agent step, a column for each scalar.
    root_dir: of the run.
    topic: what the scalars' tags begin with.
  """
  prefix = f'{topic} by agent_steps/'
  found: Dict[int, Dict[str, float]] = {}
  for tag, values in records.scalars(root_dir).items():
    if tag.startswith(prefix):
      for step, value in values:
        found.setdefault(step, {})[tag[len(prefix) :]] = value
  if not found:
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('w', encoding='utf-8', newline='') as file:
    table = csv.DictWriter(file, ['agent_steps', *sorted(set().union(*found.values()))])
    table.writeheader()
    for step in sorted(found):
      table.writerow({'agent_steps': step, **{k: f'{v:.6g}' for k, v in found[step].items()}})


def load(rows: pathlib.Path) -> List[Dict[str, str]]:
  """The evaluations of a run, first to last, by the columns' names."""
  with rows.open(encoding='utf-8') as file:
    return list(csv.DictReader(file))


def mean(column: str, rows: Sequence[Dict[str, str]]) -> float:
  """The mean of a column over rows of `load`."""
  return float(np.mean([float(row[column]) for row in rows]))


def interval(values: Sequence[float], level: float = 0.95) -> Tuple[float, float]:
  """Percentile bootstrap interval of the mean over seeds (Efron 1979), of 2,000 resamples.

  Of one value it is that value: a single seed says nothing about its spread.
  """
  values = np.asarray(values, float)
  drawn = np.random.default_rng(0).integers(0, len(values), [2000, len(values)])
  low, high = np.quantile(values[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
  return float(low), float(high)
