"""A run's link to its replay server: everything that is read from it or written to it."""

from typing import Callable

import reverb
import tensorflow as tf

from seer_tf.replay import datasets, messages, priorities, server, tables, writers
from seer_tf.training import experiment as experiment_lib
from seer_tf.training import subscription

# Limit of a single wait for the server.
TIMEOUT_SECONDS = 30


class Link:
  """Opens writers and datasets of one run at one server.

  Attributes:
    address: 'host:port'.
    client: connected to it; it goes on when the server has come back.
    check: called between agent steps; raises once the server is gone for good.
    replay: `priorities.UniformReplay` or `PrioritisedReplay`.
  """

  def __init__(
    self,
    address: str,
    client: reverb.Client,
    check: Callable[[], None],
    experiment: experiment_lib.Experiment,
    config: tables.ReplayConfig,
    codec,
  ):
    """Asks for nothing yet.

    Args:
      address: 'host:port' of a server with the tables of `config`.
      client: connected to it.
      check: raises once the server is gone for good.
      experiment: batch size, discount and limits.
      config: what replay holds.
      codec: of its latents.
    """
    self.address = address
    self.client = client
    self.check = check
    self._experiment = experiment
    self._config = config
    self._codec = codec
    self._trouble = subscription.Trouble(client, experiment.reconnect_seconds)
    learning = experiment.initial_random_agent_steps, experiment.total_agent_steps
    self.replay = priorities.of_replay(client, config, learning, TIMEOUT_SECONDS)

  def writer(self, table: str, first_number: int) -> writers.RowWriter:
    """A writer of a stream of rows, into `pixels` and `drain` or into `latents`."""
    return writers.RowWriter.of_table(
      self.client,
      self._config,
      table,
      timeout_seconds=TIMEOUT_SECONDS,
      check_server=self.check,
      priority_of=self.replay.of,
      first_number=first_number,
    )

  def dataset(
    self,
    table: str,
    draws_per_window: int = 1,
    waited: Callable[[float], None] = lambda seconds: None,
  ) -> tf.data.Dataset:
    """Batches out of `pixels` or `latents`, see `datasets.make_dataset`."""
    return datasets.make_dataset(
      self.address,
      table,
      self._config,
      self._experiment.batch_size,
      self._experiment.gamma,
      timeout_seconds=TIMEOUT_SECONDS,
      draws_per_window=draws_per_window,
      decode=self._codec.decode,
      waited=waited,
    )

  def empty_latents(self):
    """Deletes all rows of table `latents`, if there are any to come in their place.

    Raises:
      TimeoutError: if the server does not answer.
    """
    what = f'Replay server {self.address}, table latents, reset'

    def reset():
      info = self.client.server_info(TIMEOUT_SECONDS)
      if info['drain'].current_size and info['latents'].current_size:
        self.client.reset('latents')

    server.with_limit(reset, TIMEOUT_SECONDS + 1, what)

  def said(self) -> messages.Variables:
    """What the server has of a learner's words."""
    return messages.read(self.client, TIMEOUT_SECONDS)

  def report(self) -> server.Report:
    """What the server said last of itself."""
    return server.report(self.client)

  def next_report(self, holds: Callable[[server.Report], bool] = lambda report: True):
    """The next `server.Report` that `holds`."""
    return server.next_report(self.client, TIMEOUT_SECONDS, holds)

  def await_back(self, error: Exception, progress, say: Callable[[str], None]):
    """Waits for a server that does not answer.

    Args:
      error: one of `subscription.SERVER_ERRORS`.
      progress: see `subscription.Trouble`.
      say: told what is going on.

    Raises:
      Exception: `error`, if that is not about the server.
      TimeoutError: if the server stays away.
    """
    self.check()  # A server that has died for good explains any other error.
    self._trouble.wait(error, progress, self.check, say)

  def check_tables(self):
    """Refuses a server that has come back with other tables.

    Raises:
      ReplayServerError: naming the entries that differ.
    """
    server.check_tables(self.address, self.client, self._config)
