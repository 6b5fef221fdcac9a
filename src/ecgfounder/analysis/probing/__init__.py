"""The linear probe: what embeddings know about labels.

In: a run and labels. Out: a table of metrics with controls, predictions, the fitted probe, a page.
"""
