"""What a learner publishes, as seen by those who act with it in other processes."""

import re
import time
from typing import Any, Callable

from absl import logging
import gin
import reverb
import tensorflow as tf

from seer_tf.freezing import freeze
from seer_tf.replay import messages
from seer_tf.replay import server as replay_server
from seer_tf.training import configuration, weights

_TIMEOUT_SECONDS = 10
_POLL_SECONDS = 0.2
# What a server that has gone, or a connection that is cut, may end in. Reverb raises RuntimeError
# for nearly everything; `is_about_server` tells more.
SERVER_ERRORS = (OSError, reverb.errors.ReverbError, RuntimeError, tf.errors.OpError)


def is_about_server(error: Exception) -> bool:
  """Whether one of `SERVER_ERRORS` is the server's, or the network's, and not this process's."""
  if isinstance(error, replay_server.ReplayServerError):
    return False  # which says what cannot be mended by waiting
  if isinstance(error, (reverb.errors.ReverbError, TimeoutError)):
    return True
  # What a dataset meets comes wrapped in TensorFlow's errors, which tell its kind only in words.
  is_cut = isinstance(error, tf.errors.OpError) and 'UnavailableError' in f'{error!r} {error}'
  return is_cut or 'Replay server' in str(error) or type(error) is RuntimeError


def in_words(error: Exception) -> str:
  """What an error says, in a line: TensorFlow adds a page on how a dataset came to meet it."""
  wrapped = re.search(r'TimeoutError: (.*)', str(error))
  text = wrapped[1] if wrapped else str(error)
  return ' '.join(text.split())[:300] or type(error).__name__


class Subscription:
  """Keeps an agent's weights, phase and codec as the learner has them.

  Attributes:
    variables: the newest.
  """

  def __init__(self, client: reverb.Client, agent, codec, reconnect_seconds: float):
    """Asks for nothing yet.

    Args:
      client: of the replay server.
      agent: takes the weights, phase and clock.
      codec: takes what the learner's found out at the freeze; None if no latents are written.
      reconnect_seconds: how long a learner may say nothing.
    """
    self._client = client
    self._agent = agent
    self._codec = codec
    self._reconnect_seconds = reconnect_seconds
    self._fresh = time.monotonic()
    self._calibrated = False
    self.variables = messages.Variables()

  def is_silent(self, seconds: float) -> bool:
    """Whether the learner has published nothing new for so long."""
    return time.monotonic() - self._fresh > seconds

  def be_patient(self):
    """Counts the learner's silence anew: while the server was away nothing could be heard of it."""
    self._fresh = time.monotonic()

  def wait_for_learner(self, newer_than: int = -1):
    """Returns once a learner has published something; see `refresh` for what it raises.

    Args:
      newer_than: version that is not enough.
    """
    while self.variables.version <= newer_than:
      if not self.refresh():
        time.sleep(_POLL_SECONDS)  # Reverb has no call that waits for a new item.

  def refresh(self) -> bool:
    """Reads what is published; returns whether it is news.

    Raises:
      TimeoutError: if the server does not answer.
      ValueError: if the learner is configured otherwise, has frozen another encoder than this, or
        stays away.
    """
    variables = messages.read(self._client, _TIMEOUT_SECONDS)
    if variables.version <= self.variables.version or not variables.weights:
      if self.is_silent(self._reconnect_seconds):
        raise ValueError(
          f'Replay server {self._client.server_address}: no news from a learner for '
          f'{self._reconnect_seconds:g} s. Start `python -m launch.learner` again, then this.'
        )
      return False
    if self.variables.version < 0:
      self._check_configuration(variables.configuration)
    self.variables, self._fresh = variables, time.monotonic()
    weights.unpack(variables.weights, self._agent)
    self._agent.phase.assign(variables.phase)
    self._agent.agent_steps.assign(variables.agent_steps)
    if self._codec is not None and variables.fingerprint:
      if not self._calibrated and variables.codec:
        self._codec.restore(variables.codec)
      self._calibrated = True
      freeze.check_latents(variables.fingerprint, self._agent.lower, self._codec.digest)
    return True

  def _check_configuration(self, theirs: str):
    lines = configuration.differences(theirs, gin.config_str())
    if lines:
      raise ValueError(
        f'The learner at replay server {self._client.server_address} is configured differently: '
        f'{lines}. Start every process of a run with the same gin files and bindings.'
      )


class Trouble:
  """Waits for a server that was lost, with a limit for all errors that follow each other."""

  def __init__(self, client: reverb.Client, reconnect_seconds: float):
    """Nothing is wrong yet.

    Args:
      client: of the server.
      reconnect_seconds: limit, from the first error without progress on.
    """
    self._client = client
    self._limit = reconnect_seconds
    self._progress: Any = None
    self._deadline = 0.0

  def wait(
    self,
    error: Exception,
    progress: Any,
    check: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = logging.error,
  ):
    """Returns once the server answers.

    Args:
      error: what has gone wrong.
      progress: something that is another thing as soon as there was progress since the last error.
      check: called meanwhile; raises if there is nobody left to wait for.
      say: told what is going on, in a line.

    Raises:
      Exception: `error`, if it is not about the server.
      TimeoutError: if that stays away, or answers without anything getting better.
    """
    if not is_about_server(error):
      raise error
    if progress != self._progress:
      self._progress, self._deadline = progress, time.monotonic() + self._limit
    reason = in_words(error)
    gone = (
      f'Replay server {self._client.server_address}: no progress for {self._limit:g} s, the limit '
      f'Experiment.reconnect_seconds. The last error was: {reason}'
    )
    if time.monotonic() > self._deadline:
      raise TimeoutError(gone) from error
    say(f'{reason} Trying again, for up to {self._limit:g} s.')
    if replay_server.await_answer(self._client, self._deadline, check) is None:
      raise TimeoutError(gone) from error
    time.sleep(_POLL_SECONDS)  # an error that comes back at once must not fill the screen
