"""What the binaries of one run share: flags, and the claim on a root_dir."""

import contextlib
import fcntl
import os

from absl import flags
import gin

from launch import cli

SEED = flags.DEFINE_integer('seed', 0, 'Seeds environments, initial weights and exploration.')

# Between the seeds of two starts: a prime, so that they hardly ever meet those of another --seed.
_SEEDS_OF_A_START = 1_000_003


def define_root_dir(meaning: str):
  """Defines --root_dir, which is required."""
  holder = flags.DEFINE_string('root_dir', None, meaning)
  flags.mark_flag_as_required('root_dir')
  return holder


def define_replay_server(required: bool, meaning: str):
  """Defines --replay_server."""
  holder = flags.DEFINE_string('replay_server', None, meaning)
  if required:
    flags.mark_flag_as_required('replay_server')
  return holder


def seed_of_start(root_dir: str) -> int:
  """A seed from --seed; another one whenever a run goes on from a further checkpoint.

  With the same one it would meet the random numbers of its beginning once more.
  """
  from seer_tf.training import checkpoints

  return (SEED.value + _SEEDS_OF_A_START * checkpoints.newest(root_dir)) % 2**31


@contextlib.contextmanager
def claimed(root_dir: str, config_name: str = 'config.gin'):
  """Makes `root_dir` this process's own in this context; the configuration is kept there.

  What holds a run of the same configuration is gone on with.

  Args:
    root_dir: of the run.
    config_name: of the file that the operative configuration is compared with, or written to.

  Raises:
    cli.UserError: if it cannot be written, is another process's, or of another configuration.
  """
  from seer_tf.training import configuration

  config = gin.operative_config_str()
  try:
    os.makedirs(root_dir, exist_ok=True)
    lock = os.open(os.path.join(root_dir, f'{config_name}.lock'), os.O_CREAT | os.O_RDWR)
  except OSError as error:
    raise _unwritable(root_dir, error) from error
  try:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      raise cli.UserError(
        f'root_dir {root_dir} is being written by another process; stop that one, or give another '
        '--root_dir.'
      ) from error
    path = os.path.join(root_dir, config_name)
    if os.path.exists(path):
      with open(path, encoding='utf-8') as file:
        differences = configuration.differences(file.read(), config)
      if differences:
        raise cli.UserError(
          f'root_dir {root_dir} holds a run of another configuration ({differences}); give another '
          '--root_dir, or the configuration of that run to go on with it.'
        )
    else:
      try:
        with open(f'{path}.partial', 'w', encoding='utf-8') as file:
          file.write(config)
        os.replace(f'{path}.partial', path)
      except OSError as error:
        raise _unwritable(root_dir, error) from error
    yield
  finally:
    os.close(lock)


def _unwritable(root_dir: str, error: OSError) -> cli.UserError:
  return cli.UserError(
    f'root_dir {root_dir} cannot be written ({error.strerror}); give another --root_dir.'
  )
