"""Off-policy agents whose losses are written once, over latents."""
