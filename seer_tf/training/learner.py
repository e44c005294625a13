"""TF-Agents' learner, fed from one dataset until the freeze and from another after it."""

import tensorflow as tf
from tf_agents.train import learner


class Learner(learner.Learner):
  """`tf_agents.train.learner.Learner` whose dataset can be exchanged.

  A second TF-Agents learner on the same root_dir would restore the newest checkpoint and roll
  training back; exchanging the iterator does not, and its new element spec makes TF trace a new
  train function, which is what makes the freeze take effect.
  """

  def stop_feeding(self):
    """Drops the iterator and all that it prefetched; `feed` must come before the next update."""
    self._experience_iterator = None

  def feed(self, dataset: tf.data.Dataset):
    """Learns from a new iterator over `dataset` from the next update on."""
    self._experience_iterator = iter(dataset)

  def save(self):
    """Saves checkpoint and policies now, whatever their periods."""
    for trigger in self.triggers:
      trigger(self.train_step_numpy, force_trigger=True)
