"""The node as people and machines see it."""
