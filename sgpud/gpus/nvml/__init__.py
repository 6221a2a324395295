"""GPUs read through NVML, in a child process."""
