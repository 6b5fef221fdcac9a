"""What a run's embeddings know, over opened runs: statistics, and reports on them.

In: opened runs. Out: results as frozen objects, tables.
"""

from ecgfounder.analysis.compare import CompareSettings, Comparison, compare

__all__ = ["CompareSettings", "Comparison", "compare"]
