"""Parametrisations of which the core takes a part, and the slow tests all.

In: values. Out: parameters for `pytest.mark.parametrize`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def thinned(values: Iterable[Any], kept: int) -> list[Any]:
    """All values: `kept` of them, spread evenly from the first to the last, as they are, and the others as slow tests."""
    every = list(values)
    places = {round(number * (len(every) - 1) / max(1, kept - 1)) for number in range(kept)}
    return [each if place in places else pytest.param(each, marks=pytest.mark.slow) for place, each in enumerate(every)]
