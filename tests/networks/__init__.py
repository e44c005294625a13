"""Tests of seer_tf.networks."""
