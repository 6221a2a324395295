"""What people and machines read and ask of the daemon."""
