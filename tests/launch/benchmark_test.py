"""Tests of `launch.benchmark updates` as a process."""

import json
import sys

import pytest

SMALL = {
  'sac': ['ControlEncoder.filters = (4, 4)', 'critic_head.hidden = [16]'],
  'rainbow': ['QHead.hidden = 16'],
  'dqn': ['QHead.hidden = 16'],
}


@pytest.mark.parametrize('agent', SMALL)
def test_updates_print_one_line_of_json(run, agent):
  arguments = ['--batch_size=2', '--image_size=36', '--seconds=0.1']
  arguments += [f'--gin_bindings={binding}' for binding in SMALL[agent]]
  command = [sys.executable, '-m', 'launch.benchmark', 'updates', f'--agent={agent}', *arguments]
  result = run(command)
  assert result.returncode == 0, result.stderr
  (line,) = result.stdout.splitlines()
  figures = json.loads(line)
  assert figures['agent'] == agent
  assert (figures['image_size'], figures['batch_size']) == (36, 2)
  assert figures['pixel_updates'] >= 4 and figures['latent_updates'] >= 4
  assert min(figures['latents_ms'], figures['pixels_ms']) > 0
