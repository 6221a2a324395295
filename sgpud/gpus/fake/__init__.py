"""GPUs from a file, for demos and tests."""
