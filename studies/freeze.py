r"""Does freezing help, and when: arms that differ in what freezes, and when, and what is stored.

    python -m studies.freeze --seeds=3    # make study-freeze: runs what is missing, then draws
    python -m studies.freeze --seeds=0    # draws only
    python -m studies.freeze --tasks=krull --arms=never,random

Two control tasks (SAC with random crops; one of them with CURL, too) and one game (Rainbow), on the
CPU presets, cut to five minutes or so a run on one core: of control, half the filters of an encoder
and a quarter of a batch. Rows go to studies/freeze/, one file a run, and a task's curves beside
them: return against agent_steps, FLOPs and seconds, means over seeds with 95 % bootstrap intervals.
What schedules saw that look at the encoder goes to similarities/ there, one file a run.
Seeds come one after another, so that after any time all arms have about as many. An arm differs in
what `ARMS` binds for it and in what follows from the freeze: on Krull four draws of a latent block
instead of one of a pixel block, as its preset has it.
"""

import pathlib
from typing import Dict, List, NamedTuple, Sequence

from absl import app, flags
import numpy as np

from studies import drawing, runs

_SEEDS = flags.DEFINE_integer('seeds', 3, 'Runs of each arm.', lower_bound=0)
_TASKS = flags.DEFINE_list('tasks', None, 'Tasks to run; by default all.')
_ARMS = flags.DEFINE_list('arms', None, 'Arms to run; by default all.')
_RUNS_DIR = flags.DEFINE_string('runs_dir', 'runs/study-freeze', 'Where runs are kept meanwhile.')

ROWS = pathlib.Path(__file__).parent / 'freeze'
# Column -> title of its axis, unit it is drawn in.
AXES = {'agent_steps': ('agent_steps', 1), 'flops': ('TFLOPs', 1e12), 'seconds': ('seconds', 1)}


class Task(NamedTuple):
  """A preset, and where in its run things happen, in agent_steps."""

  preset: str
  bindings: Sequence[str]
  evaluation_period: int
  early: int  # three guesses of when to freeze
  middle: int
  late: int
  layers: Sequence[str]  # of the encoder, first to last
  equal_flops: int  # updates per agent step from latents that cost what never freezing does


def _control(
  task: str, preset: str = 'gin_configs/cartpole_swingup_cpu.gin', equal_flops: int = 17
) -> Task:
  return Task(
    preset,
    [
      f'TASK = "{task}"',
      'ControlEncoder.filters = (16, 16, 16, 16)',
      'Experiment.batch_size = 32',
      'Experiment.total_agent_steps = 7000',
      'Experiment.evaluation_episodes = 5',
    ],
    evaluation_period=500,
    early=1500,
    middle=2500,
    late=4000,
    layers=['conv1', 'conv2', 'conv3', 'conv4', 'dense'],
    equal_flops=equal_flops,
  )


TASKS: Dict[str, Task] = {
  'cartpole_swingup': _control('swingup'),
  'cartpole_swingup_curl': _control('swingup', 'gin_configs/curl_dmc_cpu.gin', equal_flops=27),
  'cartpole_balance': _control('balance'),
  'krull': Task(
    'gin_configs/rainbow_atari_cpu.gin',
    ['GAME = "Krull"', 'Experiment.total_agent_steps = 10000'],
    evaluation_period=2000,  # whole games, which take thousands of steps
    early=2000,
    middle=4000,
    late=6000,
    layers=['conv1', 'conv2'],
    equal_flops=3,
  ),
}


def _at(agent_steps: int) -> List[str]:
  return [f'AtStep.freeze_at_agent_steps = {agent_steps}']


def _converged(schedule: str, task: Task) -> List[str]:
  return [
    f'Experiment.schedule_fn = @{schedule}',
    f'{schedule}.earliest_agent_steps = {task.early}',
    f'{schedule}.latest_agent_steps = {task.late}',
  ]


def _progressive(task: Task) -> List[str]:
  steps = np.linspace(task.early, task.late, len(task.layers)).astype(int).tolist()
  return [
    'Experiment.schedule_fn = @Progressive',
    f'Progressive.freeze_at_agent_steps = {dict(zip(task.layers, steps))}',
  ]


ARMS = {
  'never': lambda task: ['Experiment.schedule_fn = @Never'],
  'random': lambda task: ['Experiment.schedule_fn = @AtStart'],
  'early': lambda task: _at(task.early),
  'middle': lambda task: _at(task.middle),
  'late': lambda task: _at(task.late),
  'converged': lambda task: _converged('WhenConverged', task),
  # The similarity that control's encoders reach here: see similarities/.
  'converged_loosely': lambda task: [
    *_converged('WhenConverged', task),
    'WhenConverged.threshold = 0.85',
  ],
  'progressive': _progressive,
  # What the freeze saves, spent on updates.
  'middle_equal_flops': lambda task: [
    *_at(task.middle),
    f'Experiment.updates_per_agent_step_from_latents = {task.equal_flops}',
  ],
  'middle_not_stored': lambda task: [*_at(task.middle), 'Experiment.store_latents = False'],
  # Every transition of a batch from a block of its own, where a preset draws several from each.
  'middle_one_draw': lambda task: [*_at(task.middle), 'Experiment.draws_per_block = 1'],
  'middle_but_the_last': lambda task: [
    *_at(task.middle),
    f'Experiment.freeze_up_to = "{task.layers[-2]}"',
    'ReplayConfig.block_length = 8',  # a sample ships a block, here of feature maps
  ],
}


def bindings(task: Task, arm: str) -> List[str]:
  """All that a run of this arm binds on top of its task's preset."""
  period = f'Experiment.evaluation_period = {task.evaluation_period}'
  return [*task.bindings, period, *ARMS[arm](task)]


def _runs(name: str) -> Dict[str, List[List[Dict[str, str]]]]:
  """Arm -> evaluations of each seed, where there are any; at agent_steps that all seeds have."""
  found, period = {}, TASKS[name].evaluation_period
  for arm in ARMS:
    paths = sorted(ROWS.glob(f'{name}-{arm}-seed*.csv'))
    if paths:
      seeds = [{int(row['agent_steps']): row for row in runs.load(path)} for path in paths]
      common = set.intersection(*map(set, seeds))
      steps = sorted(step for step in common if step % period == 0)  # others are of a freeze
      found[arm] = [[seed[step] for step in steps] for seed in seeds]
  return found


def _curve(evaluations, column: str) -> drawing.Curve:
  values = lambda name: np.array([[float(row[name]) for row in seed] for seed in evaluations])
  returns = values('mean_return')
  low, high = zip(*map(runs.interval, returns.T))
  return drawing.Curve(
    (values(column).mean(axis=0) / AXES[column][1]).tolist(),
    returns.mean(axis=0).tolist(),
    low,
    high,
  )


def draw(name: str) -> str:
  """Writes a task's curves; returns a Markdown table of what its runs came to.

  The return of a run is the mean of its last three evaluations.
  """
  found = _runs(name)
  if not found:
    return ''
  curves = [{arm: _curve(seeds, column) for arm, seeds in found.items()} for column in AXES]
  titles = [title for title, _ in AXES.values()]
  (ROWS / f'{name}.svg').write_text(drawing.panels(titles, curves), encoding='utf-8')
  lines = [
    f'| {name} | seeds | return, mean | 95 % interval | TFLOPs | seconds | replay, MB |',
    '|---|---|---|---|---|---|---|',
  ]
  for arm, seeds in found.items():
    returns = [runs.mean('mean_return', seed[-3:]) for seed in seeds]
    low, high = runs.interval(returns)
    ends = [seed[-1] for seed in seeds]
    lines.append(
      f'| {arm} | {len(seeds)} | {np.mean(returns):.1f} | {low:.1f} to {high:.1f} | '
      f'{runs.mean("flops", ends) / 1e12:.2f} | {runs.mean("seconds", ends):.0f} | '
      f'{runs.mean("replay_used_bytes", ends) / 1e6:.1f} |'
    )
  return '\n'.join(lines) + '\n'


def main(argv):
  """Runs what is missing, then draws."""
  if len(argv) > 1:
    raise app.UsageError(f'expected no arguments besides flags, got {argv[1:]}')
  tasks, arms = _TASKS.value or list(TASKS), _ARMS.value or list(ARMS)
  unknown = (set(tasks) - set(TASKS)) | (set(arms) - set(ARMS))
  if unknown:
    raise app.UsageError(f'unknown: {sorted(unknown)}; tasks {list(TASKS)}, arms {list(ARMS)}')
  for seed in range(_SEEDS.value):
    for name in tasks:
      for arm in arms:
        run = f'{name}-{arm}-seed{seed}'
        root_dir = pathlib.Path(_RUNS_DIR.value) / run
        task = TASKS[name]
        similarities = {'Similarity': ROWS / 'similarities' / f'{run}.csv'}
        runs.keep(
          ROWS / f'{run}.csv', root_dir, task.preset, bindings(task, arm), seed, similarities
        )
  for name in tasks:
    print(draw(name))


if __name__ == '__main__':
  app.run(main)
