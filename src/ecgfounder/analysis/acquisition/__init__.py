"""Drift: what embeddings know about how recordings were made.

In: a run, factors and labels. Out: differences, probes, AUROC within and across levels, a page.
"""
