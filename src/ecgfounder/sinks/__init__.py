"""Sinks, which write outputs: a JSON or NPY file per ECG, or Parquet shards."""
