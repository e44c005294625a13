"""Tests of `launch.benchmark` as a process."""

import json
import math
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


TINY_REPLAY = ['--pixel_rows=101', '--latent_rows=203', '--image_size=25']


@pytest.mark.parametrize(
  'domain, task, frame_shape, latent_shape',
  [
    ('dmc', 'cartpole-swingup', [29, 29, 3], [4, 100]),
    ('atari', 'Breakout,Pong,Seaquest', [25, 25, 1], [1, 64]),
  ],
)
def test_replay_prints_one_line_of_json(run, domain, task, frame_shape, latent_shape):
  arguments = [*TINY_REPLAY, f'--domain={domain}', '--games=Breakout,Pong,Seaquest']
  result = run([sys.executable, '-m', 'launch.benchmark', 'replay', *arguments])
  assert result.returncode == 0, result.stderr
  (line,) = result.stdout.splitlines()
  figures = json.loads(line)
  assert (figures['domain'], figures['task']) == (domain, task)
  assert (figures['pixel_rows'], figures['latent_rows']) == (101, 203)
  assert (figures['frame_shape'], figures['latent_shape']) == (frame_shape, latent_shape)
  # What is stored, and no more than a hundred times as much: a server's first rows cost most.
  for phase, stored in (('pixels', frame_shape), ('latents', latent_shape)):
    assert 0 < figures[f'{phase}_bytes_per_step'] < 100 * math.prod(stored), figures
  assert set(figures) == {
    *('domain', 'task', 'shadows', 'pixels_bytes_per_step', 'latents_bytes_per_step'),
    *('pixel_rows', 'latent_rows', 'frame_shape', 'codec', 'latent_shape', 'block_length'),
  }


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['replay', '--domain=atari', '--games=Pongg'], 'did you mean Pong?'),
    (['replay', '--domain=atari', '--games=Pong,Pong'], 'give games that differ'),
    (['replays'], "unknown benchmark 'replays'; there are updates and replay"),
  ],
)
def test_bad_input_is_one_line(run, arguments, message):
  result = run([sys.executable, '-m', 'launch.benchmark', *arguments])
  assert (result.returncode, result.stdout) == (2, '')
  assert result.stderr.startswith('error: ') and result.stderr.count('\n') == 1, result.stderr
  assert message in result.stderr
