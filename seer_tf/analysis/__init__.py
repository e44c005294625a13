"""What trained networks and finished runs tell: pure functions over arrays."""
