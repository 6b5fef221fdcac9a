"""Recordings that are most similar to a recording, exactly or by an index.

In: embeddings of a run. Out: neighbours and similarities.
"""
