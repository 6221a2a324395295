"""`sgpud dra`: what an operator does about Dynamic Resource Allocation."""
