"""Memory limits of pods: the privileged helper that sets them, and the daemon's side of it."""
