"""The control socket: `sgpud reload` and its like."""
