"""Set-up: the lock, what make says when it cannot go on, and that it installs once."""

import importlib.metadata
import os
import re
import shutil

from packaging import requirements
import pytest

from seer_tf.environments import opengl
from tests import build_test


@pytest.fixture(scope='module')
def lock(root):
  """The lock's entries as (requirement, number of hashes)."""
  entries = re.split(r'\n(?=[a-z])', (root / 'requirements.txt').read_text().partition('\n')[2])
  return [
    (requirements.Requirement(entry.partition('\\')[0].strip()), entry.count('--hash=sha256:'))
    for entry in entries
    if not entry.startswith('#')
  ]


def test_lock_pins_and_hashes_every_package_and_names_no_host_or_path(root, lock):
  assert len(lock) > 80
  for requirement, hashes in lock:
    assert re.fullmatch(r'==[\w.]+', str(requirement.specifier)) and hashes, requirement
  text = (root / 'requirements.txt').read_text()
  assert not re.search(r'://|file:|--(extra-)?index|--find-links|--trusted-host|\btorch\b', text)


def test_lock_covers_setup_for_every_supported_python(root, lock):
  for version in ('3.9', '3.10', '3.11'):
    machine = {
      'python_version': version,
      'python_full_version': f'{version}.9',
      'sys_platform': 'linux',
      'platform_machine': 'x86_64',
      'platform_python_implementation': 'CPython',
      'implementation_name': 'cpython',
    }
    pins = {
      build_test.canonical(requirement.name): next(iter(requirement.specifier)).version
      for requirement, _ in lock
      if requirement.marker is None or requirement.marker.evaluate(machine)
    }
    for variable in ('REQUIRES', 'TEST_REQUIRES'):
      for text in build_test.assigned(root, variable):
        wanted = requirements.Requirement(text)
        assert wanted.specifier.contains(pins[build_test.canonical(wanted.name)]), (version, text)


def test_tests_run_with_the_locked_versions(lock):
  for requirement, _ in lock:
    if requirement.marker is None or requirement.marker.evaluate():
      installed = importlib.metadata.version(requirement.name)
      assert requirement.specifier.contains(installed), (requirement.name, installed)


def test_makefile_and_rendering_error_name_the_same_packages(root):
  line = re.search(r'^RENDERING := (.*)$', (root / 'Makefile').read_text(), re.MULTILINE)
  assert set(line[1].split()) == set(opengl.DEBIAN_PACKAGES)


@pytest.mark.parametrize(
  'answer, complaint',
  [
    ('echo 3.12.4', r'Wrong Python: \S+ is 3\.12\.4; expected 3\.9 to 3\.11\. Install'),
    ('echo 3.8.20', r'Wrong Python: \S+ is 3\.8\.20; expected'),
    ('exit 127', r'Wrong Python: no \S+ that runs; expected'),
  ],
)
def test_wrong_python_is_one_clear_line(root, run, tmp_path, answer, complaint):
  python = tmp_path / 'python'
  python.write_text(f'#!/bin/sh\n{answer}\n')
  python.chmod(0o755)
  result = run([root / 'tools' / 'find_python.sh', python])
  assert result.returncode == 1
  assert re.match(complaint, result.stderr) and result.stderr.count('\n') == 1, result.stderr
  assert result.stdout == ''


def test_python_that_does_not_run_is_passed_over(root, run, tmp_path):
  for name, answer in [('python3.11', 'exit 127'), ('python3.10', 'echo 3.10.2')]:
    (tmp_path / name).write_text(f'#!/bin/sh\n{answer}\n')
    (tmp_path / name).chmod(0o755)
  path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
  result = run([root / 'tools' / 'find_python.sh'], env={'PATH': path})
  assert (result.returncode, result.stdout.strip()) == (0, str(tmp_path / 'python3.10'))


@pytest.mark.skipif(not shutil.which('dpkg-query'), reason='not Debian')
def test_missing_debian_packages_are_named_in_one_line_without_root(root, run, tmp_path):
  script = (root / 'tools' / 'debian_packages.sh').open()
  if os.geteuid() == 0:
    unprivileged = {'user': 65534, 'env': {}}
  else:  # sudo may need no password here: leave it out of reach
    (tmp_path / 'dpkg-query').symlink_to(shutil.which('dpkg-query'))
    unprivileged = {'env': {'PATH': str(tmp_path)}}
  with script:
    result = run(
      [shutil.which('bash'), '-s', '--', 'base-files', 'no-such-package'],
      stdin=script,
      cwd='/',
      **unprivileged,
    )
  assert result.returncode == 1
  assert result.stderr == 'Missing Debian packages. Type: sudo apt-get install no-such-package\n'


def test_second_make_installs_nothing_until_the_lock_changes(root, run, tmp_path):
  for name in ('Makefile', 'requirements.txt', 'setup.py'):
    shutil.copy2(root / name, tmp_path)
  shutil.copytree(root / 'tools', tmp_path / 'tools')

  def would_run():
    result = run(['make', '-n', 'train'], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    return result.stdout

  assert 'pip install' in would_run()
  ready = tmp_path / '.venv' / '.ready'
  ready.parent.mkdir()
  ready.touch()
  assert 'pip install' not in would_run()
  assert '-m launch.train --gin_file=gin_configs/' in would_run()
  os.utime(ready, (0, 0))
  assert 'pip install' in would_run()


def test_each_training_target_has_a_preset_and_a_folder_of_its_own(root, run):
  def command(target, *variables):
    result = run(['make', '-n', target, *variables])
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1]

  for target, preset, folder in [
    ('train', 'cartpole_swingup_cpu', 'cartpole-swingup'),
    ('train-atari', 'rainbow_atari_cpu', 'rainbow-atari'),
  ]:
    assert (root / 'gin_configs' / f'{preset}.gin').exists()
    said = command(target)
    assert f'-m launch.train --gin_file=gin_configs/{preset}.gin ' in said
    assert re.search(rf'--root_dir=runs/{folder}-\d{{8}}-\d{{6}}', said)
    assert '--root_dir=mine --seed=2' in command(target, 'ROOT_DIR=mine', 'ARGS=--seed=2')


def test_help_tells_every_target(root, run):
  help_text = run(['make', 'help']).stdout
  targets = re.search(r'^\.PHONY: help (.*)$', (root / 'Makefile').read_text(), re.MULTILINE)[1]
  for target in targets.split():
    assert target in help_text or target.endswith('-packages'), target
  assert 'ARGS=' in help_text
