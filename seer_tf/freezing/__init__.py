"""When the lower encoder freezes, and the switch itself."""
