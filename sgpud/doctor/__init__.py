"""`sgpud doctor`: facts of a node, read by thin adapters, and small pure checks over them."""
