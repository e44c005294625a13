r"""Acts for a learner: one environment, with the weights that the learner publishes.

    python -m launch.actor --replay_server=host:8000 --task=3 --gin_file=gin_configs/sac_dmc_cpu.gin

As many as you like, each with a --task of its own, which decides its seeds; each may come and go at
any time. Give them the gin files and bindings of server and learner. It ends when the run is over.
"""

from absl import flags

from launch import cli, processes

_REPLAY_SERVER = processes.define_replay_server(True, 'host:port of the replay server.')
_TASK = flags.DEFINE_integer(
  'task', None, 'Number of this actor, from 0 on.', lower_bound=0, upper_bound=99_999
)
flags.mark_flag_as_required('task')


def main():
  """Acts until the run is over."""
  # Imported here, so that --help and a bad flag answer at once.
  import tensorflow as tf

  from seer_tf.replay import server
  from seer_tf.training import actor, experiment, leaving

  leaving.on_signals()
  cli.parse_gin()
  seed = 100_000 * processes.SEED.value + 10 + _TASK.value
  tf.keras.utils.set_random_seed(seed)
  acting = actor.Actor(experiment.Experiment(), seed)
  client = server.connect(_REPLAY_SERVER.value, acting.replay_config)
  try:
    acting.run(client)
  except (KeyboardInterrupt, SystemExit):
    acting.leave()
    raise


if __name__ == '__main__':
  cli.run(main)
