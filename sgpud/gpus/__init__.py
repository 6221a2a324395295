"""Where GPUs come from: NVML in a child process, a file of fake GPUs, and what the node offers."""
