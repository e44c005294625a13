"""Tests of the studies' scripts."""
