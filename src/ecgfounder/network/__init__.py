"""Definitions of the published networks, and safe loading of their weights."""
