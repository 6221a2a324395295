"""Facts of the node in, the plan of what is advertised out."""
