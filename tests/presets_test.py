"""Presets: every name exists, published numbers carry their source, task files only override."""

import io
import json
import pathlib
import re
import sys
import tokenize

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PRESETS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('gin_configs/*.gin'))
PAPER = [preset for preset in PRESETS if preset.endswith('_paper.gin')]
# Tags of the comments in a paper preset; its head says what they stand for.
SOURCE = re.compile(r'\[(code|paper|ours)\]')

# Run in a process that has imported what a replay server imports and no more: names that only some
# test makes known must not count. Prints what went wrong for each preset, or null.
_PARSE = """
import json, sys
import gin
from seer_tf.training import experiment

def error(preset, bindings):
  gin.clear_config()
  try:
    gin.parse_config_files_and_bindings([preset], bindings, finalize_config=False)
    if preset in complete:
      gin.finalize()
      experiment.Experiment()
  except Exception as error:
    return f'{type(error).__name__}: {error}'

complete, cases = json.loads(sys.argv[1])
json.dump([error(*case) for case in cases], sys.stdout)
"""


def text(preset):
  return (ROOT / preset).read_text()


def included(preset):
  """Presets that this one includes, and those that they include."""
  bases = re.findall(r"^include '(.*)'", text(preset), re.MULTILINE)
  return bases + [further for base in bases for further in included(base)]


def errors(run, cases):
  """What gin says to each (preset, bindings), None if it is content."""
  bases = {base for preset in PRESETS for base in included(preset)}
  complete = [preset for preset in PRESETS if preset not in bases]
  result = run([sys.executable, '-c', _PARSE, json.dumps([complete, cases])])
  assert result.returncode == 0, result.stderr
  return json.loads(result.stdout)


def test_every_preset_parses_and_every_misspelling_fails(run):
  misspelt = ['Experiment.batch_sizes = 1', 'Experimental.batch_size = 1', 'load.size = 9']
  cases = [(preset, []) for preset in PRESETS] + [(PRESETS[0], [line]) for line in misspelt]
  said = errors(run, cases)
  assert dict(zip(PRESETS, said)) == dict.fromkeys(PRESETS)
  assert all(said[len(PRESETS) :]), said[len(PRESETS) :]


def numbers_without_source(config):
  """Bindings of numbers that have no comment with a source, beside them or right above them."""
  missing, above, statement, comments = [], '', [], []
  for token in tokenize.generate_tokens(io.StringIO(config).readline):
    if token.type == tokenize.COMMENT:
      comments.append(token.string)
    elif token.type == tokenize.NL and not statement:  # a line of comment only, or an empty one
      above = f'{above} {" ".join(comments)}' if comments else ''
      comments = []
    elif token.type == tokenize.NEWLINE:
      has_number = any(part.type == tokenize.NUMBER for part in statement)
      if has_number and not SOURCE.search(f'{above} {" ".join(comments)}'):
        missing.append(statement[0].line.strip())
      above, statement, comments = '', [], []
    else:
      statement.append(token)
  return missing


@pytest.mark.parametrize('preset', PAPER)
def test_every_published_number_has_its_source(preset):
  assert numbers_without_source(text(preset)) == []


def test_number_without_source_is_seen():
  config = """
    # [code] stands above
    f.a = 1
    f.b = (1,  # pixels [ours]: small
           2)
    f.c = 3  # pixels
    f.d = 'name4'

    # [code] is too far away

    f.e = -5
  """
  lines = '\n'.join(line[4:] for line in config.splitlines())
  assert numbers_without_source(lines) == ['f.c = 3  # pixels', 'f.e = -5']


@pytest.mark.parametrize('preset', [preset for preset in PRESETS if included(preset)])
def test_an_including_preset_only_overrides_or_configures_what_it_chooses(preset):
  full = ''.join(text(base) for base in included(preset))
  chosen = re.findall(r'@(\w+)', text(preset))
  for name in re.findall(r'^([\w./]+)\s*=', text(preset), re.MULTILINE):
    is_bound = f'%{name}' in full or re.search(rf'^{re.escape(name)}\s*=', full, re.MULTILINE)
    assert is_bound or name.split('.')[0] in chosen, name


def test_there_is_a_paper_and_a_cpu_preset():
  assert PAPER and any(preset.endswith('_cpu.gin') for preset in PRESETS)
