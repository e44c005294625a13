"""Chooses the OpenGL library that MuJoCo renders with when there is no screen.

dm_control and MuJoCo pick their library from MUJOCO_GL once, when they are first imported, and
TF-Agents imports both as soon as it is imported itself. Left alone they try a window first, warn on
standard error that there is no screen, and never reach OSMesa, because their failed attempt at EGL
has claimed PyOpenGL. So `seer_tf/__init__.py` calls `choose_backend`, best before anything of
TF-Agents is imported.
"""

import ctypes
import importlib
import os
import sys
from typing import Iterator, Optional

DEBIAN_PACKAGES = ('libegl1', 'libgl1', 'libosmesa6', 'libgl1-mesa-dri')

_DISABLED = 'disabled'
_EGL_PLATFORM_DEVICE_EXT = 0x313F
_MAX_EGL_DEVICES = 10
_WINDOW_OR_NONE = (
  'glfw', 'on', 'enable', 'enabled', 'true', '1',
  'off', 'disable', 'disabled', 'false', '0',
)  # fmt: skip


class RenderingError(ValueError):
  """Frames cannot be rendered on this machine; the message says what to install."""

  def __init__(self, cause: object):
    super().__init__(
      f'cannot render off screen ({cause}): install the Debian packages '
      f'{" ".join(DEBIAN_PACKAGES)}, then leave the environment variable MUJOCO_GL unset or set it '
      'to egl or osmesa'
    )


def choose_backend() -> None:
  """Sets MUJOCO_GL to a library that works here, if the user has not.

  EGL is preferred, then OSMesa; where neither works a screen is used if there is one. A library
  that the user asked for and that cannot work is disabled: importing TF-Agents would end in a
  traceback otherwise, and a process that never renders (a replay server) has no need of it. The
  first frame then raises `RenderingError`.

  Changes this process's environment variables, which child processes inherit.
  """
  # dm_control gives OSMesa a rendering thread, which at exit is gone before the contexts it has to
  # free: tracebacks on standard error. Without that thread OSMesa behaves as EGL does.
  os.environ.setdefault('DISABLE_RENDER_THREAD_OFFLOADING', '1')
  asked = os.environ.get('MUJOCO_GL', '').strip().lower()
  if asked in _WINDOW_OR_NONE:
    os.environ['MUJOCO_GL'] = asked
  else:
    works = next(_working_backends(asked), None)
    if works or asked or not _has_screen():
      os.environ['MUJOCO_GL'] = works or _DISABLED

  renderer = sys.modules.get('dm_control._render')
  if renderer is not None and renderer.BACKEND == 'glfw' and not _has_screen():
    # Somebody imported TF-Agents or dm_control first. A window without a screen cannot have drawn
    # anything yet, so the choice is made again.
    importlib.reload(renderer)


def _working_backends(asked: str) -> Iterator[str]:
  """Yields the backends that work here, best first, among those the user leaves open."""
  platform = os.environ.get('PYOPENGL_PLATFORM') or asked
  for name, works in (('egl', _egl_works), ('osmesa', _osmesa_works)):
    if asked in ('', name) and platform in ('', name) and works():
      yield name


def _has_screen() -> bool:
  return bool(os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY'))


def _library(*names: str) -> Optional[ctypes.CDLL]:
  """Loads the first of these shared libraries that is there."""
  for name in names:
    try:
      return ctypes.CDLL(name)
    except OSError:
      pass
  return None


def _osmesa_works() -> bool:
  return _library('libOSMesa.so.8', 'libOSMesa.so.6') is not None


def _egl_works() -> bool:
  """Initialises an EGL device as MuJoCo will: a library without a driver behind it is no use."""
  egl = _library('libEGL.so.1')
  if egl is None or _library('libOpenGL.so.0', 'libGL.so.1') is None:
    return False
  egl.eglGetProcAddress.argtypes = [ctypes.c_char_p]
  egl.eglGetProcAddress.restype = ctypes.c_void_p
  query_address = egl.eglGetProcAddress(b'eglQueryDevicesEXT')
  display_address = egl.eglGetProcAddress(b'eglGetPlatformDisplayEXT')
  if not (query_address and display_address):
    return False
  query_devices = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(
    query_address
  )
  get_display = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)(
    display_address
  )
  egl.eglInitialize.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
  egl.eglTerminate.argtypes = [ctypes.c_void_p]

  devices = (ctypes.c_void_p * _MAX_EGL_DEVICES)()
  found = ctypes.c_int(0)
  if not query_devices(_MAX_EGL_DEVICES, devices, ctypes.byref(found)):
    return False
  for device in devices[: found.value]:
    display = get_display(_EGL_PLATFORM_DEVICE_EXT, device, None)
    if display and egl.eglInitialize(display, None, None):
      egl.eglTerminate(display)
      return True
  return False
