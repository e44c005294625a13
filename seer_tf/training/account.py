"""What a run tells while it lasts and at its end, and the sums behind it."""

import json
from typing import Dict, List, Mapping, Sequence

import numpy as np

from seer_tf.costs import flops
from seer_tf.costs import ledger as ledger_lib
from seer_tf.replay import capacity, server
from seer_tf.training import records


class Account:
  """Ledger, results, TensorBoard, progress bars and the last table of one run.

  Attributes:
    ledger: of costs.
    progress: the bars.
    records: results.csv and TensorBoard.
  """

  def __init__(self, root_dir: str, total_agent_steps: int, costs: flops.Costs, evaluates: bool):
    """Opens files below `root_dir` and draws an empty bar.

    Args:
      root_dir: of the run.
      total_agent_steps: its length.
      costs: FLOPs of an action, a stored observation and an update, to begin with.
      evaluates: whether this process evaluates.
    """
    self.ledger = ledger_lib.Ledger(costs)
    self.records = records.Records(root_dir, evaluates)
    self.progress = records.Progress(total_agent_steps)
    self._reports: Dict[str, server.Report] = {}  # phase -> how replay stood at its end
    self._warnings: List[str] = []

  def say(self, line: str):
    """Prints a line above the bars."""
    self.progress.say(line)

  def warn(self, lines: Sequence[str]):
    """Prints warnings, and keeps them for the last table."""
    self._warnings += [line for line in lines if line not in self._warnings]
    for line in lines:
      self.say(line)

  def measured(self, phase: str, report: server.Report):
    """Notes how replay stands at the end of a phase."""
    self._reports[phase] = report
    if {'pixels', 'latents'} <= self._reports.keys():
      row_bytes = (self._reports[name].bytes_per_row for name in ('pixels', 'latents'))
      self.warn(capacity.without_gain(*row_bytes, measured=True))

  def has_evaluated(self, agent_steps: int) -> bool:
    """Whether the last evaluation was at this very agent step."""
    evaluations = self.records.evaluations
    return bool(evaluations) and evaluations[-1].agent_steps == agent_steps

  def evaluated(
    self, clocks: records.Clocks, phase: str, returns: Sequence[float], report: server.Report
  ):
    """Records an evaluation and the costs up to it."""
    ledger = self.ledger
    self.records.evaluated(clocks, phase, returns, ledger.flops, ledger.seconds, report)

  def report(
    self,
    clocks: records.Clocks,
    phase: str,
    report: server.Report,
    last_return: float,
    figures: Mapping[str, Mapping[str, float]],
  ):
    """Refreshes progress bar and TensorBoard.

    Args:
      clocks: of the run.
      phase: its name.
      report: what the server says of itself.
      last_return: of the newest episode that was collected.
      figures: topic -> further scalars by name.
    """
    ledger = self.ledger
    sums = ledger.phase(phase)
    updates_per_second = sums['updates'] / max(sums['seconds'], 1e-9)
    self.progress.show(
      phase,
      clocks.agent_steps,
      **{
        'return': f'{last_return:.1f}',
        'updates/s': f'{updates_per_second:.1f}',
        'replay': f'{report.used_bytes / 1e6:.0f}MB',
      },
    )
    costs = dict(
      flops=ledger.flops,
      seconds=ledger.seconds,
      replay_bytes=report.resident_bytes - report.empty_bytes,
      updates_per_second=updates_per_second,
      ms_per_update=sums['ms_per_update'],
      waiting_percent=sums['waiting_percent'],
      collected_return=last_return,
    )
    replay = dict(
      budget_bytes=report.budget_bytes,
      used_bytes=report.used_bytes,
      steps_held=report.rows,
      bytes_per_step=report.bytes_per_row,
    )
    for topic, values in [('Costs', costs), ('Replay', replay), *figures.items()]:
      self.records.by_agent_steps(topic, clocks.agent_steps, values)

  def summary(self) -> str:
    """The table that ends a run."""
    return records.summary_table(
      self.records.evaluations, self.ledger, self._reports, self._warnings
    )

  def close(self):
    """Leaves the bars as they stand and flushes TensorBoard."""
    self.progress.close()
    self.records.close()

  def state(self) -> Dict[str, np.ndarray]:
    """The sums and reports so far, for a checkpoint."""
    reports = {phase: report._asdict() for phase, report in self._reports.items()}
    return {**self.ledger.state(), 'reports': np.asarray(json.dumps(reports))}

  def restore(self, state: Mapping[str, np.ndarray]):
    """Goes on from what `state` returned."""
    self.ledger.restore(state)
    reports = json.loads(str(state['reports']))
    self._reports = {phase: server.Report(**values) for phase, values in reports.items()}
