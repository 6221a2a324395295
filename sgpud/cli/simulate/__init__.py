"""`sgpud simulate`: plays pods and traces against a configuration."""
