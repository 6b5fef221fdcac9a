"""The methods text says how a run was made, and nothing that a run record from elsewhere smuggles in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ecgfounder import open_run
from ecgfounder.analysis.reporting.methods import methods_text, settings_of, word
from ecgfounder.results import EmbeddingRun
from tests.builders.runs import FORMS, Made


def text_of(run: EmbeddingRun) -> str:
    return "\n".join(methods_text(run, "12 recordings were embedded.", "None failed."))


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("maps", ["its 12-lead network", "over the whole recording", "for every 0.512 s"]),
        ("means", ["the mean over time", "recipe zscore (version 1; no filter;"]),
        ("windows", ["in windows of – s every 2 s"]),
        ("every_lead", ["its 1-lead network", "every lead by itself"]),
    ],
)
def test_it_describes_the_run(tmp_path: Path, form: str, said: list[str]) -> None:
    text = text_of(open_run(Made(tmp_path / "run", checkpoint="ab" * 32, **FORMS[form]).make()))
    for each in [*said, "ab" * 32, "12 recordings were embedded.", "None failed.", "doi:10.1056/AIoa2401033"]:
        assert each in text


def test_padding_is_told(tmp_path: Path) -> None:
    padded = open_run(Made(tmp_path / "run", stride=2.0, remainder="pad").make())
    assert "filled with zeros" in text_of(padded)


def test_settings_are_words_and_numbers(tmp_path: Path) -> None:
    run = open_run(Made(tmp_path / "run").make())
    evil: dict[str, Any] = {**run.record.fingerprint, "reader": "/home/miller/x", "checkpoint_sha256": "miller"}
    record = replace(run.record, fingerprint=evil, versions={"numpy": "2.0", "miller": "1"}, started="miller, 2021")
    other = EmbeddingRun(run.folder, record, run.manifest)
    rows = dict(settings_of(other))
    assert rows["Version of numpy"] == "2.0"
    assert "miller" not in str(rows).lower()
    assert "miller" not in text_of(other).lower()
    assert not {"Reader", "Checkpoint, SHA-256", "Begun"} & set(rows)


def test_words_are_short_and_plain() -> None:
    assert [word(each) for each in ("zscore", 10.0, True)] == ["zscore", "10", "yes"]
    assert [word(each) for each in (None, ["x"], "a/b", "x" * 41, "<b>")] == ["–"] * 5
