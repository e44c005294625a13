"""BUILD files held against the imports that the sources really make.

    python -m tests.build_files          names every difference and exits with 1 if there is one
    python -m tests.build_files --fix    mends them in place: deps, new sources, vanished sources

A rule's deps are the imports written in its sources, wherever in the file: targets for our own
modules, `//third_party:<name>` for others, nothing for the standard library. What is reached in
another way (a pytest fixture, a module started as a process, the `__init__` of a package on the way
to a module) is no dep.
"""

import argparse
import ast
import collections
import dataclasses
import importlib.util
import pathlib
import re
import sys
from typing import Dict, Iterator, List, Optional, Set

ROOT = pathlib.Path(__file__).resolve().parents[1]
_IGNORED = re.compile(r'\.|build$|dist$|runs$|bazel-|__pycache__|.*\.egg-info$')
_HEADER = 'package(default_visibility = ["//visibility:public"])\n'


@dataclasses.dataclass
class Rule:
  """One py_library of a BUILD file; `start` and `end` are its lines, from 0, end exclusive."""

  package: str
  name: str
  srcs: List[str]
  deps: List[str]
  testonly: bool = False
  tags: List[str] = dataclasses.field(default_factory=list)
  start: Optional[int] = None
  end: Optional[int] = None

  @property
  def label(self) -> str:
    return f'//{self.package}:{self.name}'

  @property
  def sources(self) -> List[str]:
    """Paths from the top of the project."""
    return [f'{self.package}/{name}'.lstrip('/') for name in self.srcs]

  def text(self) -> str:
    """The rule as buildifier writes it."""
    lines = ['py_library(', f'    name = "{self.name}",']
    if self.testonly:
      lines.append('    testonly = True,')
    for attribute in ('srcs', 'tags', 'deps'):
      values = getattr(self, attribute)
      if len(values) == 1:
        lines.append(f'    {attribute} = ["{values[0]}"],')
      elif values:
        lines += [f'    {attribute} = [', *(f'        "{value}",' for value in values), '    ],']
    return '\n'.join([*lines, ')'])


def sources(root: pathlib.Path) -> List[str]:
  """Every .py file of the project, as paths from its top."""
  folders = [path for path in root.iterdir() if path.is_dir() and not _IGNORED.match(path.name)]
  files = list(root.glob('*.py'))
  for folder in folders:
    files += (path for path in folder.rglob('*.py') if '__pycache__' not in path.parts)
  return sorted(path.relative_to(root).as_posix() for path in files)


def rules(root: pathlib.Path) -> List[Rule]:
  """The rules of every BUILD file that has to do with a Python source.

  Raises:
    ValueError: an attribute that this file does not know, and so could not keep.
  """
  folders = {pathlib.PurePosixPath(source).parent for source in sources(root)}
  files = [root / folder / 'BUILD' for folder in sorted(folders)] + [root / 'third_party' / 'BUILD']
  found = []
  for file in dict.fromkeys(files):
    if not file.exists():
      continue
    package = file.parent.relative_to(root).as_posix().strip('.')
    for node in ast.parse(file.read_text()).body:
      call = node.value if isinstance(node, ast.Expr) else None
      if not isinstance(call, ast.Call) or call.func.id != 'py_library':
        continue
      values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
      unknown = set(values) - {'name', 'srcs', 'deps', 'testonly', 'tags'}
      if unknown:
        raise ValueError(f'{file}:{node.lineno}: unknown attributes {sorted(unknown)}.')
      values = {'srcs': [], 'deps': [], **values}
      place = {'start': node.lineno - 1, 'end': node.end_lineno}
      found.append(Rule(package=package, **values, **place))
  return found


def imports(root: pathlib.Path, source: str) -> Iterator[str]:
  """Yields what a source imports: paths of our own modules, top-level names of all others."""
  for node in ast.walk(ast.parse((root / source).read_text())):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      if node.level:
        raise ValueError(f'{source}:{node.lineno}: relative import; write the whole package name.')
      names = [f'{node.module}.{alias.name}' for alias in node.names]
    else:
      continue
    for name in names:
      yield _module_path(root, name) or name.partition('.')[0]


def _module_path(root: pathlib.Path, name: str) -> Optional[str]:
  """The module that `name` is, or is defined in; None if it is not ours."""
  parts = name.split('.')
  for path in ('/'.join(parts), '/'.join(parts[:-1])):
    for candidate in (f'{path}.py', f'{path}/__init__.py'):
      if path and (root / candidate).is_file():
        return candidate
  return None


def _is_standard_library(name: str) -> bool:
  spec = importlib.util.find_spec(name)
  return spec is not None and not re.search(r'(site|dist)-packages', str(spec.origin))


def _label(rule: Rule, package: str) -> str:
  return f':{rule.name}' if rule.package == package else rule.label


def expected_deps(root: pathlib.Path, rule: Rule, owners: Dict[str, Rule]) -> List[str]:
  """The deps that the imports of the rule's sources ask for, in buildifier's order.

  Raises:
    ValueError: a source imports a package that has no stub in third_party/BUILD.
  """
  deps: Set[str] = set()
  for source in rule.sources:
    for imported in imports(root, source):
      if imported in owners:
        if owners[imported] is not rule:
          deps.add(_label(owners[imported], rule.package))
      elif not _is_standard_library(imported):
        raise ValueError(
          f'{source} imports {imported!r}, which third_party/BUILD does not list; add a py_library '
          'of that name with its PyPI name as tag, and the package to setup.py.'
        )
  return sorted(deps, key=lambda label: (not label.startswith(':'), label.replace(':', '!')))


def _new_rule(source: str) -> Rule:
  path = pathlib.PurePosixPath(source)
  return Rule(
    package=path.parent.as_posix().strip('.'),
    name=path.stem,
    srcs=[path.name],
    deps=[],
    testonly=path.parts[0] == 'tests',
  )


def owners_of(found: List[Rule]) -> Dict[str, Rule]:
  """Source path, or name of a third-party package -> the rule that lists it."""
  owners = {source: rule for rule in found for source in rule.sources}
  owners.update({rule.name: rule for rule in found if rule.package == 'third_party'})
  return owners


def differences(root: pathlib.Path) -> List[str]:
  """One line for each place where BUILD files and sources disagree."""
  found, problems = rules(root), []
  listed = collections.Counter(source for rule in found for source in rule.sources)
  present = set(sources(root))
  problems += [f'{source} is in no BUILD file' for source in sorted(present - set(listed))]
  problems += [
    f'{source} is listed, but there is no such file' for source in sorted(set(listed) - present)
  ]
  problems += [f'{source} is listed {count} times' for source, count in listed.items() if count > 1]
  owners = owners_of(found)
  for rule in found:
    if present.issuperset(rule.sources):
      expected = expected_deps(root, rule, owners)
      if rule.deps != expected:
        problems.append(f'{rule.label} has deps {rule.deps}; its imports are {expected}')
  return problems


def fix(root: pathlib.Path) -> None:
  """Rewrites the rules that differ; every other line of a BUILD file stays as it is."""
  present, found = sources(root), rules(root)
  for rule in found:
    if rule.package != 'third_party':
      rule.srcs = [name for name, path in zip(rule.srcs, rule.sources) if path in present]
  owners = owners_of(found)
  added = [_new_rule(source) for source in present if source not in owners]
  owners.update(owners_of(added))

  by_package = collections.defaultdict(list)
  for rule in found + added:
    if rule.package != 'third_party':
      rule.deps = expected_deps(root, rule, owners)
      by_package[rule.package].append(rule)
  for package, members in by_package.items():
    file = root / package / 'BUILD'
    lines = (file.read_text() if file.exists() else _HEADER).splitlines()
    for rule in sorted(
      (rule for rule in members if rule.start is not None), key=lambda r: -r.start
    ):
      lines[rule.start : rule.end] = rule.text().splitlines() if rule.srcs else []
    for rule in members:
      if rule.start is None:
        lines += ['', *rule.text().splitlines()]
    text = re.sub(r'\n{3,}', '\n\n', '\n'.join(lines)).strip('\n') + '\n'
    if not file.exists() or file.read_text() != text:
      file.write_text(text)


def main() -> int:
  """Returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--fix', action='store_true', help='rewrite the BUILD files')
  if parser.parse_args().fix:
    fix(ROOT)
  problems = differences(ROOT)
  print('\n'.join(problems), end='\n' if problems else '')
  return 1 if problems else 0


if __name__ == '__main__':
  sys.exit(main())
