"""Live traffic on real servers, faults at random, and a judge of its own: ``python -m ops.chaos``."""
