"""The cohort: a dataset's paths as records, their index, and the names of their outputs."""
