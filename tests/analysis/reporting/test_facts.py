"""Facts of a cohort in words: numbers are as they are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from ecgfounder.analysis.probing.subgroups import _bands
from ecgfounder.analysis.reporting.facts import UNKNOWN, intervals, of_column


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64()])
def test_large_whole_numbers_have_names_of_their_own(kind: pa.DataType) -> None:
    found = of_column("site", pa.chunked_array([pa.array([10_000_033, 10_000_034, 0, None], kind)]))
    names = [found.names[code] for code in found.codes]
    assert names == ["10000033", "10000034", "0", UNKNOWN]


def test_edges_of_large_numbers_differ() -> None:
    found = intervals("number", np.array([10_000_001.0, 10_000_015.0]), [1e7, 1e7 + 10, 1e7 + 20])
    assert [found.names[code] for code in found.codes] == ["… to 10000010", "10000010 to 10000020"]


def test_bands_of_large_numbers_differ() -> None:
    column = pa.chunked_array([[10_000_001.0, 10_000_015.0, 10_000_025.0]])
    found = [each.level for each in _bands("number", column, [1e7 + 10, 1e7 + 20])]
    assert found == ["under 10000010", "10000010 to 10000020", "10000020 and over"]
