"""What a run's embeddings know, over opened runs: statistics, and reports on them.

In: opened runs and tables of labels. Out: results as frozen objects, tables, pages.
"""

from ecgfounder.analysis.compare import CompareSettings, Comparison, compare
from ecgfounder.analysis.drift import drift
from ecgfounder.analysis.drift_result import DriftResult, DriftSettings
from ecgfounder.analysis.duplicates import Duplicates, DuplicateSettings, duplicates
from ecgfounder.analysis.neighbours import Neighbours, neighbours
from ecgfounder.analysis.probe import ProbeResult, ProbeSettings, probe

__all__ = [
    "CompareSettings",
    "Comparison",
    "DriftResult",
    "DriftSettings",
    "DuplicateSettings",
    "Duplicates",
    "Neighbours",
    "ProbeResult",
    "ProbeSettings",
    "compare",
    "drift",
    "duplicates",
    "neighbours",
    "probe",
]
