"""Two runs of the same recordings, compared.

In: two runs. Out: what differs in settings and records, and how far embeddings agree.
"""
