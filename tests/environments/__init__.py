"""Tests of seer_tf.environments."""
