"""FLOPs by a stated model, and replay memory as measured."""
