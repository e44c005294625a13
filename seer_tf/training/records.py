"""What a run tells about itself: results.csv, TensorBoard, the progress bars and the last table."""

import collections
import contextlib
import csv
import math
import os
import pathlib
import sys
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf
from tensorflow.core.util import event_pb2
import tqdm

from seer_tf.costs import ledger as ledger_lib
from seer_tf.replay import server


class Clocks(NamedTuple):
  """The three clocks of a run."""

  env_frames: int
  agent_steps: int
  updates: int


class Evaluation(NamedTuple):
  """One evaluation, which is one row of results.csv."""

  env_frames: int
  agent_steps: int
  updates: int
  phase: str
  mean_return: float
  returns: str  # each episode's return, separated by blanks
  flops: int  # so far, evaluation not counted
  replay_bytes: int  # resident memory of the server beyond what it held when empty
  replay_used_bytes: int  # of these, what it had allocated for what it held
  replay_rows: int  # rows it held: agent steps and episode ends
  seconds: float  # so far, evaluation not counted


class Records:
  """Writes evaluations and costs of a run below its root_dir."""

  def __init__(self, root_dir: str, evaluates: bool = True):
    """Opens `results.csv`, going on behind the rows there are, and TensorBoard's folders.

    Args:
      root_dir: of the run.
      evaluates: whether this process does; if not, it leaves `results.csv` alone.
    """
    self._results = os.path.join(root_dir, 'results.csv')
    self._train = tf.summary.create_file_writer(os.path.join(root_dir, 'train'))
    self._eval = tf.summary.create_file_writer(os.path.join(root_dir, 'eval'))
    self._evaluates = evaluates
    self.evaluations: List[Evaluation] = load(self._results) if evaluates else []
    self._rewrite()

  def go_back_to(self, agent_steps: int):
    """Drops evaluations of later agent steps: a resumed run lives these once more."""
    self.evaluations = [row for row in self.evaluations if row.agent_steps <= agent_steps]
    self._rewrite()

  def _rewrite(self):
    if not self._evaluates:
      return
    partial = f'{self._results}.partial'
    with open(partial, 'w', newline='', encoding='utf-8') as results:
      csv.writer(results).writerows([Evaluation._fields, *self.evaluations])
    os.replace(partial, self._results)

  def evaluated(
    self,
    clocks: Clocks,
    phase: str,
    returns: List[float],
    flops: float,
    seconds: float,
    replay: server.Report,
  ) -> Evaluation:
    """Records an evaluation and the costs of the run up to it; returns its row."""
    row = Evaluation(
      *clocks,
      phase=phase,
      mean_return=round(float(np.mean(returns)), 3),
      returns=' '.join(f'{value:.3f}' for value in returns),
      flops=int(flops),
      replay_bytes=replay.resident_bytes - replay.empty_bytes,
      replay_used_bytes=replay.used_bytes,
      replay_rows=replay.rows,
      seconds=round(seconds, 3),
    )
    with open(self._results, 'a', newline='', encoding='utf-8') as results:
      csv.writer(results).writerow(row)
    self.evaluations.append(row)
    with self._eval.as_default():
      for name, clock in clocks._asdict().items():
        tf.summary.scalar(f'Evaluation by {name}/mean_return', row.mean_return, step=clock)
    self._eval.flush()
    return row

  def by_agent_steps(self, topic: str, agent_steps: int, values: Mapping[str, float]):
    """Writes scalars to TensorBoard, over agent_steps, below '<topic> by agent_steps/'."""
    with self._train.as_default():
      for name, value in values.items():
        if np.isfinite(value):
          tf.summary.scalar(f'{topic} by agent_steps/{name}', value, step=agent_steps)

  def close(self):
    """Flushes TensorBoard."""
    self._train.close()
    self._eval.close()


def load(path: str) -> List[Evaluation]:
  """The rows of a `results.csv`, whole ones only; none if there is no such file."""
  if not os.path.exists(path):
    return []
  with open(path, newline='', encoding='utf-8') as results:
    rows = list(csv.DictReader(results))
  kinds = Evaluation.__annotations__
  return [
    Evaluation(**{name: kinds[name](row[name]) for name in kinds})
    for row in rows
    if all(row.get(name) for name in kinds)  # a line that a full disk cut short has fewer
  ]


def scalars(folder: pathlib.Path) -> Dict[str, List[Tuple[int, float]]]:
  """What TensorBoard shows of the scalars in a folder and those below it.

  Returns:
    Tag -> (step, value) in the order in which they were written; a record that is being written,
    or that a killed run left half, is not among them.
  """
  found = collections.defaultdict(list)
  for path in sorted(folder.rglob('events*')):
    with contextlib.suppress(tf.errors.DataLossError):
      for record in tf.data.TFRecordDataset(str(path)):
        event = event_pb2.Event.FromString(record.numpy())
        for value in event.summary.value:
          found[value.tag].append((event.step, float(tf.make_ndarray(value.tensor))))
  return found


class Progress:
  """The run's progress bar, and a second one below it while replay is converted."""

  def __init__(self, total_agent_steps: int):
    """Draws an empty bar on standard error."""
    self._bar = tqdm.tqdm(
      total=total_agent_steps, unit='step', desc='pixels', dynamic_ncols=True, mininterval=0,
      bar_format='{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} agent_steps '
      '[{elapsed}<{remaining}{postfix}]',
    )  # fmt: skip
    self._drain = None

  def show(self, phase: str, agent_steps: int, **figures: str):
    """Moves the bar to `agent_steps`, with `figures` behind it."""
    self._bar.set_description_str(phase, refresh=False)
    self._bar.set_postfix(figures, refresh=False)
    self._bar.update(agent_steps - self._bar.n)

  def say(self, line: str):
    """Prints a line above the bars."""
    self._bar.write(line, file=sys.stderr)

  def converting(self, done: int, total: int):
    """Moves the second bar, made at the first call, to `done` of `total` rows."""
    if self._drain is None:
      self._bar.refresh()
      self._drain = tqdm.tqdm(
        total=total, unit='row', desc='  converting replay', position=1, dynamic_ncols=True
      )
    self._drain.total = total  # which may be an estimate until the end
    self._drain.update(done - self._drain.n)
    if done >= total:
      self._drain.close()
      self._drain = None

  def close(self):
    """Leaves the bars as they stand."""
    if self._drain is not None:
      self._drain.close()
    self._bar.close()


# What the last table says of replay in each phase, by its label.
_REPLAY_FIGURES = {
  'replay bytes per step (measured)': lambda report: report.bytes_per_row,
  'replay steps held': lambda report: report.rows,
  'replay MB used': lambda report: report.used_bytes / 1e6,
  'replay MB it may use': lambda report: report.budget_bytes / 1e6,
}


def summary_table(
  evaluations: List[Evaluation],
  ledger: ledger_lib.Ledger,
  replay: Mapping[str, server.Report],
  warnings: Sequence[str] = (),
) -> str:
  """The table that ends a run: its evaluations, then what each phase cost.

  Args:
    evaluations: in their order.
    ledger: of the run.
    replay: phase name -> how replay stood at its end, if it came to that.
    warnings: lines to end with.
  """
  lines = ['', f'{"agent_steps":>12} {"phase":>8} {"mean return":>12} {"TFLOPs":>9} {"seconds":>9}']
  for row in evaluations:
    lines.append(
      f'{row.agent_steps:>12,} {row.phase:>8} {row.mean_return:>12.1f} {row.flops / 1e12:>9.2f} '
      f'{row.seconds:>9.1f}'
    )
  pixels, latents = ledger.phase('pixels'), ledger.phase('latents')
  conversion = ledger.phase('draining')
  figures = [
    ('seconds per 1,000 agent_steps', 'seconds_per_1000_agent_steps'),
    ('milliseconds per update', 'ms_per_update'),
    ('of these waiting for data, %', 'waiting_percent'),
  ]
  rows = [(label, pixels[key], latents[key]) for label, key in figures]
  for label, figure in _REPLAY_FIGURES.items():
    rows.append((label, *(_figure(replay.get(phase), figure) for phase in ('pixels', 'latents'))))
  lines += ['', f'{"":>34} {"pixels":>12} {"latents":>12} {"ratio":>7}']
  for label, before, after in rows:
    ratio = before / after if after else math.nan
    texts = (f'{value:,.1f}' if math.isfinite(value) else '-' for value in (before, after, ratio))
    lines.append('{:>34} {:>12} {:>12} {:>7}'.format(label, *texts))
  if conversion['seconds']:
    lines.append(f'\nThe conversion took {conversion["seconds"]:.1f} s.\n')
  return '\n'.join([*lines, *warnings])


def _figure(report: Optional[server.Report], figure) -> float:
  return math.nan if report is None else figure(report)
