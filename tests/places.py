"""Where things lie: the checkout, kept test data, and the reference material that is not part of the repository."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"
SHARED = ROOT.parent / "shared"
RECORDINGS = SHARED / "ecg"
"""Real recordings of several formats, with reference decodes."""
CASES = SHARED / "cases"
"""Real files of kinds that need care, with the right values in its README.md."""
