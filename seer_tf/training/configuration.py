"""Gin configurations compared: those of two processes, or of two starts of one run."""

import re


def differences(before: str, now: str) -> str:
  """The bindings in which two gin configurations differ, in words; empty if in none."""
  joined = lambda text: re.sub(r'\\?\n +', ' ', text).splitlines()  # values over several lines
  bindings = lambda text: dict(line.split(' = ', 1) for line in joined(text) if ' = ' in line)
  before, now = bindings(before), bindings(now)
  return '; '.join(
    f'{name} was {before.get(name, "not bound")}, now {now.get(name, "not bound")}'
    for name in sorted(before.keys() | now.keys())
    if before.get(name) != now.get(name)
  )
