"""Objects of the API server: pods of this node, Events, conditions."""
