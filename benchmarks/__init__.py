"""Benchmarks: `python -m benchmarks` measures, prints tables and writes JSON; `python -m benchmarks.report` puts it into the docs."""
