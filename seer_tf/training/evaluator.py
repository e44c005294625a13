"""An evaluator in a process of its own: whole episodes with the weights of a learner elsewhere."""

import time
from typing import Optional

import reverb
import tensorflow as tf

from seer_tf.freezing import freeze
from seer_tf.replay import messages
from seer_tf.replay import server as replay_server
from seer_tf.training import evaluation, leaving, records, subscription
from seer_tf.training import experiment as experiment_lib

_POLL_SECONDS = 0.2


class Evaluator:
  """Evaluates once in a period of agent steps, and at the end; goes on where another left off."""

  def __init__(
    self, experiment: experiment_lib.Experiment, root_dir: str, seed: Optional[int] = None
  ):
    """Builds environment and agent.

    Args:
      experiment: what is evaluated.
      root_dir: where results go.
      seed: of the environment.
    """
    self._experiment = experiment
    self._root_dir = root_dir
    environment_fn = experiment.evaluation_environment_fn or experiment.environment_fn
    self._environment = environment_fn(seed=seed)
    self._updates = tf.Variable(0, dtype=tf.int64, trainable=False, name='updates')
    self._agent = experiment.agent(self._environment, self._updates)
    self.replay_config = experiment.replay_config(self._environment)
    self._evaluator = evaluation.Evaluator(
      self._environment, self._agent.policy, self._updates, experiment.evaluation_episodes
    )

  def run(self, client: reverb.Client):
    """Evaluates until the run is over and its last weights are evaluated.

    Raises:
      TimeoutError: if the server stays away.
      ValueError: if the learner does, or is configured otherwise.
    """
    limit = self._experiment.reconnect_seconds
    trouble = subscription.Trouble(client, limit)
    seen = subscription.Subscription(client, self._agent, None, limit)
    self._records = records.Records(self._root_dir)
    try:
      while not self._is_done(seen.variables):
        try:
          with leaving.by_signal():
            self._look(client, seen)
        except subscription.SERVER_ERRORS as error:
          trouble.wait(error, progress=(seen.variables.version, len(self._records.evaluations)))
          seen.be_patient()
    finally:
      self._records.close()
      self._environment.close()

  def _is_done(self, variables: messages.Variables) -> bool:
    return bool(variables.is_over) and self._evaluated >= variables.agent_steps

  @property
  def _evaluated(self) -> int:
    """agent_steps of the last evaluation."""
    evaluations = self._records.evaluations
    return evaluations[-1].agent_steps if evaluations else 0

  def _look(self, client: reverb.Client, seen: subscription.Subscription):
    """Evaluates what is published now, if an evaluation is due."""
    is_first = seen.variables.version < 0
    is_news = seen.refresh()
    variables, period = seen.variables, self._experiment.evaluation_period
    # Has the learner gone back to a checkpoint? The first that is read may be from before: a server
    # that has started anew knows of no news, or of nothing at all.
    if is_news and not is_first and variables.agent_steps < self._evaluated:
      self._records.go_back_to(variables.agent_steps)
    is_due = variables.agent_steps // period > self._evaluated // period
    if not is_due and not (variables.is_over and variables.agent_steps > self._evaluated):
      time.sleep(_POLL_SECONDS)  # Reverb has no call that waits for a new item.
      return
    self._updates.assign(variables.updates)
    returns = self._evaluator()
    clocks = records.Clocks(variables.env_frames, variables.agent_steps, variables.updates)
    phase = freeze.Phase(variables.phase).name.lower()
    report = replay_server.report(client)
    self._records.evaluated(clocks, phase, returns, variables.flops, variables.seconds, report)
