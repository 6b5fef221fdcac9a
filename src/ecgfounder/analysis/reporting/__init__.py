"""One page about a run.

In: runs, tables of labels, results of other analyses. Out: a page whose counts tell of no few patients.
"""
