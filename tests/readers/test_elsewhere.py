"""Recordings are read alike wherever they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecgfounder.errors import ReadError
from ecgfounder.readers import make_source, read_ecg
from ecgfounder.readers.identity import companions_of, identity_of
from ecgfounder.storage import Location
from tests.builders.cohorts import HINTS
from tests.builders.elsewhere import copied, write_recordings


def test_recordings_are_read_alike_from_any_store(tmp_path: Path, elsewhere: Location) -> None:
    names = write_recordings(tmp_path)
    copied(tmp_path, elsewhere)
    for name in names:
        here, there = (read_ecg(f"{place}/{name}", hints=HINTS) for place in (tmp_path, elsewhere))
        assert np.array_equal(here.samples, there.samples), name
        assert (here.leads, here.sampling_rate, here.source_format) == (
            there.leads,
            there.sampling_rate,
            there.source_format,
        )


def test_an_input_elsewhere_is_known_by_its_tag_and_its_content(tmp_path: Path, elsewhere: Location) -> None:
    write_recordings(tmp_path)
    copied(tmp_path, elsewhere)
    sources = [make_source(f"{place}/wfdb/r.hea", HINTS) for place in (tmp_path, elsewhere)]
    for source in sources:
        source.companions.append(source.location.beside("r.dat"))
    here, there = map(identity_of, sources)
    assert (here.size, here.sha256, here.companions) == (there.size, there.sha256, there.companions)
    assert here.tag is None
    assert there.tag == " ".join(location.status().tag for location in sources[1].files)
    assert companions_of(sources[1], there.companions) == sources[1].companions


def test_what_is_not_there_is_a_read_error_with_its_place(elsewhere: Location) -> None:
    with pytest.raises(ReadError, match=r"memory://.*/gone\.xml: No such file"):
        read_ecg(f"{elsewhere}/gone.xml")
