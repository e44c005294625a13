"""Tests of seer_tf.costs."""
