"""sgpud.toml to a Config, or every problem at once, each with its file, line and key."""
