"""The helper: a small privileged process that limits the GPU memory of pod cgroups."""
