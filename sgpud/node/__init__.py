"""The node: its facts in one place, and how they change."""
