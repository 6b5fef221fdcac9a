"""The stages of the pipeline, as plain callables independent of drivers: read, batch, embed, pooling, collect, record."""
