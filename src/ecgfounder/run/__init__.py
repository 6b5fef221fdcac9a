"""A run: settings, plan, budget, and the stages put together."""
