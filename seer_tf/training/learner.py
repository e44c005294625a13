"""TF-Agents' learner, fed from one dataset until the freeze and from another after it.

Datasets yield a batch and how it was drawn, which decides its weights: see `replay.priorities`.
"""

import contextlib
import os

from absl import logging
import tensorflow as tf
from tf_agents.train import interval_trigger, learner, triggers

from seer_tf.training import checkpoints, faults
from seer_tf.training import experiment as experiment_lib
from seer_tf.training import link as link_lib


class Learner(learner.Learner):
  """`tf_agents.train.learner.Learner` whose dataset can be exchanged.

  A second TF-Agents learner on the same root_dir would restore the newest checkpoint and roll
  training back; exchanging the iterator does not, and its new element spec makes TF trace a new
  train function, which is what makes the freeze take effect.
  """

  def __init__(self, *args, replay, **kwargs):
    """As TF-Agents' learner; `replay` is `priorities.UniformReplay` or `PrioritisedReplay`."""
    self._replay = replay
    self.retrace()
    super().__init__(*args, **kwargs)

  def single_train_step(self, iterator):
    """One update of the agent, in the graph; replay gets to know what came of it."""
    experience, drawn = next(iterator)
    weights = self._replay.weights(drawn, self._agent.agent_steps)
    loss_info = self._agent.train(experience, weights=weights)
    self._replay.learned(drawn, loss_info)
    return loss_info

  def stop_feeding(self):
    """Drops the iterator and all that it prefetched; `feed` must come before the next update."""
    self._experience_iterator = None

  def feed(self, dataset: tf.data.Dataset):
    """Learns from a new iterator over `dataset` from the next update on."""
    self._experience_iterator = iter(dataset)

  def _train(self, iterations, iterator, parallel_iterations):
    """As TF-Agents' own, whose loop in the graph is one in Python here.

    A graph with that loop holds the train step twice and takes three times as long to trace: some
    seconds before the first update and again at the freeze.
    """
    del parallel_iterations
    for _ in range(int(iterations)):
      loss_info = self._train_once(iterator)
    return loss_info

  def retrace(self):
    """Traces a new train function at the next update: a layer may learn no more."""
    self._train_once = tf.function(self._update)

  def _update(self, iterator):
    loss_info = self.single_train_step(iterator)
    return tf.nest.map_structure(self._reduced, loss_info)

  def _reduced(self, loss):
    """The sum of a loss over its elements and replicas."""
    replicas = self.strategy.experimental_local_results(loss)
    axes = tuple(range(replicas[0].shape.rank)) or None
    return self.strategy.reduce(tf.distribute.ReduceOp.SUM, loss, axis=axes)

  def save(self):
    """Saves checkpoint and policies now, whatever their periods."""
    for trigger in self.triggers:
      trigger(self.train_step_numpy, force_trigger=True)

  def save_checkpoint(self):
    """Saves a checkpoint now; older ones stay until it is complete.

    It gets a number of its own rather than that of its updates, so that two of the same update (at
    the freeze, before and after the conversion) never share a file.
    """
    faults.reach('checkpoint')
    checkpoints.sync(self._checkpointer.manager.save())
    faults.reach('checkpointed')

  def _get_checkpoint_trigger(self, checkpoint_interval):
    return interval_trigger.IntervalTrigger(
      checkpoint_interval, self.save_checkpoint, start=self.train_step_numpy
    )


@contextlib.contextmanager
def _not_said(words: str):
  """Leaves out warnings with these words: TF-Agents advises against what is done on purpose."""
  logger, others = logging.get_absl_logger(), lambda record: words not in record.getMessage()
  logger.addFilter(others)
  try:
    yield
  finally:
    logger.removeFilter(others)


def make(
  root_dir: str,
  updates: tf.Variable,
  agent,
  link: link_lib.Link,
  experiment: experiment_lib.Experiment,
) -> Learner:
  """A learner, which goes on from the newest checkpoint in root_dir, if there is one; `feed` it.

  Args:
    root_dir: of the run.
    updates: its clock.
    agent: learns; what it tracks is in the checkpoint.
    link: to replay.
    experiment: periods.

  Raises:
    ValueError: if the checkpoint cannot be read.
  """
  saved_model_dir = os.path.join(root_dir, learner.POLICY_SAVED_MODEL_DIR)
  period = experiment.checkpoint_period
  try:
    agent.create_optimizer_variables()
    with _not_said('run_optimizer_variable_init'):
      return Learner(
        root_dir,
        updates,
        agent,
        replay=link.replay,
        triggers=[
          triggers.PolicySavedModelTrigger(
            saved_model_dir, agent, updates, interval=period, save_collect_policy=False
          )
        ],
        checkpoint_interval=period,
        summary_interval=experiment.summary_period,
        run_optimizer_variable_init=False,  # which would trace an update, and a dataset for it
      )
  except (tf.errors.OpError, KeyError, IndexError, OSError) as error:
    if not checkpoints.exists(root_dir):
      raise
    raise ValueError(
      f'The newest checkpoint in {root_dir}/train/checkpoints cannot be read ({error}): remove its '
      'files and its name in the file `checkpoint` there to go on from the one before.'
    ) from error
