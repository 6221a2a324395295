"""Communication with the kubelet."""
