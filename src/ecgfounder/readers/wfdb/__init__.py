"""WFDB records (PhysioNet): a text header `NAME.hea`, and the signal files or the segments that it names."""

from ecgfounder.readers.wfdb.reader import FORMAT, matches, read

__all__ = ["FORMAT", "matches", "read"]
