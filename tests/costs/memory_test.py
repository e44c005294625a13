"""Tests of resident memory against what the operating system says elsewhere."""

import numpy as np
import psutil

from seer_tf.costs import memory


def test_resident_bytes_are_the_system_s():
  assert abs(memory.resident_bytes() - psutil.Process().memory_info().rss) < 50e6


def test_freed_memory_returns_after_a_trim():
  memory.trim()  # else the arrays go where other tests have freed memory
  before = memory.resident_bytes()
  small = [np.ones(1000) for _ in range(30_000)]  # below the size that malloc maps by itself
  full = memory.resident_bytes()
  assert full - before > 200e6
  del small
  memory.trim()
  assert memory.resident_bytes() < before + 0.3 * (full - before)
