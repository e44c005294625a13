"""Which OpenGL library is chosen, in processes that have not imported MuJoCo yet."""

import os
import pathlib
import subprocess
import sys

import pytest

from seer_tf.environments import opengl

ROOT = pathlib.Path(__file__).parents[2]
CHOSEN_BY_USER = ('MUJOCO_GL', 'PYOPENGL_PLATFORM', 'DISPLAY', 'WAYLAND_DISPLAY')
# Makes the EGL library find no driver, as on a machine without Mesa.
NO_EGL_DRIVER = {'__EGL_VENDOR_LIBRARY_FILENAMES': os.devnull}
RENDER = """
from seer_tf.environments import dm_control
env = dm_control.load('cartpole', 'swingup', image_size=32)
print(env.observation_spec().shape, env.action_spec().shape)
try:
  print(env.reset().observation.std() > 10)
except ValueError as error:
  print(error)
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
  """Runs code in a process of its own, with only these of the variables that matter here."""
  clean = {key: value for key, value in os.environ.items() if key not in CHOSEN_BY_USER}
  clean.pop('DISABLE_RENDER_THREAD_OFFLOADING', None)
  environment = {**clean, 'TF_CPP_MIN_LOG_LEVEL': '3', **environment}
  return subprocess.run(
    [sys.executable, '-c', code],
    env=environment,
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
  )


@pytest.fixture(name='no_library')
def fixture_no_library(tmp_path):
  """Environment variables that hide both libraries behind files that cannot be loaded."""
  for name in ('libEGL.so.1', 'libOSMesa.so.8', 'libOSMesa.so.6'):
    (tmp_path / name).touch()
  return {'LD_LIBRARY_PATH': str(tmp_path)}


def chosen(**environment: str) -> str:
  result = run("import os, seer_tf; print(os.environ.get('MUJOCO_GL'))", **environment)
  assert not result.stderr
  return result.stdout.strip()


@pytest.mark.parametrize(
  'environment, expected',
  [
    ({}, 'egl'),
    ({'DISPLAY': ':0'}, 'egl'),
    ({'MUJOCO_GL': ''}, 'egl'),
    ({'MUJOCO_GL': 'osmesa'}, 'osmesa'),
    ({'MUJOCO_GL': 'EGL'}, 'egl'),
    ({'MUJOCO_GL': 'glfw'}, 'glfw'),
    ({'MUJOCO_GL': 'off'}, 'off'),
    ({'MUJOCO_GL': 'vulkan'}, 'disabled'),
    ({'PYOPENGL_PLATFORM': 'osmesa'}, 'osmesa'),
    ({**NO_EGL_DRIVER}, 'osmesa'),
    ({**NO_EGL_DRIVER, 'MUJOCO_GL': 'egl'}, 'disabled'),
  ],
)
def test_choice(environment, expected):
  assert chosen(**environment) == expected


def test_choice_without_any_library(no_library):
  assert chosen(**no_library) == 'disabled'
  assert chosen(**no_library, MUJOCO_GL='osmesa') == 'disabled'
  assert chosen(**no_library, DISPLAY=':0') == 'None'  # left to dm_control, which can use a screen


@pytest.mark.parametrize(
  'environment', [{}, {'MUJOCO_GL': 'osmesa'}, NO_EGL_DRIVER], ids=['egl', 'osmesa', 'fallback']
)
def test_renders_and_prints_nothing_even_if_never_closed(environment):
  result = run(RENDER, **environment)
  assert result.stderr == ''
  assert result.stdout.splitlines() == ['(32, 32, 9) (1,)', 'True']


def test_renders_when_tf_agents_was_imported_first():
  result = run('import tf_agents.environments' + RENDER)
  assert result.stdout.splitlines() == ['(32, 32, 9) (1,)', 'True']


def test_specs_need_no_library_and_frames_say_what_to_install(no_library):
  for environment in (no_library, {'MUJOCO_GL': 'disabled'}):
    result = run(RENDER, **environment)
    assert result.stderr == ''
    specs, error = result.stdout.splitlines()
    assert specs == '(32, 32, 9) (1,)'
    assert error.startswith('cannot render off screen')
    for word in (*opengl.DEBIAN_PACKAGES, 'MUJOCO_GL'):
      assert word in error
