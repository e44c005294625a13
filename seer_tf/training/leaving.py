"""How a process leaves on SIGTERM or Ctrl-C: by an exception, and one that arrives.

Python raises it between any two instructions. Where that is just inside one of TensorFlow's
contexts, which then is never left, those around it raise errors of their own in its place (such as
an AssertionError, "Nesting violated"); where it is in a destructor or a callback of the garbage
collector, it is dropped. Nobody would know that the process was told to leave.
"""

import contextlib
import signal
from typing import List

_told: List[int] = []  # signals, in the order in which they came


def on_signals():
  """A SIGTERM unwinds like Ctrl-C does: what is open is closed, what is not saved is saved."""
  signal.signal(signal.SIGTERM, _leave)
  # It is ignored in what a script has started in the background, and is to stay so.
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)


def _leave(number, frame):
  del frame
  _told.append(number)
  raise _exit()


def _exit() -> BaseException:
  """What the first signal asked for."""
  return KeyboardInterrupt() if _told[0] == signal.SIGINT else SystemExit(128 + _told[0])


def check():
  """Raises a signal's exception if one has come: to be called often, as that may have been dropped.

  Raises:
    KeyboardInterrupt: after Ctrl-C.
    SystemExit: after SIGTERM, with code 143.
  """
  if _told:
    raise _exit()


@contextlib.contextmanager
def by_signal():
  """After a signal this context is left by that signal's exception, whatever happens in it.

  Raises:
    KeyboardInterrupt: after Ctrl-C.
    SystemExit: after SIGTERM, with code 143.
  """
  try:
    yield
  except Exception as error:
    if not _told:
      raise
    raise _exit() from error
  check()
