"""Tests of seer_tf.agents."""
