"""The simulation itself: pure functions over the core."""

TRIES = 10
"""Pods that a controller makes for one request, by default, until the simulation gives it up."""
