r"""Learns from what actors in other processes write into a replay server.

    python -m launch.learner --replay_server=host:8000 --root_dir=/tmp/run \
      --gin_file=gin_configs/sac_dmc_cpu.gin

Give it the gin files and bindings of the server and of the actors. The same command again goes on
with a run that was stopped or killed. It ends when the run's agent steps are taken and learned.
"""

from launch import cli, processes

_ROOT_DIR = processes.define_root_dir('Folder for checkpoints and TensorBoard.')
_REPLAY_SERVER = processes.define_replay_server(True, 'host:port of the replay server.')


def main():
  """Learns until the run is over."""
  # Imported here, so that --help and a bad flag answer at once.
  import tensorflow as tf

  from seer_tf.replay import server
  from seer_tf.training import checks, crew, experiment, leaving, loop

  leaving.on_signals()
  cli.parse_gin()
  seed = processes.seed_of_start(_ROOT_DIR.value)
  tf.keras.utils.set_random_seed(seed)
  described = experiment.Experiment()
  run = loop.Run(described, _ROOT_DIR.value, seed, crew.RemoteCrew(described))
  checks.check_streams(run.replay_config)
  with processes.claimed(_ROOT_DIR.value):
    client = server.connect(_REPLAY_SERVER.value, run.replay_config)
    print(run.run(_REPLAY_SERVER.value, client, lambda: None))


if __name__ == '__main__':
  cli.run(main)
