"""sgpud shares the NVIDIA GPUs of a Kubernetes node between pods."""

__version__ = "0.1.0"
