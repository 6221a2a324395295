"""Doubles for tests, the demo and the benchmarks; public, and imported by nothing else."""
