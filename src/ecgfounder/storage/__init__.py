"""Where bytes lie: paths as text, reading and replacing files."""
