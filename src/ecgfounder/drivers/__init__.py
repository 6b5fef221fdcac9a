"""Drivers that run stages in parallel: threads and reading processes, a stream for the Python API, launched processes."""
