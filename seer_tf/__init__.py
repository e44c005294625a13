"""SEER for TF-Agents: freeze the lower encoder of a visual agent and replay its latents."""

from gym_notices import notices as _notices

from seer_tf.environments import opengl as _opengl

# For the sake of TF-Agents, which imports gym, which prints a notice that it is unmaintained, and
# dm_control, which opens a window. Import this package first: later the notice has been printed.
_notices.notices.clear()
_opengl.choose_backend()
