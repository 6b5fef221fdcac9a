"""Philips Sierra ECG XML: the reader, and XLI, the compression of its waveforms."""

from ecgfounder.readers.philips.reader import FORMAT, matches, read, statements

__all__ = ["FORMAT", "matches", "read", "statements"]
