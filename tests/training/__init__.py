"""Tests of seer_tf.training."""
