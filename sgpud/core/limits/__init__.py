"""Memory limits: caps of containers, what enforces them, and who uses more than it was granted."""
