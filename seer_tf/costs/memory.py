"""Memory of a process, as the operating system and the C allocator count it."""

import ctypes
import os


def resident_bytes(pid='self') -> int:
  """Bytes of physical memory that a process, by default this one, holds (Linux)."""
  with open(f'/proc/{pid}/statm', encoding='ascii') as statm:
    return int(statm.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def machine_bytes() -> int:
  """Bytes of this machine's physical memory."""
  return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


class _Allocated(ctypes.Structure):
  """glibc's `struct mallinfo2`."""

  _fields_ = [
    (name, ctypes.c_size_t)
    for name in (
      *('arena', 'ordblks', 'smblks', 'hblks', 'hblkhd'),
      *('usmblks', 'fsmblks', 'uordblks', 'fordblks', 'keepcost'),
    )
  ]


def allocated_bytes() -> int:
  """Bytes that this process has allocated from the C allocator and not yet freed.

  Unlike resident memory it falls at once when something is freed, and knows nothing of holes and
  of idle threads' reserves. Where the C library (glibc before 2.33) cannot tell: resident memory.
  """
  libc = ctypes.CDLL('libc.so.6')
  if not hasattr(libc, 'mallinfo2'):
    return resident_bytes()
  libc.mallinfo2.restype = _Allocated
  info = libc.mallinfo2()
  return info.uordblks + info.hblkhd


def share_one_arena():
  """Has all threads that start from now on allocate from one heap (glibc): less is held in holes.

  By default each gets one of its own, up to eight per core, and `trim` gives back only whole pages.
  """
  ctypes.CDLL('libc.so.6').mallopt(-8, 1)  # M_ARENA_MAX


def trim():
  """Gives memory that was freed but kept by the C allocator back to the system (glibc)."""
  ctypes.CDLL('libc.so.6').malloc_trim(0)
