"""A GPU, what is observed of it, and whose its processes are."""
