"""Ports for servers that are started at a given one, and started there again."""

import pathlib
import random

import portpicker


def fixed() -> int:
  """A free port that the system gives to nobody who asks it for just any.

  One that it gave, as portpicker's are, it may give again while the server that a test has killed
  is starting once more; Reverb's servers then share it, and each gets some of the calls.
  """
  text = pathlib.Path('/proc/sys/net/ipv4/ip_local_port_range').read_text()
  first = int(text.split()[0])
  for port in random.SystemRandom().sample(range(10_000, max(first, 11_000)), 100):
    if portpicker.is_port_free(port):
      return port
  raise OSError(f'none of 100 ports below {first} is free')
