"""Tests; the folders mirror seer_tf and launch."""
