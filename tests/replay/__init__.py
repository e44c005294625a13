"""Tests of seer_tf.replay."""
