"""What every launch binary does with its command line and with a user's errors."""

import os
import pathlib
import re
import sys
import tokenize
from typing import Callable, Sequence, Tuple
import warnings

from absl import app, flags, logging
import gin

# Where presets are looked for when they are not found from the working directory.
ROOT = pathlib.Path(__file__).resolve().parents[1]

_GIN_FILE = flags.DEFINE_multi_string('gin_file', [], 'Gin files, later ones override.')
_GIN_BINDINGS = flags.DEFINE_multi_string(
  'gin_bindings', [], "Gin bindings, such as --gin_bindings='Experiment.batch_size = 64'."
)


class UserError(ValueError):
  """Something that the user can put right; shown as one line."""


def parse_gin(files: Sequence[str] = (), bindings: Sequence[str] = ()):
  """Parses --gin_file and --gin_bindings, after `files` and `bindings` of the binary's own.

  Import what they configure first.

  Raises:
    UserError: for a missing file, a name or module that does not exist, or a syntax error.
  """
  gin.add_config_file_search_path(str(ROOT))
  try:
    gin.parse_config_files_and_bindings(
      [*files, *_GIN_FILE.value], [*bindings, *_GIN_BINDINGS.value]
    )
  except (
    *(OSError, ImportError),
    *(ValueError, TypeError, SyntaxError, tokenize.TokenError),  # the last of open brackets
  ) as error:
    raise UserError(f'gin configuration: {_one_line(error)}') from error


def gin_arguments() -> Tuple[Sequence[str], Sequence[str]]:
  """Gin files and bindings of this process, for a child process that must be configured alike."""
  return _GIN_FILE.value, _GIN_BINDINGS.value


def _is_for_users(error: Exception) -> bool:
  """Whether an error tells what a user did or met, rather than a fault of this project."""
  tensorflow = sys.modules.get('tensorflow')
  if tensorflow is not None and isinstance(error, tensorflow.errors.OpError):
    return True
  return isinstance(error, (ValueError, OSError)) or bool(_unbound(error))


def _unbound(error: Exception) -> str:
  """What to bind, if gin misses it: a parameter that is required, or has no default; or ''."""
  text = str(error)
  required = re.search(r'Required bindings for `(.*?)` not provided in config: \[(.*?)\]', text)
  without = re.search(
    r'No values supplied by Gin or caller for arguments: \[(.*?)\].*'
    r"In call to configurable '(.*?)'",
    text,
    re.DOTALL,
  )
  if isinstance(error, RuntimeError) and required:
    name, missing = required.groups()
  elif isinstance(error, TypeError) and without:
    missing, name = without.groups()
  else:
    return ''
  bindings = ' '.join(
    f"--gin_bindings='{name}.{parameter} = ...'" for parameter in re.findall(r"'(\w+)'", missing)
  )
  # What is called here and now instead of where its parameters are known: @ControlEncoder().
  too_early = f', or leave out the () of @{name}()' if f'@{name}()' in gin.config_str() else ''
  return f'{name} has parameters that nothing binds: give {bindings}{too_early}'


def _one_line(error: Exception) -> str:
  """An error's message, without what gin appends to it and TensorFlow wraps around it."""
  text = _unbound(error) or str(error).split('In call to configurable')[0]
  wrapped = re.search(r'(?:Timeout|Value)Error: (.*)', text)
  return ' '.join((wrapped[1] if wrapped else text).split())


def _advice(error: Exception) -> str:
  """What to do about a disk, whose errors come as words of the system's from any library."""
  if 'No space left on device' not in str(error):
    return ''
  return '. Make room there; the same command then goes on from the last checkpoint.'


def _show_all_flags():
  """Has --help show flags of every module of launch/, as absl does for the binary's own."""
  for module, defined in flags.FLAGS.flags_by_module_dict().items():
    if module.startswith('launch.'):
      for flag in defined:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def run(main: Callable[..., None], arguments: int = 0):
  """Runs `main` under absl; a user's error ends it with one line and exit code 2.

  Args:
    main: called with the words of the command line that are no flags.
    arguments: how many of them it takes.
  """

  def guarded(argv):
    if len(argv) - 1 != arguments:
      raise app.UsageError(f'expected {arguments} arguments besides flags, got {argv[1:]}')
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.ERROR)  # TensorFlow's warnings are not for this user
    try:
      main(*argv[1:])
    except KeyboardInterrupt:
      print('interrupted', file=sys.stderr)
      sys.exit(130)
    except Exception as error:
      if logging.level_debug() or not _is_for_users(error):
        raise
      print(f'error: {_one_line(error)}{_advice(error)}', file=sys.stderr)
      sys.exit(2)

  # Before TensorFlow is imported: on any CPU it greets its user with three errors about CUDA.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  for category in (SyntaxWarning, UserWarning, DeprecationWarning):  # of other people's code
    warnings.simplefilter('ignore', category)
  warnings.filterwarnings('ignore', category=RuntimeWarning, module='tf_agents')
  _show_all_flags()
  app.run(guarded)
