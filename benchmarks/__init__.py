"""Benchmarks: `python -m benchmarks` measures and prints, `python -m benchmarks.report` puts the tables into the docs."""
