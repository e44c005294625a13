r"""Trains one agent, from pixels to latents, with replay in a server process of its own.

    python -m launch.train --gin_file=gin_configs/cartpole_swingup_cpu.gin --root_dir=/tmp/run

starts a `launch.replay_server` for as long as it runs. With `--replay_server=host:port` it uses one
that was started elsewhere with the same gin files and bindings. The same command again goes on with
a run that was stopped or killed; of one that has ended it shows the table once more.
"""

import contextlib
import os

from launch import cli, processes

_ROOT_DIR = processes.define_root_dir('Folder for all that the run leaves.')
_REPLAY_SERVER = processes.define_replay_server(
  False, 'host:port of a running replay server; by default one is started.'
)


@contextlib.contextmanager
def _replay_server(config):
  """Yields (address, client, check) of the server asked for, or of an embedded one."""
  from seer_tf.replay import server

  if _REPLAY_SERVER.value:
    yield _REPLAY_SERVER.value, server.connect(_REPLAY_SERVER.value, config), lambda: None
    return
  with server.EmbeddedServer(*cli.gin_arguments(), root_dir=_ROOT_DIR.value) as embedded:
    yield embedded.address, server.connect(embedded.address, config), embedded.check


def main():
  """Trains."""
  # Imported here, so that --help and a bad flag answer at once.
  import tensorflow as tf

  from seer_tf.training import experiment, leaving, loop

  leaving.on_signals()
  cli.parse_gin()
  seed = processes.seed_of_start(_ROOT_DIR.value)
  tf.keras.utils.set_random_seed(seed)
  run = loop.Run(experiment.Experiment(), _ROOT_DIR.value, seed)
  summary = os.path.join(_ROOT_DIR.value, 'summary.txt')
  with processes.claimed(_ROOT_DIR.value):
    if not os.path.exists(summary):
      with _replay_server(run.replay_config) as (address, client, check_server):
        table = run.run(address, client, check_server)
      with open(summary, 'w', encoding='utf-8') as file:
        file.write(table)
    else:
      print(
        f'The run in {_ROOT_DIR.value} has ended; this is how. For another give another root_dir.'
      )
    with open(summary, encoding='utf-8') as file:
      print(file.read())


if __name__ == '__main__':
  cli.run(main)
