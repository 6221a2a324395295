"""The status page, metrics and probes over HTTP."""
