"""Group commits, for stores that can neither append nor rename: leases, epochs, and parts that are published once.

In: a run's folder in any store that creates exclusively. Out: the right to write to it, and parts of the ledger that count.
"""
