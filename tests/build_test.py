"""BUILD files list every source with the deps of its imports, and Bazel can read them."""

import ast
import os
import re
import shutil

import pytest

from tests import build_files


def canonical(name):
  return re.sub(r'[-_.]+', '-', name).lower()


def assigned(root, variable):
  """A list that setup.py assigns."""
  for node in ast.parse((root / 'setup.py').read_text()).body:
    if isinstance(node, ast.Assign) and node.targets[0].id == variable:
      return ast.literal_eval(node.value)
  raise AssertionError(f'setup.py has no {variable}')


def package_names(root, variable):
  """Canonical names of the packages that a list of setup.py asks for."""
  return {canonical(re.match(r'[\w.-]+', text)[0]) for text in assigned(root, variable)}


def pypi_names(root):
  """Imported name of each package in third_party/BUILD -> its canonical PyPI name."""
  rules = [rule for rule in build_files.rules(root) if rule.package == 'third_party']
  return {rule.name: canonical(rule.tags[0].partition('pypi:')[2]) for rule in rules}


def test_every_source_is_listed_once_with_the_deps_of_its_imports(root):
  assert build_files.differences(root) == [], 'python -m tests.build_files --fix mends this'


def test_setup_asks_for_every_imported_package_and_tests_alone_import_the_test_packages(root):
  names = pypi_names(root)
  required = package_names(root, 'REQUIRES')
  for_tests = package_names(root, 'TEST_REQUIRES')
  undeclared = []
  for source in build_files.sources(root):
    allowed = required | for_tests if source.startswith('tests/') else required
    imported = {names.get(name) for name in build_files.imports(root, source)} - {None}
    undeclared += [f'{source}: {name}' for name in sorted(imported - allowed)]
  assert undeclared == []


def test_bazel_finds_every_target_and_dep_without_a_network(root, run, tmp_path):
  bazel = shutil.which('bazel')
  if bazel is None and not os.environ.get('CI'):
    pytest.skip('bazel is not installed; `make test` installs it')
  assert bazel, 'make test should have installed bazel-bootstrap'
  startup = [bazel, '--batch', f'--output_user_root={tmp_path}']
  result = run(
    [
      *startup,
      'query',
      '--experimental_repository_disable_download',
      'kind(py_library, deps(//...))',
    ]
  )
  assert result.returncode == 0, result.stderr
  labels = {rule.label for rule in build_files.rules(root)}
  assert set(result.stdout.split()) == labels
  assert run([*startup, 'query', '//...']).returncode == 0


@pytest.fixture
def project(tmp_path):
  """A small project of two modules, without rules for them yet."""
  (tmp_path / 'seer_tf').mkdir()
  (tmp_path / 'third_party').mkdir()
  (tmp_path / 'third_party' / 'BUILD').write_text(
    'py_library(name = "numpy", tags = ["pypi:numpy"])'
  )
  (tmp_path / 'seer_tf' / 'a.py').write_text('import os\nimport numpy as np\n')
  (tmp_path / 'seer_tf' / 'b.py').write_text('def f():\n  from seer_tf import a\n')
  (tmp_path / 'seer_tf' / 'BUILD').write_text('# Kept.\n\npackage(licenses = ["notice"])\n')
  return tmp_path


def test_fix_adds_rules_and_keeps_other_lines(project):
  assert build_files.differences(project) == [
    'seer_tf/a.py is in no BUILD file',
    'seer_tf/b.py is in no BUILD file',
  ]
  build_files.fix(project)
  assert build_files.differences(project) == []
  assert (project / 'seer_tf' / 'BUILD').read_text() == (
    '# Kept.\n\npackage(licenses = ["notice"])\n\n'
    'py_library(\n    name = "a",\n    srcs = ["a.py"],\n    deps = ["//third_party:numpy"],\n)\n\n'
    'py_library(\n    name = "b",\n    srcs = ["b.py"],\n    deps = [":a"],\n)\n'
  )


def test_fix_follows_moved_sources_and_changed_imports(project):
  build_files.fix(project)
  (project / 'seer_tf' / 'b.py').write_text('import numpy\n')
  (project / 'seer_tf' / 'a.py').rename(project / 'seer_tf' / 'c.py')
  assert len(build_files.differences(project)) == 3
  build_files.fix(project)
  rules = {rule.name: rule.deps for rule in build_files.rules(project) if rule.srcs}
  assert rules == {'b': ['//third_party:numpy'], 'c': ['//third_party:numpy']}


def test_source_listed_twice_is_named(project):
  build_files.fix(project)
  build = project / 'seer_tf' / 'BUILD'
  build.write_text(
    build.read_text() + 'py_library(name = "twin", srcs = ["b.py"], deps = [":a"])\n'
  )
  assert 'seer_tf/b.py is listed 2 times' in build_files.differences(project)


def test_unlisted_third_party_package_is_named(project):
  (project / 'seer_tf' / 'a.py').write_text('import pytest\n')
  with pytest.raises(ValueError, match=r"seer_tf/a.py imports 'pytest', which third_party/BUILD"):
    build_files.fix(project)
