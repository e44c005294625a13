"""The files in launch/examples: their commands are right, and the Slurm script does as it says."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import reverb

from seer_tf.replay import messages
from tests import ports
from tests.launch import forks

EXAMPLES = forks.ROOT / 'launch' / 'examples'
PRESET = 'gin_configs/cartpole_swingup_cpu.gin'
# Stand for Slurm's own. The first starts a command on some host of the job, here on this one.
PROGRAMS = {
  'srun': 'while [[ $1 == --* ]]; do shift; done\necho $$ >> "$HOME/started"\nexec "$@"',
  'scontrol': 'echo "$@" > "$HOME/scontrol"',
}


@pytest.mark.parametrize('module', ['actor', 'evaluator', 'learner', 'replay_server'])
def test_flags_and_files_exist(run, module):
  text = '\n'.join(path.read_text() for path in sorted(EXAMPLES.iterdir()))
  named = re.findall(rf'\blaunch\.{module}\b(.*)', text)
  assert len(named) >= 2  # in the Slurm script, and beside it
  shown = run([sys.executable, '-m', f'launch.{module}', '--help']).stdout
  flags = {flag for line in named for flag in re.findall(r'--(\w+)', line)}
  assert flags and flags <= set(re.findall(r'^  --(\w+)', shown, re.MULTILINE))
  for path in re.findall(r'--gin_file=([^\s\]"]+)', text):
    assert (forks.ROOT / path).exists(), path


@pytest.mark.parametrize('agent_steps', [60, 1_000_000])
def test_the_slurm_script_ends_with_its_run_or_is_queued_again(tmp_path, agent_steps):
  """A run without end is told to leave, as Slurm does when the time of a job is up."""
  port = ports.fixed()
  preset, programs, root_dir = tmp_path / 'run.gin', tmp_path / 'bin', tmp_path / 'runs' / 'seer_tf'
  preset.write_text(
    f"include 'tests/counting.gin'\nExperiment.total_agent_steps = {agent_steps}\n"
    'AtStep.freeze_at_agent_steps = 30\nExperiment.variables_period_seconds = 0.2\n'
  )
  programs.mkdir()
  for name, body in {**PROGRAMS, 'python': f'exec {sys.executable} "$@"'}.items():
    (programs / name).write_text(f'#!/bin/bash\n{body}\n')
    (programs / name).chmod(0o755)
  text = (EXAMPLES / 'cluster.sbatch').read_text()
  for written, here in (
    (PRESET, str(preset)),
    ('port=8000', f'port={port}'),
    ('.venv/bin/python', str(programs / 'python')),
  ):
    assert text.count(written) == 1
    text = text.replace(written, here)
  slurm = dict(HOME=str(tmp_path), SLURM_JOB_NAME='seer_tf', SLURM_JOB_ID='17')
  path = f'{programs}:{os.environ["PATH"]}'
  with (tmp_path / 'log').open('w') as log:
    script = subprocess.Popen(
      ['bash', '-c', text],
      cwd=forks.ROOT,
      env={**os.environ, **slurm, 'PATH': path},
      stdout=log,
      stderr=log,
      start_new_session=True,
    )
  try:
    if agent_steps > 60:
      wait_for_updates(script, tmp_path / 'started', f'localhost:{port}')
      for pid in (tmp_path / 'started').read_text().split():
        os.kill(int(pid), signal.SIGTERM)
    code = script.wait(timeout=forks.LIMIT)
  finally:
    if script.poll() is None:
      os.killpg(script.pid, signal.SIGKILL)
  said = (tmp_path / 'log').read_text()
  assert (code, 'error: ' in said) == (0 if agent_steps == 60 else 143, False), said[-3000:]
  assert (tmp_path / 'scontrol').exists() == (agent_steps > 60)
  if agent_steps > 60:
    assert (tmp_path / 'scontrol').read_text() == 'requeue 17\n'
    assert list((root_dir / 'replay').glob('checkpoint-*'))
  assert list((root_dir / 'train' / 'checkpoints').glob('ckpt-*'))


def wait_for_updates(script, started, address):
  """Returns when all six programs have started and the learner has learned."""
  deadline = time.monotonic() + forks.LIMIT
  while time.monotonic() < deadline and script.poll() is None:
    time.sleep(0.2)
    are_all = started.exists() and len(started.read_text().split()) == 6
    if are_all and messages.read(reverb.Client(address)).updates > 5:
      return
  raise AssertionError('no updates in time')
