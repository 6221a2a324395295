"""Answers to Allocate and GetPreferredAllocation, and how a container gets its GPU."""
