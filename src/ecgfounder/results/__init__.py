"""Reading a run: arrays, joins with tables, single embeddings, exports to other formats, copies for sharing."""

from ecgfounder.results.arrays import Embeddings
from ecgfounder.results.dataset_card import dataset_card
from ecgfounder.results.join import Join
from ecgfounder.results.revealed import Revealed, what_it_reveals
from ecgfounder.results.run import EmbeddingRun, open_run
from ecgfounder.results.several import EmbeddingRuns
from ecgfounder.results.share import share_run
from ecgfounder.results.store import read_embedding

__all__ = [
    "EmbeddingRun",
    "EmbeddingRuns",
    "Embeddings",
    "Join",
    "Revealed",
    "dataset_card",
    "open_run",
    "read_embedding",
    "share_run",
    "what_it_reveals",
]
