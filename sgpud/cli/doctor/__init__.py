"""`sgpud doctor`: reads the node, checks it, says what to do."""
