"""Runs of tests/counting.gin, whose rewards count agent steps: command lines, what they leave."""

import collections
import sys

import gin
import pytest

from seer_tf.replay import tables
from seer_tf.training import experiment
from tests.launch import forks


def command(module, bindings, *arguments):
  """The words of a command line."""
  line = [sys.executable, '-m', module, '--gin_file=tests/counting.gin', *arguments]
  return [*line, *(f'--gin_bindings={binding}' for binding in bindings)]


def replay_config(bindings):
  """What replay holds in runs of tests/counting.gin."""
  with gin.unlock_config(), pytest.MonkeyPatch.context() as patch:
    patch.chdir(forks.ROOT)
    gin.clear_config()
    gin.parse_config_files_and_bindings(['tests/counting.gin'], bindings)
    config = experiment.replay_config()
    gin.clear_config()
  return config


def streams(client, layout, row, table='latents'):
  """Stream -> its rows of a table in order, each once: (number, step type, reward).

  Nobody may write meanwhile.
  """
  items = client.server_info(timeout=20)[table].current_size
  seen, found = {}, collections.defaultdict(list)
  spec = tables.window_spec(row, layout)
  dataset = tables.windows(client.server_address, table, spec, 8, timeout_seconds=10)
  for sample in dataset.take(200 * items):
    seen[int(sample.info.key)] = sample.data
    if len(seen) == items:
      break
  assert len(seen) == items
  for data in seen.values():
    own = slice(layout.history, layout.history + layout.block_length)
    own = tables.Row(*(column.numpy()[own] for column in tables.unpack(data, row)))
    for number, step_type, reward in zip(own.number, own.step_type, own.reward):
      if step_type != tables.PADDING:
        found[int(tables.stream_of(number))].append((int(number), int(step_type), float(reward)))
  return {stream: sorted(rows) for stream, rows in found.items()}
