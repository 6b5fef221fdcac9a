"""Reading a run: arrays, joins with tables, single embeddings, exports to other formats."""

from ecgfounder.results.arrays import Embeddings
from ecgfounder.results.join import Join
from ecgfounder.results.run import EmbeddingRun, open_run
from ecgfounder.results.several import EmbeddingRuns
from ecgfounder.results.store import read_embedding

__all__ = ["EmbeddingRun", "EmbeddingRuns", "Embeddings", "Join", "open_run", "read_embedding"]
