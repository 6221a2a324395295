"""The rules of sharing, share ids, and the limits of a configuration."""
