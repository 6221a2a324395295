"""Registering a pool with the kubelet, pure: events in, effects out."""
