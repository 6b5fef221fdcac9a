"""What the published networks are, and safe loading of their weights."""
