"""Preparation of a recording for the network: leads by name, 500 Hz, windows, filters and normalisation, quality flags."""

from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.recipes import (
    FILTERED,
    PAPER,
    RECIPES,
    REMAINDER_CHOICES,
    ZSCORE,
    Butterworth,
    Filter,
    MedianBaseline,
    Notch,
    Recipe,
)
from ecgfounder.preprocess.resampling import resample
from ecgfounder.preprocess.signals import Signal, prepare, token_times

__all__ = [
    "FILTERED",
    "PAPER",
    "RECIPES",
    "REMAINDER_CHOICES",
    "ZSCORE",
    "Butterworth",
    "Filter",
    "MedianBaseline",
    "Notch",
    "Preparation",
    "Recipe",
    "Signal",
    "prepare",
    "resample",
    "token_times",
]
