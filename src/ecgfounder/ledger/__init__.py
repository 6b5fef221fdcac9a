"""The run record: outcomes of records, settings, and locks."""
