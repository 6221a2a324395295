"""What people and machines look at, and ask with: logs, systemd, the control socket, metrics."""
