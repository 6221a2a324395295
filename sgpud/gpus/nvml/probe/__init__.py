"""The child process: pynvml and the standard library, nothing else."""
