"""Why a pod, a share or a GPU is as it is."""
