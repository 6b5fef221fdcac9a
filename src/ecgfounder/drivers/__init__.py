"""What puts stages in parallel: threads and reading processes here, a stream for Python, the launcher of several processes."""
