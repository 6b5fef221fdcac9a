"""Free text of a file, which may identify a patient, is in no error, warning, log line or fact, however damaged the file is."""

from __future__ import annotations

import traceback
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from ecgfounder import read_ecg
from ecgfounder.commands.inspect import describe, page
from ecgfounder.errors import ECGFounderError, ReadError
from ecgfounder.readers import read_statements
from ecgfounder.readers.source import Hints
from tests.builders.originals import Original
from tests.builders.tainted import MARKER, marked_copies, refused, tainted

ORIGINALS = tainted()


def identified(original: Original) -> str:
    return f"{original.format}-{original.name}"


def said_of(path: str, original: Original, *, whole: bool) -> list[str]:
    """All that a user of the Python API or of `inspect` is told about a file; `whole`: the device's fields too."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            recording = read_ecg(path, hints=original.hints, reader=original.reader)
        except ECGFounderError as error:
            said += [str(error), repr(error), *traceback.format_exception(error)]
        else:
            finding = describe(path, recording)
            finding = finding if whole else replace(finding, device={}, version=None)
            said += [finding.as_json(), *page(finding)]
        try:
            statements = read_statements(path)
        except ECGFounderError as error:
            said += [str(error), repr(error), *traceback.format_exception(error)]
        else:
            said += [repr(statements)] if whole else []
    return said + [str(warning.message) for warning in warned]


@pytest.mark.parametrize("original", ORIGINALS, ids=identified)
def test_a_good_file_is_read_and_its_free_text_is_not_told(
    original: Original, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(0)
    assert any(
        MARKER.encode(encoding) in data for data in original.files.values() for encoding in ("ascii", "utf-16-le")
    ) or (original.name in ("float64", "deflated", "level 5"))
    path = original.write(tmp_path)
    assert read_ecg(path, hints=original.hints, reader=original.reader).source_format == original.format
    told = said_of(path, original, whole=True)
    assert [text for text in [*told, caplog.text, *capfd.readouterr()] if MARKER in text] == []


@pytest.mark.parametrize("original", refused(), ids=identified)
def test_a_file_that_is_refused_because_of_a_field_is_refused_without_that_field(
    original: Original, tmp_path: Path
) -> None:
    path = original.write(tmp_path)
    with pytest.raises(ReadError):
        read_ecg(path, hints=original.hints, reader=original.reader)
    assert [text for text in said_of(path, original, whole=True) if MARKER in text] == []


@pytest.mark.parametrize("original", ORIGINALS, ids=identified)
def test_a_file_that_needs_a_fact_from_the_user_is_refused_without_its_free_text(
    original: Original, tmp_path: Path
) -> None:
    path = original.write(tmp_path).partition("::")[0]
    for hints in (Hints(), Hints(500), Hints(500, "uV"), Hints(500, "uV", ("I",))):
        told = said_of(path, replace(original, hints=hints), whole=True)
        assert [text for text in told if MARKER in text] == []


def refused_without_quoting(original: Original, count: int, seed: int, folder: Path) -> int:
    refused = 0
    for number, files in enumerate(marked_copies(original, count, seed)):
        copy = replace(original, files=files, hints=original.hints if number % 2 else Hints())
        told = said_of(copy.write(folder), copy, whole=False)
        assert [text for text in told if MARKER in text] == []
        refused += any("Traceback" in text for text in told)
    return refused


@pytest.mark.parametrize("original", ORIGINALS, ids=identified)
def test_no_error_of_a_damaged_file_quotes_it(
    original: Original, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(0)
    assert refused_without_quoting(original, 30, 1, tmp_path) > 0
    assert MARKER not in caplog.text
    assert MARKER not in "".join(capfd.readouterr())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("original", ORIGINALS, ids=identified)
def test_no_error_of_many_damaged_files_quotes_them(original: Original, seed: int, tmp_path: Path) -> None:
    assert refused_without_quoting(original, 100, 100 + seed, tmp_path) > 0
