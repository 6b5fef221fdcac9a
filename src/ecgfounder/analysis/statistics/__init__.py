"""Linear models for many labels at once, splits by patient, metrics, and intervals by drawing patients.

In: features, labels, groups as arrays. Out: scores, figures, intervals; nothing here knows a run.
"""
