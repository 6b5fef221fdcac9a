"""What a run's embeddings know, over opened runs: statistics, and reports on them.

In: opened runs and tables of labels. Out: results as frozen objects, tables, pages.
"""

from ecgfounder.analysis.acquisition.drift import drift
from ecgfounder.analysis.acquisition.drift_result import DriftResult, DriftSettings
from ecgfounder.analysis.comparison.compare import CompareSettings, Comparison, compare
from ecgfounder.analysis.duplication.duplicates import Duplicates, DuplicateSettings, duplicates
from ecgfounder.analysis.probing.probe import ProbeResult, ProbeSettings, probe
from ecgfounder.analysis.reporting.report import Report, ReportSettings, report
from ecgfounder.analysis.similarity.neighbours import Neighbours, neighbours

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
    "Report",
    "ReportSettings",
    "compare",
    "drift",
    "duplicates",
    "neighbours",
    "probe",
    "report",
]
