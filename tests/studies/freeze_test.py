"""Tests of the study of freezing: arms that can run, rows that are drawn."""

import csv
import itertools
import os
import signal
import subprocess
import sys
from xml.etree import ElementTree

import gin
import pytest
import tensorflow as tf

from seer_tf.training import experiment
from studies import freeze, runs


@pytest.mark.parametrize('name, arm', list(itertools.product(freeze.TASKS, freeze.ARMS)))
def test_every_arm_suits_its_task(root, monkeypatch, name, arm):
  task = freeze.TASKS[name]
  monkeypatch.chdir(root)
  with gin.unlock_config():
    gin.clear_config()
    gin.parse_config_files_and_bindings([task.preset], freeze.bindings(task, arm))
    run = experiment.Experiment()
    schedule = run.schedule_fn()
    schedule.check(run.initial_random_agent_steps, run.total_agent_steps)
    lower, _ = run.lower_fn((48, 48, 4)).cut(run.freeze_up_to)
    schedule.check_layers([stage.name for stage in lower.stages])
    gin.clear_config()
  assert run.total_agent_steps % run.evaluation_period == 0


def test_interval_of_the_mean():
  assert runs.interval([3.0]) == (3.0, 3.0)
  low, high = runs.interval([0.0] * 50 + [1.0] * 50)
  # The mean's standard error is 0.05.
  assert low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.02)
  assert high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.02)


def test_scalars_of_a_run_become_rows(tmp_path):
  root_dir, path = tmp_path / 'run', tmp_path / 'similarities' / 'run.csv'
  for part, steps in (('train', (250, 500)), ('train_again', (500, 750))):
    with tf.summary.create_file_writer(str(root_dir / part)).as_default():
      for step in steps:
        tf.summary.scalar('Similarity by agent_steps/conv1', step / 1000, step=step)
        tf.summary.scalar('Losses by updates/loss', 7.0, step=step)
  runs.write_scalars(path, root_dir, 'Similarity')
  assert path.read_text().splitlines() == ['agent_steps,conv1', '250,0.25', '500,0.5', '750,0.75']
  runs.write_scalars(tmp_path / 'none.csv', root_dir, 'Dissimilarity')
  assert not (tmp_path / 'none.csv').exists()


def write(path, period, returns):
  columns = ['agent_steps', 'mean_return', 'flops', 'seconds', 'replay_used_bytes']
  with path.open('w', newline='') as file:
    rows = csv.writer(file)
    rows.writerow(columns)
    for i, value in enumerate(returns, 1):
      rows.writerow([i * period, value, i * 1e12, i * 10, 5e6])
    rows.writerow([len(returns) * period + 1, 1e9, 0, 0, 0])  # at a freeze: other seeds have none


def test_rows_become_a_table_and_curves(tmp_path, monkeypatch):
  monkeypatch.setattr(freeze, 'ROWS', tmp_path)
  period = freeze.TASKS['krull'].evaluation_period
  assert freeze.draw('krull') == ''
  write(tmp_path / 'krull-never-seed0.csv', period, [50, 10, 20, 30])
  write(tmp_path / 'krull-never-seed1.csv', period, [50, 30, 40, 50])
  write(tmp_path / 'krull-random-seed0.csv', period, [1, 1, 1, 4])
  *_, never, random = freeze.draw('krull').splitlines()
  assert never == '| never | 2 | 30.0 | 20.0 to 40.0 | 4.00 | 40 | 5.0 |'
  assert random == '| random | 1 | 2.0 | 2.0 to 2.0 | 4.00 | 40 | 5.0 |'
  svg = ElementTree.parse(tmp_path / 'krull.svg').getroot()
  lines = svg.findall('{*}polyline')
  assert len(lines) == 3 * 2  # two curves against each of three axes
  assert [len(line.get('points').split()) for line in lines] == [4] * 6


_LEAVES_SLOWLY = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.default_int_handler)
try:
  print('ready', flush=True)
  time.sleep(60)
except KeyboardInterrupt:
  time.sleep(1)
  pathlib.Path(sys.argv[1]).write_text('saved')
"""


@pytest.mark.parametrize(
  'tell, number',
  [
    # Ctrl-C goes to all processes of a terminal's group, SIGTERM to the study alone.
    (os.killpg, signal.SIGINT),
    (os.kill, signal.SIGTERM),
  ],
)
def test_a_run_that_is_told_to_leave_has_the_time_to_save(root, tmp_path, tell, number):
  command = [sys.executable, '-c', _LEAVES_SLOWLY, str(tmp_path / 'saved')]
  study = f'from studies import runs; runs.train({command!r})'
  with subprocess.Popen(
    [sys.executable, '-c', study], cwd=root, stdout=subprocess.PIPE, start_new_session=True
  ) as process:
    assert process.stdout.readline() == b'ready\n'
    tell(process.pid, number)
    assert process.wait(timeout=60) == (143 if number == signal.SIGTERM else -number)
  assert (tmp_path / 'saved').read_text() == 'saved'


def test_a_run_that_fails_ends_the_study():
  with pytest.raises(subprocess.CalledProcessError):
    runs.train([sys.executable, '-c', 'raise SystemExit(3)'])


def test_a_run_that_has_ended_is_not_run_again(tmp_path):
  rows = tmp_path / 'rows.csv'
  rows.write_text('agent_steps\n5\n')
  runs.keep(rows, tmp_path / 'nowhere', 'no preset', [], seed=0)
  assert runs.load(rows) == [{'agent_steps': '5'}]
