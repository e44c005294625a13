"""Tests of seer_tf.freezing."""
