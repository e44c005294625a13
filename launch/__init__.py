"""Binaries: each module here runs with `python -m launch.<name>`."""

import seer_tf  # noqa: F401 - chooses OpenGL before anything imports TF-Agents
