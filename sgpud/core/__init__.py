"""What sharing means: pure functions over frozen values, without any I/O."""
