"""A run of separate processes under random kills, and an audit of what it leaves in replay."""
