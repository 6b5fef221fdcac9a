"""The stages of the straight line, as plain callables that know no driver: read, batch, embed, pooling, collect, record."""
