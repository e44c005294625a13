"""Lower encoders (pixels to latents) and heads (latents to values and actions)."""
