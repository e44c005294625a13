"""A disk that fills up."""

import os
import pathlib
import subprocess

import pytest


class Disk:
  """A file system of its own, in memory."""

  def __init__(self, path: pathlib.Path):
    """Of 1.5 MB."""
    self.path = path
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=1536k', 'tmpfs', str(path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
      pytest.skip('mounting a file system needs root')

  def remount(self, options: str):
    """Changes its size, or whether it can be written."""
    subprocess.run(['mount', '-o', f'remount,{options}', str(self.path)], check=True)


@pytest.fixture
def small_disk(tmp_path):
  """A `Disk`, for a test."""
  path = tmp_path / 'disk'
  path.mkdir()
  yield Disk(path)
  subprocess.run(['umount', '-l', str(path)], check=True)
