"""Where GPUs come from: NVML in a child process, a simulation file, and what the node offers."""
