"""Sinks: where outputs go: a JSON or NPY per ECG, or Parquet shards."""
