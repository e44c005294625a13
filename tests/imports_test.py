"""Imports point one way: launch, training, agents and replay, networks and environments."""

import graphlib
import pathlib

from tests import build_files

_LEAVES = {'environments', 'networks'}
# Room -> rooms that it may import; a room may always import itself.
ALLOWED = {
  'environments': set(),
  'networks': set(),
  'analysis': set(),
  'costs': _LEAVES,
  'freezing': _LEAVES | {'analysis'},
  'replay': _LEAVES,
  'agents': _LEAVES | {'freezing', 'costs'},
  'training': _LEAVES | {'costs', 'freezing', 'replay', 'agents'},
  'launch': _LEAVES | {'seer_tf', 'costs', 'freezing', 'replay', 'agents', 'training'},
  # seer_tf/__init__.py sets up OpenGL before anything else can be imported.
  'seer_tf': {'environments'},
}


def graph(root):
  """Each of our modules but tests -> the modules of ours that it imports."""
  modules = [s for s in build_files.sources(root) if s.startswith(('seer_tf/', 'launch/'))]
  return {
    module: {path for path in build_files.imports(root, module) if path.endswith('.py')}
    for module in modules
  }


def room(module):
  """The room of a module; `tests`, for one, is none and may be imported by nobody."""
  parts = pathlib.PurePosixPath(module).parts
  return parts[1] if parts[0] == 'seer_tf' and len(parts) > 2 else parts[0]


def violations(imports):
  """One line for each import that points the wrong way."""
  return [
    f'{module} imports {imported}'
    for module, targets in sorted(imports.items())
    for imported in sorted(targets)
    if room(imported) not in ALLOWED[room(module)] | {room(module)}
  ]


def test_every_room_has_its_place(root):
  assert {room(module) for module in graph(root)} <= set(ALLOWED)


def test_imports_point_one_way(root):
  assert violations(graph(root)) == []


def test_no_two_modules_import_each_other(root):
  graphlib.TopologicalSorter(graph(root)).prepare()


def test_a_wrong_import_is_seen():
  wrong = {
    'seer_tf/replay/writers.py': {'seer_tf/agents/sac.py', 'seer_tf/replay/tables.py'},
    'seer_tf/networks/heads.py': {'seer_tf/environments/wrappers.py'},
    'seer_tf/training/loop.py': {'launch/cli.py', 'tests/build_files.py'},
  }
  assert violations(wrong) == [
    'seer_tf/networks/heads.py imports seer_tf/environments/wrappers.py',
    'seer_tf/replay/writers.py imports seer_tf/agents/sac.py',
    'seer_tf/training/loop.py imports launch/cli.py',
    'seer_tf/training/loop.py imports tests/build_files.py',
  ]
