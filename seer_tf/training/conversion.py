"""The conversion at the freeze, so that it can be begun again whatever is killed in the middle.

    1  the encoder is frozen and in a checkpoint of the learner; phase `draining` is published
    2  no row of pixels comes any more; the server has seen the phase and evicts none either
    3  the server has completed a checkpoint: of all pixels, of no half of them
    4  `draining` = 1 is published: from here on the server makes no checkpoint
    5  rows are read out of table `drain`, each once, encoded, written to `latents`, acknowledged
    6  `draining` = 0 and phase `latents` are published, and a checkpoint is ordered

Reading is destructive. So a server that says `draining` = 1 to a learner that has just come is told
to start anew from the checkpoint of 3, and all of 5 is done again from its beginning: each row is
converted once in what is kept, and in flight was nothing that is not in that checkpoint. A server
that was killed comes back with that checkpoint by itself.
"""

import time
from typing import Callable, List, Optional, Tuple

import numpy as np
import reverb
import tensorflow as tf

from seer_tf.replay import drain, tables, writers
from seer_tf.replay import server as replay_server
from seer_tf.training import faults, subscription
from seer_tf.training import link as link_lib

# Limit of one checkpoint of the server, and of its start from one.
_CHECKPOINT_SECONDS = 600.0
_POLL_SECONDS = 0.1


class Conversion:
  """Steps 3 to 5, and the way back from the middle of them; 1, 2 and 6 are the caller's."""

  def __init__(
    self,
    link: link_lib.Link,
    config: tables.ReplayConfig,
    publish: Callable[..., None],
    order_checkpoint: Callable[[], int],
    encode: Callable[[tf.Tensor], np.ndarray],
    batch_size: int,
    keep_alive: Callable[..., None],
  ):
    """Converts nothing yet.

    Args:
      link: to the replay server.
      config: what it holds.
      publish: publishes how the run stands, with `draining` and `restore_order` as it is told.
      order_checkpoint: has the next publication ask for a checkpoint; returns the order's number.
      encode: frozen lower encoder and codec, see `drain.drain`.
      batch_size: observations encoded together.
      keep_alive: called as `publish` while there is nothing but waiting; publishes when that is
        due, so that actors act on.
    """
    self._keep_alive = keep_alive
    self._link = link
    self._config = config
    self._publish = publish
    self._order_checkpoint = order_checkpoint
    self._encode = encode
    self._batch_size = batch_size

  def convert(
    self,
    wanted: Callable[[replay_server.Report], Optional[range]],
    progress: Callable[[int, int], None],
    goes_on: Optional[int] = None,
  ) -> Tuple[int, Optional[writers.RowWriter]]:
    """Turns rows of pixels into latents.

    Args:
      wanted: from what the server says of itself, the rows that are converted, see `drain.drain`.
      progress: called with (rows converted, rows in all).
      goes_on: stream that is gone on with, if it has rows.

    Returns:
      (rows converted, the writer of that stream, flushed but not closed; None if it has no rows).

    Raises:
      TimeoutError: if the server does not answer, completes no checkpoint in time or has started
        anew, so that it knows nothing of what was told to the one before.
    """
    incarnation = self._link.report().incarnation
    order = self._order_checkpoint()
    self._publish(draining=0)
    seen = await_report(
      self._link.client,
      lambda report: report.checkpoint_order >= order,
      f'completed no checkpoint (order {order}), without which no pixels are converted. Look at '
      'what it prints: is its disk full?',
      self._link.check,
      lambda: self._keep_alive(0),
      incarnation,
    )
    faults.reach('checkpoint ordered')
    self._publish(draining=1)
    faults.reach('draining')
    opened: List[Tuple[int, writers.RowWriter]] = []

    def writer_of(stream: int) -> writers.RowWriter:
      opened.append((stream, self._link.writer('latents', tables.first_number(stream))))
      return opened[-1][1]

    try:
      rows = drain.drain(
        self._link.client,
        self._config,
        wanted(seen),
        self._encode,
        writer_of,
        self._batch_size,
        progress,
        link_lib.TIMEOUT_SECONDS,
      )
      following = dict(opened).get(goes_on)  # the newest: where a stream has a gap it has several
      for _, writer in opened:
        if writer is following:
          writer.flush()
        else:
          writer.close()
      _check_incarnation(self._link.client, self._link.report(), incarnation)
    except BaseException:
      # Or they would deliver these rows to a server that starts anew with all of their pixels.
      for _, writer in opened:
        writer.abandon()
      raise
    return rows, following

  def start_server_anew(self):
    """Has the server go back to its last checkpoint, which is from before a conversion began.

    Raises:
      TimeoutError: if it does not come back.
    """
    before = self._link.report().incarnation
    self._publish(draining=1, restore_order=before)
    await_report(
      self._link.client,
      lambda report: report.incarnation != before,
      'did not start anew from its last checkpoint',
      self._link.check,
      lambda: self._keep_alive(1, restore_order=before),  # or it might never see the order
    )


def await_report(
  client: reverb.Client,
  holds: Callable[[replay_server.Report], bool],
  otherwise: str,
  check_server: Callable[[], None],
  meanwhile: Callable[[], None],
  incarnation: Optional[int] = None,
) -> replay_server.Report:
  """What the server publishes of itself, once it `holds`; it may be away meanwhile.

  Raises:
    TimeoutError: if that takes too long; `otherwise` says what the server did not do. Or if it is
      another start than `incarnation`.
  """
  deadline = time.monotonic() + _CHECKPOINT_SECONDS
  while True:
    try:
      report = replay_server.report(client, timeout_seconds=5)
    except subscription.SERVER_ERRORS:
      report = None  # it is starting
    if report is not None:
      if incarnation is not None:
        _check_incarnation(client, report, incarnation)
      if holds(report):
        return report
      meanwhile()
    check_server()
    if time.monotonic() > deadline:
      raise TimeoutError(
        f'Replay server {client.server_address} {otherwise} (limit {_CHECKPOINT_SECONDS:g} s).'
      )
    time.sleep(_POLL_SECONDS)  # Reverb has no call that waits for a new item.


def _check_incarnation(client: reverb.Client, report: replay_server.Report, expected: int):
  if report.incarnation != expected:
    raise TimeoutError(
      f'Replay server {client.server_address} has started anew while replay was being converted.'
    )
