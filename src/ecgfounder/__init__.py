"""ECGFounder embeddings from the ECG files that hospitals and research cohorts have."""

from __future__ import annotations

__version__ = "0.1.0"
