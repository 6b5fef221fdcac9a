"""A run is read alike wherever it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecgfounder.results import open_run, read_embedding
from ecgfounder.storage import Location
from tests.builders.elsewhere import copied
from tests.builders.runs import FORMS, PATHS, Made


@pytest.mark.parametrize("stored", ["json", "parquet"])
@pytest.mark.parametrize("form", ["maps", "windows_of_every_lead"])
def test_a_run_is_opened_alike_in_any_store(tmp_path: Path, elsewhere: Location, stored: str, form: str) -> None:
    folder = Made(tmp_path / "run", format=stored, **FORMS[form]).make()
    here, there = open_run(folder), open_run(copied(folder, elsewhere))
    assert repr(there) == repr(here)
    assert there.manifest.equals(here.manifest)
    assert np.array_equal(there.arrays()[0], here.arrays()[0])
    output = here.records["output"][0].as_py()
    assert np.array_equal(read_embedding(f"{elsewhere}/{output}"), read_embedding(f"{folder}/{output}"))


def test_an_incomplete_run_elsewhere_is_read_from_its_ledger(tmp_path: Path, elsewhere: Location) -> None:
    folder = Made(tmp_path / "run", outcome="running").make()
    run = open_run(copied(folder, elsewhere), allow_incomplete=True)
    assert run.records["record"].to_pylist() == sorted(PATHS)
