"""Dynamic Resource Allocation: the node as a ResourceSlice, and what a prepared claim gets."""
