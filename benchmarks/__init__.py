"""Benchmarks: `python -m benchmarks` measures and prints, `python -m benchmarks.report` writes the tables into the docs."""
