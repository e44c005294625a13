"""Tests of `launch.benchmark` as a process."""

import json
import math
import sys

import pytest

from tests.launch import forks

SMALL_CONTROL = ['ControlEncoder.filters = (4, 4)', 'critic_head.hidden = [16]']
SMALL = {
  'sac': SMALL_CONTROL,
  'curl': SMALL_CONTROL,
  'drq': SMALL_CONTROL,
  'sac_ae': SMALL_CONTROL,
  'rainbow': ['QHead.hidden = 16'],
  'dqn': ['QHead.hidden = 16'],
}


@pytest.mark.parametrize('agent', SMALL)
def test_updates_print_one_line_of_json(agent):
  arguments = ['--batch_size=2', '--image_size=36', '--seconds=0.1']
  arguments += [f'--gin_bindings={binding}' for binding in SMALL[agent]]
  command = [sys.executable, '-m', 'launch.benchmark', 'updates', f'--agent={agent}', *arguments]
  result = forks.run(command)
  assert result.returncode == 0, result.stderr
  (line,) = result.stdout.splitlines()
  figures = json.loads(line)
  assert figures['agent'] == agent
  assert (figures['image_size'], figures['batch_size']) == (36, 2)
  assert figures['pixel_updates'] >= 4 and figures['latent_updates'] >= 4
  assert min(figures['latents_ms'], figures['pixels_ms']) > 0


TINY_REPLAY = ['--pixel_rows=101', '--latent_rows=2003', '--image_size=25', '--sample_seconds=0.1']


@pytest.mark.parametrize(
  'domain, task, frame_shape, latent_shape',
  [
    ('dmc', 'cartpole-swingup', [29, 29, 3], [4, 100]),
    ('atari', 'Breakout,Pong,Seaquest', [25, 25, 1], [1, 64]),
  ],
)
def test_replay_prints_one_line_of_json(domain, task, frame_shape, latent_shape):
  arguments = [*TINY_REPLAY, f'--domain={domain}', '--games=Breakout,Pong,Seaquest']
  result = forks.run([sys.executable, '-m', 'launch.benchmark', 'replay', *arguments])
  assert result.returncode == 0, result.stderr
  (line,) = result.stdout.splitlines()
  figures = json.loads(line)
  assert (figures['domain'], figures['task']) == (domain, task)
  assert (figures['pixel_rows'], figures['latent_rows']) == (101, 2003)
  assert (figures['frame_shape'], figures['latent_shape']) == (frame_shape, latent_shape)
  # What is stored, and no more than a hundred times as much: a server's first rows cost most.
  for phase, stored in (('pixels', frame_shape), ('latents', latent_shape)):
    assert 0 < figures[f'{phase}_bytes_per_step'] < 100 * math.prod(stored), figures
  kept = ('shadows', 'latent_rows', 'frame_shape', 'latent_shape', 'block_length')
  rates = ('pixels_inserted', 'converted_rows', 'encoded_rows', 'latents_inserted', 'sampled')
  assert all(figures[f'{rate}_per_s'] > 0 for rate in rates)
  memory = [figures[f'resident_{moment}'] for moment in ('before', 'peak', 'after')]
  assert 0 < memory[0] <= memory[1] and memory[2] <= memory[1] + 2_000_000  # noise of a small heap
  assert figures['codec'] == 'uint8' and set(kept) < set(figures)
  assert 0 < figures['latent_error_over_std'] < 0.1
  assert 0 < figures['checkpoint_bytes_per_step'] < figures['latents_bytes_per_step']


def test_codec_and_sizes_can_be_chosen():
  arguments = [*TINY_REPLAY, '--codec=float32', '--sizes=1e3,2e3']
  result = forks.run([sys.executable, '-m', 'launch.benchmark', 'replay', *arguments])
  assert result.returncode == 0, result.stderr
  lines = [json.loads(line) for line in result.stdout.splitlines()]
  assert [(line['codec'], line['latent_rows']) for line in lines] == [
    ('float32', 1000),
    ('float32', 2000),
  ]
  assert all(line['latents_bytes_per_step'] > 1600 for line in lines)


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['replay', '--domain=atari', '--games=Pongg'], 'did you mean Pong?'),
    (['replay', '--domain=atari', '--games=Pong,Pong'], 'give games that differ'),
    (['replay', '--sizes=many'], 'give numbers of rows'),
    (['replay', '--sizes=10'], 'at least 1000 rows'),
    (['replays'], "unknown benchmark 'replays'; there are updates, replay, cluster, checkpoints"),
  ],
)
def test_bad_input_is_one_line(arguments, message):
  result = forks.run([sys.executable, '-m', 'launch.benchmark', *arguments])
  assert (result.returncode, result.stdout) == (2, '')
  assert result.stderr.startswith('error: ') and result.stderr.count('\n') == 1, result.stderr
  assert message in result.stderr


def test_checkpoints_print_a_line_for_each_phase():
  tiny = ['--gin_file=tests/tiny_numbers.gin', '--pixel_rows=50', '--latent_rows=400']
  command = [sys.executable, '-m', 'launch.benchmark', 'checkpoints', '--seconds=0.1', *tiny]
  result = forks.run(command)
  assert result.returncode == 0, result.stderr
  pixels, latents = map(json.loads, result.stdout.splitlines())
  assert (pixels['phase'], latents['phase']) == ('pixels', 'latents')
  assert (pixels['rows'], latents['rows']) == (50, 400)
  for figures in (pixels, latents):
    assert figures['checkpoint_bytes'] > 0
    for name in ('server_seconds', 'agent_steps_per_s', 'learner_seconds'):
      assert figures[name] > 0
    assert 0 <= figures['stalled_seconds'] <= figures['server_seconds']


def test_cluster_prints_a_line_for_the_learner_alone_and_for_each_number_of_actors():
  endless = 'Experiment.total_agent_steps = 1_000_000'
  tiny = ['--gin_file=tests/tiny_numbers.gin', f'--gin_bindings={endless}']
  tiny += ['--gin_bindings=Experiment.variables_period_seconds = 0.2']
  command = [sys.executable, '-m', 'launch.benchmark', 'cluster', '--actors=1', '--seconds=1']
  result = forks.run([*command, *tiny])
  assert result.returncode == 0, result.stderr
  alone, one = map(json.loads, result.stdout.splitlines())
  assert (alone['actors'], one['actors']) == (0, 1)
  assert alone['share_of_updates_alone'] == 1
  for figures in (alone, one):
    assert figures['updates_per_s'] > 0 and figures['env_frames_per_s'] >= 0
  assert one['agent_steps_per_s'] > 0
