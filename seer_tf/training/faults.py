"""Places where tests kill a process for real: what comes after them must survive its not coming.

`SEER_TF_TEST_KILL_AT=batch:3` has the process end, as by SIGKILL, when it reaches place `batch` for
the third time. Nothing but tests sets it.
"""

import collections
import os
import signal

_reached = collections.Counter()


def reach(place: str):
  """Says that the process has come to `place`; it may end here."""
  _reached[place] += 1
  if f'{place}:{_reached[place]}' == os.environ.get('SEER_TF_TEST_KILL_AT'):
    os.kill(os.getpid(), signal.SIGKILL)
