r"""Trains one agent, from pixels to latents, with replay in a server process of its own.

    python -m launch.train --gin_file=gin_configs/cartpole_swingup_cpu.gin --root_dir=/tmp/run

starts a `launch.replay_server` for as long as it runs. With `--replay_server=host:port` it uses one
that was started elsewhere with the same gin files and bindings.
"""

import contextlib
import os
import signal
import sys

from absl import flags
import gin

from launch import cli

_ROOT_DIR = flags.DEFINE_string('root_dir', None, 'Folder for all that the run leaves.')
_SEED = flags.DEFINE_integer('seed', 0, 'Seeds environments, initial weights and exploration.')
_REPLAY_SERVER = flags.DEFINE_string(
  'replay_server', None, 'host:port of a running replay server; by default one is started.'
)
flags.mark_flag_as_required('root_dir')


def _claim(root_dir: str):
  """Makes `root_dir` this run's own and saves the operative configuration in it.

  Raises:
    cli.UserError: if it cannot be written, or already holds a run.
  """
  path = os.path.join(root_dir, 'config.gin')
  config = gin.operative_config_str()
  if os.path.exists(path):
    with open(path, encoding='utf-8') as file:
      differences = cli.gin_differences(file.read(), config)
    raise cli.UserError(
      f'root_dir {root_dir} already holds a run'
      + (f' of another configuration ({differences})' if differences else '')
      + '; give another --root_dir, or remove that one.'
    )
  try:
    os.makedirs(root_dir, exist_ok=True)
    with open(path, 'w', encoding='utf-8') as file:
      file.write(config)
  except OSError as error:
    raise cli.UserError(
      f'root_dir {root_dir} cannot be written ({error.strerror}); give another --root_dir.'
    ) from error


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

  from seer_tf.training import experiment, loop

  # A SIGTERM unwinds like Ctrl-C does, so that the replay server is stopped.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  cli.parse_gin()
  tf.keras.utils.set_random_seed(_SEED.value)
  run = loop.Run(experiment.Experiment(), _ROOT_DIR.value, _SEED.value)
  _claim(_ROOT_DIR.value)
  with _replay_server(run.replay_config) as (address, client, check_server):
    print(run.run(address, client, check_server))


if __name__ == '__main__':
  cli.run(main)
