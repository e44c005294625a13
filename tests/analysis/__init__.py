"""Tests of seer_tf.analysis."""
