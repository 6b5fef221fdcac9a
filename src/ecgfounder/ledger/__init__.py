"""A run's own record: what is done, what failed and why, with what settings, and who is at work."""
