"""How much memory replay may take, in bytes, and how many rows of latents that makes.

A user gives a budget in bytes (`replay_budget = "2GB"`), rows (`ReplayConfig.pixels_capacity`), or
both. What a row costs is not known beforehand: frames and latents are compressed. So the server's
process measures it while it runs, and its keeper (see `replay/keeper.py`) holds on to the budget.

After the freeze a growth rule says how many rows of latents may follow P rows of pixels:

    measured   as many as fit into the bytes that P rows of pixels take, both measured
    paper      P * frame bytes / (4 bytes * numbers of an observation's latents): raw bytes
    no growth  P

and P is `pixels_capacity`, or what fits the budget if that is less. A budget holds under each rule.
"""

import dataclasses
import math
import re
from typing import Callable, List, Union

import gin

from seer_tf.replay import server, tables

_PREFIXES = {'': 1, 'K': 10**3, 'M': 10**6, 'G': 10**9, 'T': 10**12}
_PREFIXES.update({'KI': 2**10, 'MI': 2**20, 'GI': 2**30, 'TI': 2**40})

# What a server's process may take beyond the budget and what it took when it was empty: buffers of
# gRPC and of windows on their way to a reader, and memory that the C allocator cannot give back.
OVERHEAD_BYTES = 128 * 2**20


def parse_bytes(size: Union[str, int, float]) -> int:
  """Bytes in a size such as '2GB', '1.5 GiB', '500mb' or 2e9.

  Raises:
    ValueError: if it is none, or less than a byte.
  """
  match = re.fullmatch(r'([0-9.]+(?:E\+?\d+)?)\s*(?:([KMGT]I?)?B)?', str(size).strip().upper())
  try:
    count = int(float(match[1]) * _PREFIXES[match[2] or ''])
  except (TypeError, ValueError, OverflowError):
    count = 0
  if count < 1:
    raise ValueError(
      f'replay_budget is {size!r}, which is no size: give bytes, such as "2GB", "500MB", "1.5GiB".'
    )
  return count


@gin.configurable
def measured_growth(
  config: tables.ReplayConfig, pixels_bytes_per_row: float, latents_bytes_per_row: float
) -> float:
  """Rows of latents per row of pixels: as many as take the same measured bytes."""
  del config
  return pixels_bytes_per_row / latents_bytes_per_row


@gin.configurable
def paper_growth(
  config: tables.ReplayConfig, pixels_bytes_per_row: float, latents_bytes_per_row: float
) -> float:
  """Rows of latents per row of pixels by raw bytes, P / (4 N K L), as published.

  P are the bytes of one frame, L the floats of a latent, N the latents of an observation (critic's
  and actor's; `latent_size` is N L) and K the stored crops. Below 1 replay shrinks.
  """
  del pixels_bytes_per_row, latents_bytes_per_row
  return math.prod(config.frame_shape) / (4 * config.stored_crops * config.latent_size)


@gin.configurable
def no_growth(
  config: tables.ReplayConfig, pixels_bytes_per_row: float, latents_bytes_per_row: float
) -> float:
  """As many rows of latents as of pixels: 1."""
  del config, pixels_bytes_per_row, latents_bytes_per_row
  return 1.0


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Capacity:
  """What replay may hold beyond what its tables, which are fixed, say.

  Attributes:
    budget: memory of replay, bytes or a size such as '2GB'; None: as much as its rows take.
    growth: one of the growth rules: rows of latents per row of pixels.

  Raises:
    ValueError: if the budget is no size.
  """

  budget: Union[str, int, float, None] = None
  growth: Callable[[tables.ReplayConfig, float, float], float] = measured_growth

  def __post_init__(self):
    if self.budget is not None:
      parse_bytes(self.budget)

  @property
  def budget_bytes(self) -> float:
    """The budget, infinite if there is none."""
    return math.inf if self.budget is None else parse_bytes(self.budget)

  def __str__(self):
    budget = 'none' if self.budget is None else f'{self.budget_bytes:,} bytes'
    return f'replay_budget {budget}, growth {self.growth.__name__}'

  def check(self, config: tables.ReplayConfig, batch_size: int):
    """Refuses a budget in which learning could not go on.

    That takes an item, and as many rows as one batch has transitions, in both phases; counted
    without compression, which nobody can promise.

    Raises:
      ValueError: naming the least budget; or for any budget of prioritised replay.
    """
    if self.budget is not None and config.prioritised:
      raise ValueError(
        f'replay_budget is {self.budget!r}, but items drawn by priority cannot be found to be '
        'evicted: bind replay_budget = None and limit the rows of prioritised replay by '
        'ReplayConfig.pixels_capacity and latents_capacity, or ReplayConfig.priority_exponent = 0.'
      )
    pixels, latents = config.pixels_layout, config.latents_layout
    least = max(
      (pixels.window + batch_size) * row_bytes(config.pixels_row),
      (latents.window + batch_size) * row_bytes(config.latents_row),
    )
    if self.budget_bytes < least:
      raise ValueError(
        f'replay_budget is {self.budget!r}, {self.budget_bytes:,} bytes, but one item and one '
        f'batch of {batch_size} may take {least:,} bytes (uncompressed): give at least that.'
      )

  def warnings(self, config: tables.ReplayConfig, report: server.Report) -> List[str]:
    """What is worth a warning before the first agent step, a line each.

    Args:
      config: what replay holds.
      report: of its server.

    Raises:
      ValueError: if the server was given another budget or growth rule.
    """
    if report.capacity != str(self):
      raise server.ReplayServerError(
        f'The replay server was started with {report.capacity}, this run with {self}: start it '
        'with the gin files and bindings of this run.'
      )
    lines = []
    if self.budget is not None and self.budget_bytes > report.machine_bytes:
      lines.append(
        f"warning: replay_budget is {self.budget_bytes:,} bytes, but the replay server's machine "
        f'has {report.machine_bytes:,} bytes of memory: it may be killed before the budget is full.'
      )
    pixels, latents = row_bytes(config.pixels_row), row_bytes(config.latents_row)
    return lines + without_gain(pixels, latents, measured=False)


def row_bytes(row: tables.Row) -> int:
  """Bytes of a row of these specs without compression."""
  return sum(leaf.shape.num_elements() * leaf.dtype.size for leaf in row)


def without_gain(pixels_bytes: float, latents_bytes: float, measured: bool) -> List[str]:
  """A warning if a row of latents costs no less than one of pixels; none if it does.

  Args:
    pixels_bytes: of a row of pixels.
    latents_bytes: of a row of latents.
    measured: whether in a running server; else without compression.
  """
  if not latents_bytes >= pixels_bytes:  # also if one of them is not known
    return []
  how = 'measured' if measured else 'before compression'
  return [
    f'warning: storing latents saves no memory here: {latents_bytes:,.0f} bytes a step, pixels '
    f'{pixels_bytes:,.0f} ({how}). A smaller codec (Experiment.codec_fn = @Uint8), longer blocks '
    '(ReplayConfig.block_length), fewer stored_crops or a smaller encoder would.'
  ]
