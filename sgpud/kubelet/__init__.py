"""All that is spoken with the kubelet."""
