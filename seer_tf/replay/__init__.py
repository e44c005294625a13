"""Reverb tables, writers, the drain and the tf.data way back to the learner."""
