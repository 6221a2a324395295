"""The simulation itself: pure functions over the core."""
