"""The core of distributed runs, for any engine that calls a function on many machines: `do_group`.

In: a `Work`, the same for all groups of an attempt, and a `Group` of records. Out: the records' embeddings and a part of the
ledger, published once, however often a group is done; and an `Outcome` for the driver.
"""

from ecgfounder.distributed.work import Facts, Group, Outcome, Work
from ecgfounder.distributed.worker import Worker, do_group

__all__ = ["Facts", "Group", "Outcome", "Work", "Worker", "do_group"]
