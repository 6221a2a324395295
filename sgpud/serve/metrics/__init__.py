"""The metrics of the node, for Prometheus."""
