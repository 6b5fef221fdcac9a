"""Recordings that are there more than once.

In: runs, and the cohort's files to confirm. Out: pairs by class, what splits have in common, a page.
"""
