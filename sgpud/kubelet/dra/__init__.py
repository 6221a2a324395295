"""Dynamic Resource Allocation as the kubelet speaks it: registration, claims, health."""
