r"""Evaluates the weights that a learner publishes, in whole episodes.

    python -m launch.evaluator --replay_server=host:8000 --root_dir=/tmp/evaluations \
      --gin_file=gin_configs/sac_dmc_cpu.gin

It writes results.csv and TensorBoard's eval/ below its root_dir, which may be the learner's. Give
it the gin files and bindings of the learner. It ends when the run is over.
"""

from launch import cli, processes

_ROOT_DIR = processes.define_root_dir('Folder for results.csv and TensorBoard.')
_REPLAY_SERVER = processes.define_replay_server(True, 'host:port of the replay server.')


def main():
  """Evaluates until the run is over."""
  # Imported here, so that --help and a bad flag answer at once.
  import tensorflow as tf

  from seer_tf.replay import server
  from seer_tf.training import evaluator, experiment, leaving

  leaving.on_signals()
  cli.parse_gin()
  tf.keras.utils.set_random_seed(processes.SEED.value)
  evaluating = evaluator.Evaluator(
    experiment.Experiment(), _ROOT_DIR.value, processes.SEED.value + 1
  )
  with processes.claimed(_ROOT_DIR.value, 'evaluator.gin'):
    evaluating.run(server.connect(_REPLAY_SERVER.value, evaluating.replay_config))


if __name__ == '__main__':
  cli.run(main)
