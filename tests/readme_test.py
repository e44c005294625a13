"""README.md's commands are run, and every target, flag and file that it names exists.

The convention, so that a reader sees what was tried:

- Each block fenced as ```bash is run as one bash script, from top to bottom, in a copy of the
  project. Blocks of other kinds (```text for what is printed) are not.
- A block fenced as ```python that begins with `# name.py` is that file, at the top of the copy.
- `<!-- not run: reason -->` on the line above the fence leaves a block out; a reason must be given.
- `make target` becomes `make -n target`: the target must exist, nothing is installed or trained.
- `python -m launch.name …` runs with the numbers of tests/tiny_numbers.gin appended.
- `tensorboard --logdir=…` becomes `tensorboard --inspect --logdir=…`, which reads and ends.
- A command that ends in `&` runs on while the rest of the block does; then it gets a SIGTERM, if
  it has not ended by itself, and has to end with exit code 0.
- The port in `--port=8000` and `localhost:8000` becomes a free one, /tmp/ a new folder.
- Lines that begin with `git`, `cd` or `sudo` are passed over.

Whatever else is in a ```bash block fails, so that nothing goes unchecked by accident.
"""

import os
import pathlib
import re
import shlex
import shutil
import sys

import pytest

from tests import ports

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = ROOT / 'README.md'
BLOCK = re.compile(
  r'^(?:<!-- not run: *(.*?) *-->\n)?```bash\n(.*?)^```$', re.MULTILINE | re.DOTALL
)
FILE = re.compile(r'^```python\n(# (\w+\.py)\n.*?)^```$', re.MULTILINE | re.DOTALL)
TINY_RUN = [
  '--gin_file=tests/tiny_numbers.gin',
  '--gin_bindings=Experiment.evaluation_period = 400',
  '--gin_bindings=Experiment.evaluation_episodes = 1',
  '--gin_bindings=WhenConverged.earliest_agent_steps = 200',
  '--gin_bindings=WhenConverged.latest_agent_steps = 300',
  '--gin_bindings=WhenConverged.period_agent_steps = 20',
  '--gin_bindings=WhenConverged.probe_observations = 50',
  '--gin_bindings=Cutout.largest = 12',
]
TINY_FLAGS = {
  'launch.train': TINY_RUN,
  'launch.learner': TINY_RUN,
  'launch.actor': TINY_RUN,
  'launch.evaluator': TINY_RUN,
  'launch.replay_server': ['--gin_file=tests/tiny_numbers.gin'],
  'launch.benchmark': shlex.split(
    '--seconds=0.1 --pixel_rows=100 --latent_rows=2000 --sample_seconds=0.1 --image_size=25 '
    '--batch_size=8'
  ),
}
PASSED_OVER = ('git', 'cd', 'sudo')
# Flags of others' programs that the README may name.
FOREIGN_FLAGS = {'logdir'}


def blocks(text):
  """(line number, reason not to run it or None, lines) of each bash block."""
  return [
    (text.count('\n', 0, match.start(2)), match[1], match[2].replace('\\\n', ' ').splitlines())
    for match in BLOCK.finditer(text)
  ]


def checked(command):
  """What is run in place of one command of the README; '' for nothing.

  Raises:
    ValueError: a command that this test does not know.
  """
  words = shlex.split(command, comments=True)
  if not words or words[0] in PASSED_OVER:
    return ''
  background = words[-1] == '&'
  words = words[: len(words) - background]
  program = pathlib.PurePath(words[0]).name
  if program == 'make':
    words = ['make', '-n', *words[1:]]
  elif program == 'tensorboard':
    words = ['tensorboard', '--inspect', *words[1:]]
  elif program == 'python' and words[1] == '-m' and words[2] in TINY_FLAGS:
    words = ['python', *words[1:], *TINY_FLAGS[words[2]]]
  else:
    raise ValueError(f'{command!r}: no command that this test knows how to try')
  return shlex.join(words) + (' &' if background else '')


def script(lines, folder):
  """The bash script that stands for a block; `folder` takes the place of /tmp."""
  port = ports.fixed()
  commands = [re.sub(r'(="?)/tmp/', rf'\g<1>{folder}/', checked(line)) for line in lines]
  commands = [re.sub(r'(--port=|localhost:)\d+', rf'\g<1>{port}', line) for line in commands]
  # Who is still there is told to leave, and ends with 143 then; the server with 0.
  wait = 'kill "$job" 2> /dev/null || true; wait "$job" || [ $? -eq 143 ]'
  end = f'for job in $(jobs -p); do {wait}; done'
  return '\n'.join(['set -eu -o pipefail', *filter(None, commands), end])


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
  """A copy of the project, without what git does not keep."""
  target = tmp_path_factory.mktemp('readme') / 'project'
  ignored = shutil.ignore_patterns('.*', 'runs', 'build', '__pycache__', '*.egg-info')
  shutil.copytree(ROOT, target, ignore=ignored)
  for content, name in FILE.findall(README.read_text()):
    (target / name).write_text(content)
  return target


def readme_blocks():
  return blocks(README.read_text()) if README.exists() else []


@pytest.mark.parametrize(
  'line, reason, lines', [pytest.param(*block, id=f'line_{block[0]}') for block in readme_blocks()]
)
def test_commands_run(run, copy, tmp_path, line, reason, lines):
  if reason is not None:
    assert reason, f'README.md:{line}: say why the block is not run'
    return
  path = f'{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
  command = ['bash', '-c', script(lines, tmp_path)]
  result = run(command, cwd=copy, env={'PATH': path}, timeout_seconds=900)
  assert result.returncode == 0, f'README.md:{line}:\n{result.stdout}\n{result.stderr}'


def test_an_own_part_takes_twenty_lines_at_most():
  ((content, _),) = FILE.findall(README.read_text())
  classes = content.split('@gin.configurable')[1:]
  assert len(classes) == 3
  assert all(len(lines.strip().splitlines()) <= 20 for lines in classes)


def test_the_two_commands_are_there():
  commands = [line for _, reason, lines in readme_blocks() if reason is None for line in lines]
  assert {'make train', 'make test'} <= {' '.join(shlex.split(c, comments=True)) for c in commands}


def test_flags_exist(run):
  named = set(re.findall(r'(?<![\w-])--([a-z]\w+)', README.read_text()))
  known = set(FOREIGN_FLAGS)
  for module in TINY_FLAGS:
    help_text = run([sys.executable, '-m', module, '--help']).stdout
    known |= set(re.findall(r'--(?:\[no\])?(\w+)', help_text))
  assert named <= known, named - known


def test_files_exist():
  named = re.findall(r'(?<![\w/.<])((?:[\w-]+/)+[\w-]+\.(?:gin|md|py|sh))\b', README.read_text())
  assert [path for path in named if not (ROOT / path).exists()] == []


def test_convention_is_kept():
  text = """
```bash
git clone somewhere && cd here
make train  # sets up
python -m launch.replay_server \\
  --port=8000 &
python -m launch.train --root_dir=/tmp/run --replay_server=localhost:8000
```
<!-- not run: needs a second machine -->
```bash
ssh there
```
"""
  (_, reason, lines), (_, reason_not, not_run) = blocks(text)
  assert (reason, reason_not, not_run) == (None, 'needs a second machine', ['ssh there'])
  train = shlex.join(TINY_FLAGS['launch.train'])
  commands = script(lines, '/elsewhere').splitlines()[1:-1]
  port = re.search(r'--port=(\d+)', commands[1])[1]
  assert commands == [
    'make -n train',
    f'python -m launch.replay_server --port={port} --gin_file=tests/tiny_numbers.gin &',
    f'python -m launch.train --root_dir=/elsewhere/run --replay_server=localhost:{port} {train}',
  ]
  with pytest.raises(ValueError, match='no command that this test knows'):
    script(not_run, '/elsewhere')
