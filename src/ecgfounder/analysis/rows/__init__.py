"""Which recordings an analysis uses, and what tables say about them.

In: opened runs, tables, conditions. Out: selections, with what each rule left out; labels as arrays.
"""
