"""Damaged and foreign ledgers and run.json: a clear error or the work done again, never a traceback, a loss, or a double.

Small runs are made once, in several forms. Each test damages a copy and does with it what users do.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgfounder import __version__
from ecgfounder.cohort import sources
from ecgfounder.errors import CohortError, ECGFounderError, RunError
from ecgfounder.ledger.conclusion import merge, upgrade
from ecgfounder.ledger.entry import Commitment, Entry, PartEnd, PartHeader, line_of, parse_frame, parse_line
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.ledger import lines_of, part_status, read_ledger
from ecgfounder.ledger.liveness import own_name
from ecgfounder.ledger.manifest import SCHEMA, row_of
from ecgfounder.ledger.record import FORMAT_VERSION, RunRecord
from ecgfounder.network.head import Head
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.results.run import open_run
from ecgfounder.run import run as extract
from ecgfounder.run.run import Run, Summary
from ecgfounder.run.settings import Settings
from ecgfounder.storage import locate
from tests.builders.cohorts import settings_for, write_cohort
from tests.harness.outputs import json_outputs, parquet_rows
from tests.harness.stand_ins import NullEngine, Silent
from tests.harness.thinned import thinned

COUNT = 9
FAILURES = 2  # of them; `write_cohort` says which

T = TypeVar("T")

Json = Any
Place = tuple[str | int, ...]
"""Where a value is in another one: keys and indices."""


class EngineWithHead(NullEngine):
    """One that also has what predictions need."""

    head = Head(
        np.random.default_rng(4).standard_normal((150, 1)).astype(np.float32), np.linspace(-2, 2, 150, dtype=np.float32)
    )


LEADS = Preparation(mode="1lead", lead="all", window=1.0, stride=0.5, remainder="keep")

FORMS: dict[str, dict[str, Any]] = {
    "json": {},
    "parquet": {"format": "parquet", "shard_size": 3},
    "predictions": {
        "preparation": LEADS,
        "format": "parquet",
        "shard_size": 3,
        "predictions": True,
        "statements": True,
        "pooling": "both",
    },
    "identifiers": {"id_column": "id", "keep_columns": ("site",), "pooling": "mean"},
}
"""A file each; shards; windows and leads with predictions; identifiers."""


@dataclass(frozen=True)
class Made:
    """A run as it was left, which is not to be changed."""

    settings: Settings
    engine: NullEngine

    @property
    def folder(self) -> Path:
        return self.settings.output_dir

    @property
    def lines(self) -> list[bytes]:
        """The lines of its ledger."""
        return part_of(self.folder).read_bytes().splitlines()

    def copy(self, place: Path, *, aged: bool = False) -> Path:
        """A copy to damage; an aged one is of a process that has given no sign of life for long."""
        shutil.copytree(self.folder, place)
        if aged:
            os.utime(part_of(place), (1, 1))
        return place

    def run(self, folder: Path, **more: Any) -> Run:
        return Run(replace(self.settings, output_dir=folder, **more), Silent())

    def start(self, folder: Path, **more: Any) -> Summary:
        with mock.patch.object(extract, "create_engine", return_value=self.engine):
            return self.run(folder, **more).execute()


def part_of(folder: Path) -> Path:
    (part,) = (folder / "_run" / "ledger").glob("*.jsonl")
    return part


def write_lines(folder: Path, lines: list[bytes]) -> None:
    part = part_of(folder)
    before = part.stat()
    part.write_bytes(b"".join(line + b"\n" for line in lines))
    os.utime(part, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """A complete run of each form over one cohort."""
    root = tmp_path_factory.mktemp("made")
    write_cohort(root / "in", COUNT)
    (root / "weights.pth").write_bytes(b"weights")
    paths = sorted(path.name for path in (root / "in").iterdir())
    table = {"ecg_paths": paths, "id": [f"P{number}" for number in range(COUNT)], "site": ["A"] * COUNT}
    pq.write_table(pa.table(table), root / "table.parquet")
    runs = {}
    for name, options in FORMS.items():
        chosen = settings_for(root / "in", root / name, root / "weights.pth", **options)
        if "id_column" in options:
            chosen = replace(chosen, dataset=str(root / "table.parquet"))
        runs[name] = Made(chosen, EngineWithHead() if "predictions" in options else NullEngine())
        summary = runs[name].start(root / name)
        assert summary.tally is not None
        assert (summary.tally.done, summary.tally.failed) == (COUNT - FAILURES, FAILURES)
    return runs


@pytest.fixture(params=FORMS)
def one(request: pytest.FixtureRequest, made: dict[str, Made]) -> Made:
    """The run of each form."""
    return made[request.param]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power cut is tried here, so that nothing need wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    monkeypatch.setattr(extract, "versions", dict)


_NUMBERS = itertools.count()


@pytest.fixture
def place(tmp_path: Path) -> Callable[[], Path]:
    """Gives places for copies; another one each time, also where a test is done with many examples."""

    def another() -> Path:
        return tmp_path / f"{next(_NUMBERS)}" / "out"

    return another


# What is done with a folder, and what must come of it.


def survives(work: Callable[[], Any]) -> Any:
    """What comes of some work: its result, or the error that users are meant to see; anything else is raised."""
    try:
        return work()
    except ECGFounderError as error:
        return error


def look_through(folder: Path) -> None:
    """Read a run in every way."""
    run = survives(lambda: open_run(folder, allow_incomplete=True))
    if isinstance(run, ECGFounderError):
        return
    survives(lambda: repr(run))
    for table in (run.manifest, run.failures, run.records):
        table.to_pylist()
    survives(lambda: list(run))
    if run.format == "parquet":
        survives(lambda: run.reference(0))
    for pooling in ("none", "mean"):
        found = survives(lambda pooling=pooling: run.arrays(pooling))
        if isinstance(found, tuple):
            X, meta = found
            assert meta.num_rows == len(X)
            meta.to_pylist()
            survives(lambda X=X: X[0])
            survives(lambda X=X: np.asarray(X))


def use_in_every_way(one: Made, damaged: Path) -> None:
    """Preview, read, merge and upgrade a copy of a damaged run; resume another one."""
    before = content_of(damaged)
    survives(one.run(damaged).preview)
    look_through(damaged)
    assert content_of(damaged) == before  # who only looks changes nothing
    merged = damaged.with_name("merged")
    shutil.copytree(damaged, merged)
    for table in (merged / "_run").glob("manifest.*"):
        table.unlink()  # what is read without it is the ledger itself
    look_through(merged)
    survives(lambda: upgrade(str(merged)))
    survives(lambda: merge(str(merged)))
    look_through(merged)
    survives(lambda: one.start(damaged))
    survives(lambda: one.start(damaged, retry_failed=True, check_hashes=True))
    look_through(damaged)


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def embeddings_of(folder: Path) -> Json:
    return json_outputs(folder), parquet_rows(folder) if list(folder.glob("*.parquet")) else []


def told_of(folder: Path) -> list[dict[str, Any]]:
    """What the manifest says, but for times and the names of shards."""
    rows = pq.read_table(folder / "_run" / "manifest.pq").to_pylist()
    return [
        {name: value for name, value in row.items() if not name.startswith("seconds_")}
        | {"output": row["output"] and row["output"].rpartition("::")[2]}
        for row in rows
    ]


def assert_whole(one: Made, folder: Path) -> None:
    """Every record is there exactly once, as if nothing had happened."""
    assert embeddings_of(folder) == embeddings_of(one.folder)
    assert told_of(folder) == told_of(one.folder)
    expected, found = open_run(one.folder), open_run(folder)
    assert [facts["record"] for facts, _ in found] == [facts["record"] for facts, _ in expected]
    assert all(np.array_equal(x, y) for (_, x), (_, y) in zip(found, expected, strict=True))
    for name in ("predictions.pq", "statements.pq"):
        books = [each / "_run" / name for each in (folder, one.folder)]
        assert [book.exists() for book in books] in ([True, True], [False, False])
        if books[0].exists():
            assert pq.read_table(books[0]).equals(pq.read_table(books[1]))
    assert not any((folder / "_run" / "scratch").iterdir())


def assert_done_again(one: Made, folder: Path, times: int | None = None) -> Summary:
    """A start does what is missing and comes to a whole run; the next one has nothing to do."""
    summary = one.start(folder)
    assert summary.outcome == "complete"
    assert times is None or summary.processed == times
    assert_whole(one, folder)
    assert one.start(folder).processed == 0
    assert_whole(one, folder)
    return summary


# Damage.

HUGE = (2**31, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**70, -(2**63), -(2**63) - 1, -(2**70))
OUTSIDE = (
    *(
        "../../canary",
        "/etc/passwd",
        "_run/run.json",
        "_RUN/run.json",
        "a/../../../canary",
        "./ecg_00.json",
        "a//b",
        "",
        ".",
    ),
    *("..", "/", "inner::/../../../canary", "inner::/../../_run/run.json", "x\0y"),
)
WRONG_EVERYWHERE: tuple[Json, ...] = (True, [{}], {"foreign": [1]}, [[["deeper"]]])
"""Values that no field of a ledger's lines may have."""


def nested_deeply(depth: int) -> Json:
    value: Json = 1
    for _ in range(depth):
        value = {"a": value}
    return value


VALUES: tuple[Json, ...] = (
    *(None, False, 0, 1, -1, 3, 0.5, -1.5, 1e308, *HUGE, *OUTSIDE, *WRONG_EVERYWHERE),
    *(
        "x",
        "done",
        "failed",
        "0" * 16,
        "g" * 16,
        "ff" * 32,
        "ecg_00.json",
        "embeddings-other.parquet",
        "\ud800",
        "é",
        "1.5",
    ),
    *("inner/a.json", "inner::/a.json", "embeddings-other.parquet::0000000000000000", "AAAA", "!" * 800, "\x7f\n\r"),
    *(
        [],
        [1],
        [0],
        [2**31 - 1, 2**31 - 1],
        [2**31 - 1] * 50,
        [1, 2, 3, 4, 5, 6],
        [-1],
        [2**70],
        ["I"],
        ["a", "b"],
        [None],
    ),
    *([0.0, 1.0, 2.0], [0.5], {}, {"": None}, {"a": "b"}, nested_deeply(200), nested_deeply(400)),
)


def places_in(value: Json, at: Place = ()) -> Iterator[Place]:
    """The place of a value and of everything in it, at any depth; of a list's items the first and the last."""
    yield at
    if isinstance(value, dict):
        for key, each in value.items():
            yield from places_in(each, (*at, key))
    elif isinstance(value, list) and value:
        for index in sorted({0, len(value) - 1}):
            yield from places_in(value[index], (*at, index))


def changed(value: Json, at: Place, change: Callable[[Any, Any], None]) -> Json:
    """A copy in which the container of a place was changed."""
    copy = json.loads(json.dumps(value))
    container = copy
    for key in at[:-1]:
        container = container[key]
    change(container, at[-1])
    return copy


def without(value: Json, at: Place) -> Json:
    return changed(value, at, lambda container, key: container.pop(key)) if at else None


def with_other(value: Json, at: Place, other: Json) -> Json:
    return changed(value, at, lambda container, key: container.__setitem__(key, other)) if at else other


def text_of(value: Json) -> bytes:
    """As JSON, also what orjson would not write: numbers of any size, halves of character pairs."""
    return json.dumps(value, separators=(",", ":")).encode()


def old_form(line: bytes) -> bytes:
    """An entry as version 0.1.0 wrote it: input and facts side by side."""
    raw = json.loads(line)
    if "key" not in raw:
        return line
    flat = {name: value for name, value in raw.items() if name not in ("facts", "input")}
    if raw["status"] == "failed":
        flat["output"] = None
    return text_of({**flat, **raw.get("facts", {}), **raw.get("input", {})})


FOREIGN = [
    *(
        b"[]",
        b"[1, 2]",
        b"null",
        b"0",
        b'"key"',
        b"true",
        b"{}",
        b"",
        b" ",
        b"\r",
        b"{",
        b"}",
        b"\xff\xfe",
        b"\x00" * 500,
    ),
    *(
        b'{"key":null}',
        b'{"key":"0"}{"key":"1"}',
        b'{"shard":null}',
        b'{"shard":"a","rows":"b"}',
        b'{"part":{}}',
        b'{"end":{}}',
    ),
    *(
        b'{"part":null}',
        b'{"end":[1]}',
        b'{"level":"INFO","message":"another program","time":1700000000.5}',
        b"key,record,status",
    ),
    *(
        b'{"_id":"x","key":12345,"value":{"key":"0000000000000000"}}',
        b"[" * 5000,
        b'{"a":' * 5000,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b"1" * 5000,
        b"-",
        b"NaN",
    ),
    *(
        b'{"key":"0000000000000000","record":"r","status":"done","shape":[1,12],"output":"r.json","facts":{"leads":["'
        + b"I" * 99999
        + b'"]}}',
    ),
    *(
        b'{"key":"ffffffffffffffff","record":"another","status":"failed","reason":"of another cohort","error":"ReadError"}',
    ),
    *(
        b'{"key":"ffffffffffffffff","record":"\\ud800","status":"failed"}',
        b'{"shard":"embeddings-gone.parquet","rows":1,"records":1}',
    ),
    *(b'{"shard":"ecg_00.json","rows":4,"records":4}', b'{"shard":"inner","rows":4,"records":4}'),
    *(b'{"shard":".huggingface.yaml","rows":4,"records":4}', b'{"shard":"table.parquet","rows":4,"records":4}'),
]


@st.composite
def damaged_lines(draw: st.DrawFn, lines: list[bytes]) -> list[bytes]:
    """The lines of a ledger after one to four accidents."""
    lines = list(lines)
    if draw(st.booleans()):
        lines = [old_form(line) for line in lines]
    for _ in range(draw(st.integers(1, 4))):
        number = draw(st.integers(0, len(lines) - 1))
        line = lines[number]
        kind = draw(
            st.sampled_from(["field", "field", "field", "field", "cut", "bytes", "double", "lose", "foreign", "move"])
        )
        if kind == "field":
            try:
                raw = json.loads(line)
            except (ValueError, RecursionError):
                continue
            at = draw(st.sampled_from(list(places_in(raw))))
            value = draw(st.sampled_from(VALUES) | st.text(max_size=3) | st.integers() | st.floats(allow_nan=False))
            lines[number] = text_of(without(raw, at) if draw(st.integers(0, 3)) == 0 else with_other(raw, at, value))
        elif kind == "cut":
            lines[number] = line[: draw(st.integers(0, len(line)))]
        elif kind == "bytes":
            first = draw(st.integers(0, len(line)))
            stop = min(len(line), first + draw(st.integers(0, 20)))
            lines[number] = (
                line[:first] + draw(st.sampled_from([b"\0", b"\xff", b"\n", b'"', b"{", b"9"])) * 3 + line[stop:]
            )
        elif kind == "double":
            lines.insert(draw(st.integers(0, len(lines))), line)
        elif kind == "lose" and len(lines) > 1:
            del lines[number]
        elif kind == "foreign":
            lines.insert(number, draw(st.sampled_from(FOREIGN)))
        elif kind == "move":
            lines.append(lines.pop(number))
    return lines


def examples(count: int) -> settings:
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def in_batches(damages: Iterable[T], size: int) -> list[list[T]]:
    """Several accidents at once: each in a line of its own."""
    every = list(damages)
    return [every[first : first + size] for first in range(0, len(every), size)]


# Whatever happened to a ledger.


@given(form=st.sampled_from(list(FORMS)), data=st.data())
@examples(20)
def test_a_run_with_a_damaged_ledger_can_be_used_or_says_why_not(
    made: dict[str, Made], place: Callable[[], Path], form: str, data: st.DataObject
) -> None:
    one = made[form]
    damaged = one.copy(place(), aged=data.draw(st.booleans()))
    write_lines(damaged, data.draw(damaged_lines(one.lines)))
    use_in_every_way(one, damaged)
    shutil.rmtree(damaged.parent)


@given(form=st.sampled_from(list(FORMS)), data=st.data())
@examples(12)
def test_a_run_with_a_damaged_ledger_can_be_started_anew(
    made: dict[str, Made], place: Callable[[], Path], form: str, data: st.DataObject
) -> None:
    one = made[form]
    damaged = one.copy(place(), aged=True)
    for canary in (damaged.parent / "canary", damaged / "canary"):
        canary.write_text("not of this run")
    lines = data.draw(damaged_lines(one.lines))
    for name in data.draw(st.lists(st.sampled_from(OUTSIDE), max_size=4)):
        raw = json.loads(data.draw(st.sampled_from(one.lines)))
        lines.append(text_of({**raw, data.draw(st.sampled_from(["output", "removes", "shard"])): name}))
    write_lines(damaged, lines)
    assert one.start(damaged, overwrite=True).outcome == "complete"
    assert (damaged.parent / "canary").exists()
    assert (damaged / "canary").exists()
    assert told_of(damaged) == told_of(one.folder)
    shutil.rmtree(damaged.parent)


# What no line may hold.


def every_wrong_line(line: bytes, values: tuple[Json, ...]) -> Iterator[tuple[Place, bytes]]:
    """A line with one value at one place after the other."""
    raw, texts, mark = json.loads(line), [text_of(value) for value in values], "the place"
    for at in places_in(raw):
        if at:
            yield at, text_of(without(raw, at))
        before, after = text_of(with_other(raw, at, mark)).split(text_of(mark))
        for text in texts:
            yield at, before + text + after


@pytest.mark.parametrize(
    ("form", "version"), [("json", 1), ("parquet", 1), ("predictions", 2), ("identifiers", 1), ("identifiers", 2)]
)
def test_whatever_stands_in_a_line_is_an_entry_that_can_be_used_or_none(
    made: dict[str, Made], tmp_path: Path, form: str, version: int
) -> None:
    lines = [line for line in made[form].lines if b'"key"' in line or b'"shard"' in line]
    lines = [old_form(line) if version == 1 else line for line in lines]
    kinds = {tuple(map(str, places_in(json.loads(line)))): line for line in lines}  # one of each form
    entries: list[Entry] = []
    wrong = [text for line in kinds.values() for _, text in every_wrong_line(line, VALUES)]
    for text in wrong:
        found = parse_line(text)
        assert found is None or isinstance(found, Entry | Commitment)
        if found is not None:
            again = parse_line(line_of(found))
            assert again is not None
            assert line_of(again) == line_of(found)
        if isinstance(found, Entry):
            entries.append(found)
    part = tmp_path / "1.jsonl"
    part.write_bytes(b"".join(text + b"\n" for text in wrong))
    assert sum(isinstance(line, Entry) for _, line in lines_of(locate(part))) == len(entries)
    state = read_ledger(locate(tmp_path))
    assert 0 < len(state) == len(list(state.entries(range(len(state)))))
    rows = [row_of(entry.record, entry) for entry in entries]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    assert table.num_rows == len(table.to_pylist()) == len(entries)


def test_the_ends_of_a_part_are_known_whatever_stands_in_them(made: dict[str, Made], tmp_path: Path) -> None:
    lines = made["json"].lines
    part = tmp_path / "1.jsonl"
    for number, name, kind in ((0, "part", PartHeader), (-1, "end", PartEnd)):
        for _, text in every_wrong_line(lines[number], VALUES):
            found = parse_frame(text, name, kind)  # type: ignore[arg-type,type-var]
            assert found is None or isinstance(found, kind)
            changed_lines = [lines[0], lines[1], lines[-1]]
            changed_lines[number] = text
            part.write_bytes(b"\n".join([*changed_lines, b""]))
            header, end = part_status(locate(part))
            assert (header if number == 0 else end) == found
    assert part_status(locate(part))[0] is not None


REQUIRED = {"key", "record", "status", "shape", "output", "size", "mtime_ns"}
"""What the line of a finished record cannot do without; its facts may be unknown."""


def test_a_line_that_mistypes_a_field_or_lacks_one_is_no_entry(one: Made) -> None:
    for line in one.lines:
        for form in (line, old_form(line)):
            raw = json.loads(form)
            if not {"key", "shard"} & set(raw):
                continue
            known = [at for at in places_in(raw) if at]
            for at in known:
                for value in WRONG_EVERYWHERE:
                    if isinstance(value, dict) and at[-1] in ("facts", "statements"):
                        continue  # a fact of another version
                    assert parse_line(text_of(with_other(raw, at, value))) is None, (at, value)
                if at[-1] in REQUIRED and raw.get("status") == "done" and not (form is not line and at == ("size",)):
                    assert parse_line(text_of(without(raw, at))) is None, at
            for value in WRONG_EVERYWHERE:
                assert parse_line(text_of(value)) is None


@given(form=st.sampled_from(list(FORMS)), data=st.data())
@examples(8)
def test_a_record_whose_line_mistypes_a_field_is_done_again(
    made: dict[str, Made], place: Callable[[], Path], form: str, data: st.DataObject
) -> None:
    one = made[form]
    damaged = one.copy(place(), aged=True)
    lines = one.lines
    for number in data.draw(st.sets(st.integers(0, len(lines) - 1), min_size=1, max_size=3)):
        raw = json.loads(old_form(lines[number]) if data.draw(st.booleans()) else lines[number])
        at = data.draw(st.sampled_from(list(places_in(raw))))
        if at and at[-1] not in ("facts", "statements"):
            lines[number] = text_of(with_other(raw, at, data.draw(st.sampled_from(WRONG_EVERYWHERE))))
    write_lines(damaged, lines)
    assert_done_again(one, damaged)
    shutil.rmtree(damaged.parent)


def finished(lines: list[bytes]) -> list[int]:
    """Which lines are of records that are done."""
    return [number for number, line in enumerate(lines) if json.loads(line).get("status") == "done"]


def damage(one: Made, folder: Path, changes: Iterable[Callable[[dict[str, Json]], Any]], first: int = 0) -> None:
    """Change lines of finished records in a folder, one after the other, each in its own way."""
    lines = one.lines
    for number, change in zip(finished(lines)[first:], changes, strict=False):
        raw = json.loads(lines[number])
        change(raw)
        lines[number] = text_of(raw)
    write_lines(folder, lines)


LOST: dict[str, Callable[[dict[str, Json]], Any]] = {
    **{
        f"no {name}": lambda raw, name=name: raw.pop(name)
        for name in ("key", "record", "status", "shape", "output", "input")
    },
    **{
        f"{name} null": lambda raw, name=name: raw.update({name: None})
        for name in ("key", "record", "status", "shape", "output")
    },
    **{f"output {name!r}": lambda raw, name=name: raw.update(output=name) for name in OUTSIDE},
    **{
        f"size {value}": lambda raw, value=value: raw["input"].update(size=value)
        for value in (-1, 2**63, 2**70, 1.5, "1")
    },
    **{
        f"time {value}": lambda raw, value=value: raw["input"].update(mtime_ns=value)
        for value in (2**63, -(2**63) - 1, 2**70, 1e300, "2020-01-01", None)
    },
    "the output of another": lambda raw: raw.update(
        output=f"{raw['shard']}::{'0' * 16}" if "shard" in raw else "ecg_00.json"
    ),
    "an output that never was": lambda raw: raw.update(output="gone.json"),
    "another content": lambda raw: raw["input"].update(sha256="f" * 64, mtime_ns=0),
    "no content": lambda raw: raw["input"].update(sha256="", mtime_ns=0),
    "shape of text": lambda raw: raw.update(shape=["3", "12"]),
    "shape below 0": lambda raw: raw.update(shape=[-3, 12]),
    "shape beyond 2**31": lambda raw: raw.update(shape=[2**31, 12]),
    "no dimension": lambda raw: raw.update(shape=[]),
    "another status": lambda raw: raw.update(status="DONE"),
    "key in capitals": lambda raw: raw.update(key="ABCDEF0123456789"),
    "half of a character": lambda raw: raw.update(record="\ud800"),
}


@pytest.mark.parametrize("form", ["json", "predictions", "identifiers"])
@pytest.mark.parametrize("names", thinned(in_batches(LOST, 7), 2), ids=lambda names: names[0])
def test_finished_records_whose_lines_are_damaged_are_done_again_and_are_there_once(
    made: dict[str, Made], place: Callable[[], Path], form: str, names: list[str]
) -> None:
    one = made[form]
    damaged = one.copy(place(), aged=True)
    damage(one, damaged, [LOST[name] for name in names])
    assert_done_again(one, damaged, times=len(names))


SHARDS: dict[str, Callable[[dict[str, Json]], Any]] = {
    **{f"shard {name!r}": lambda raw, name=name: raw.update(shard=name) for name in OUTSIDE},
    "no shard": lambda raw: raw.pop("shard"),
    "shard null": lambda raw: raw.update(shard=None),
    "a row of another shard": lambda raw: raw.update(output=f"embeddings-other.parquet::{raw['key']}"),
    "a shard that was never committed": lambda raw: raw.update(shard="embeddings-other.parquet"),
    "a file each": lambda raw: (raw.pop("shard"), raw.update(output="ecg_00.json")),
}


@pytest.mark.parametrize("form", ["parquet", "predictions"])
@pytest.mark.parametrize("names", in_batches(SHARDS, 6), ids=lambda names: names[0])
def test_records_that_are_in_no_shard_any_more_are_done_again_and_are_there_once(
    made: dict[str, Made], place: Callable[[], Path], form: str, names: list[str]
) -> None:
    damaged = made[form].copy(place(), aged=True)
    damage(made[form], damaged, [SHARDS[name] for name in names])
    assert_done_again(made[form], damaged, times=len(names))


@pytest.mark.parametrize("values", in_batches([*WRONG_EVERYWHERE, None, *OUTSIDE, "lost"], 2), ids=str)
def test_shards_whose_commitments_are_damaged_are_written_again(
    made: dict[str, Made], place: Callable[[], Path], values: list[Json]
) -> None:
    one = made["parquet"]
    damaged = one.copy(place(), aged=True)
    lines = one.lines
    commitments = [number for number, line in enumerate(lines) if line.startswith(b'{"shard"')]
    for number, value in zip(commitments, values, strict=False):
        lines[number] = b"" if value == "lost" else text_of({**json.loads(lines[number]), "shard": value})
    write_lines(damaged, lines)
    assert_done_again(one, damaged, times=3 * len(values))


PROBABILITIES: list[Json] = [
    *(base64.b64encode(bytes(n_bytes)).decode() for n_bytes in (0, 4, 596, 604)),
    *("!" * 800, "ä" * 800, "A" * 799, "A" * 799 + "\0", 800, None, True, [], ["A" * 800]),
]


@pytest.mark.parametrize("others", in_batches(PROBABILITIES, 7), ids=["length", "type"])
def test_probabilities_that_cannot_be_unpacked_are_computed_again(
    made: dict[str, Made], place: Callable[[], Path], others: list[Json]
) -> None:
    one = made["predictions"]
    damaged = one.copy(place(), aged=True)
    damage(one, damaged, [lambda raw, each=each: raw["probabilities"].__setitem__(-1, each) for each in others])
    assert_done_again(one, damaged, times=len(others))


FACTS: dict[str, Callable[[dict[str, Json]], Any]] = {
    "none": lambda raw: raw.pop("facts"),
    "null": lambda raw: raw.update(facts=dict.fromkeys(("format", "sampling_rate", "n_samples", "statements"))),
    "no starts": lambda raw: raw["facts"].pop("starts"),
    "starts of more windows": lambda raw: raw["facts"].update(starts=[0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]),
    "starts of fewer windows": lambda raw: raw["facts"].update(starts=[0.0]),
    "no leads": lambda raw: raw["facts"].pop("leads"),
    "fewer leads": lambda raw: raw["facts"].update(leads=["I", "II"]),
    "more leads": lambda raw: raw["facts"].update(leads=["I"] * 30),
    "no flags": lambda raw: raw["facts"].pop("flags"),
    "an odd device": lambda raw: raw["facts"].update(device={"gain": "much", "lowpass_hz": 2**63, "": None}),
    "no seconds": lambda raw: raw.pop("seconds"),
    "endless seconds": lambda raw: raw.update(seconds={"read": 1e308, "write": -1e308, "": 1e308}),
    "more dimensions": lambda raw: raw.update(shape=[1, 2, 3, 4, 5, 6, 7, 8]),
    "one dimension": lambda raw: raw.update(shape=[1]),
    "no size": lambda raw: raw.update(shape=[0, 0, 0, 0]),
    "more tokens": lambda raw: raw.update(shape=[*raw["shape"][:-2], 2, raw["shape"][-1]]),
    "more channels": lambda raw: raw.update(shape=[*raw["shape"][:-1], 1024]),
    "endless": lambda raw: raw.update(shape=[2**31 - 1] * len(raw["shape"])),
    "endless in many dimensions": lambda raw: raw.update(shape=[2**31 - 1] * 50),
    "another output": lambda raw: raw.update(output="ecg_00.json"),
    "an output that is not there": lambda raw: raw.update(output="gone.json"),
    "a row that is not there": lambda raw: raw.update(output=f"{raw.get('shard') or 'x.parquet'}::{'0' * 16}"),
    "a key that is none": lambda raw: raw.update(output=f"{raw.get('shard') or 'x.parquet'}::gggggggggggggggg"),
    "a failure": lambda raw: raw.update(status="failed"),
    "a failure that removes": lambda raw: raw.update(status="failed", removes="ecg_00.json"),
    "a failure that removes a folder": lambda raw: raw.update(status="failed", removes="inner"),
    "the last of all times": lambda raw: raw["input"].update(mtime_ns=2**63 - 1),
    "the first of all times": lambda raw: raw["input"].update(mtime_ns=-(2**63)),
    "companions": lambda raw: raw["input"].update(
        companions=["../../../../../../dev/zero", "*", "", "/dev/zero", "a\0b"]
    ),
    "an epoch": lambda raw: raw.update(epoch=2**64 - 1, attempt="", tag=""),
    "a path": lambda raw: raw.update(path="f" * 16),
}


@pytest.mark.parametrize("name", thinned(FACTS, 8))
def test_facts_that_are_possible_and_wrong_are_never_more_than_a_clear_error(
    made: dict[str, Made], place: Callable[[], Path], name: str
) -> None:
    for form, first in (("predictions", 0), ("json", 0), ("identifiers", COUNT - FAILURES - 1)):
        one = made[form]
        damaged = one.copy(place(), aged=True)
        damage(one, damaged, [FACTS[name]], first)
        (damaged / "_run" / "manifest.pq").unlink()
        look_through(damaged)
        if form == "json":
            survives(lambda one=one, damaged=damaged: one.start(damaged))
        else:
            survives(lambda damaged=damaged: merge(str(damaged)))
        look_through(damaged)


@pytest.mark.parametrize("name", ["more dimensions", "endless", "endless in many dimensions", "no size"])
def test_a_shape_that_is_not_the_outputs_does_not_keep_a_run_from_going_on(
    made: dict[str, Made], place: Callable[[], Path], name: str
) -> None:
    one = made["json"]
    damaged = one.copy(place(), aged=True)
    damage(one, damaged, [FACTS[name]])
    (damaged / "ecg_00.json").unlink()
    assert one.start(damaged).outcome == "complete"
    assert json_outputs(damaged) == json_outputs(one.folder)


# Lines that are not the run's, or are there twice.


def test_lines_that_are_there_twice_change_nothing(one: Made, place: Callable[[], Path]) -> None:
    lines = one.lines
    for doubled in ([each for line in lines for each in (line, line)], lines * 3, [*lines, *lines[1:-1]]):
        damaged = one.copy(place(), aged=True)
        write_lines(damaged, doubled)
        assert_done_again(one, damaged, times=0)


def test_lines_of_others_change_nothing(one: Made, place: Callable[[], Path]) -> None:
    damaged = one.copy(place(), aged=True)
    pq.write_table(pa.table({"a": [1]}), damaged / "table.parquet")
    (damaged / "inner").mkdir()
    write_lines(damaged, [*FOREIGN, *(each for line in one.lines for each in (line, *FOREIGN))])
    for _ in range(2):
        summary = one.start(damaged)
        assert (summary.outcome, summary.processed) == ("complete", 0)
        merge(str(damaged))
        assert told_of(damaged) == told_of(one.folder)
    assert pq.read_table(damaged / "table.parquet").to_pydict() == {"a": [1]}
    (damaged / "table.parquet").unlink()
    assert embeddings_of(damaged) == embeddings_of(one.folder)
    look_through(damaged)


@pytest.mark.parametrize(
    "trouble", ["folder", "FIFO", "link to nowhere", "nothing", "zeros", "foreign", "a long number"]
)
@pytest.mark.timeout(30)
def test_other_files_in_the_ledgers_folder_are_never_more_than_a_clear_error(
    made: dict[str, Made], place: Callable[[], Path], trouble: str
) -> None:
    one = made["json"]
    damaged = one.copy(place())
    at = damaged / "_run" / "ledger" / ("9" * 200 + ".jsonl" if trouble == "a long number" else "00-other.jsonl")
    if trouble == "folder":
        at.mkdir()
    elif trouble == "FIFO":
        os.mkfifo(at)
    elif trouble == "link to nowhere":
        at.symlink_to("gone")
    else:
        at.write_bytes({"zeros": b"\0" * 100_000, "foreign": b"\n".join(FOREIGN)}.get(trouble, b""))
    survives(one.run(damaged).preview)
    survives(lambda: upgrade(str(damaged)))
    survives(lambda: merge(str(damaged)))
    survives(lambda: one.start(damaged))
    look_through(damaged)
    survives(lambda: one.start(damaged, overwrite=True))


# Whoever has the folder.


@pytest.mark.parametrize("pid", [0, -1, 2**31, 2**40, 2**63, 2**64 - 1, 2**70, 1.5, "1", None, True])
def test_a_part_that_names_an_impossible_process_is_never_more_than_a_clear_error(
    made: dict[str, Made], place: Callable[[], Path], pid: Json
) -> None:
    one = made["json"]
    damaged = one.copy(place())
    os.utime(part_of(damaged))  # as if it had been written just now
    header = text_of({"part": {**own_name(), "pid": pid}})
    write_lines(damaged, [header, *one.lines[1:-1]])
    for work in (lambda: one.start(damaged), lambda: merge(str(damaged)), lambda: upgrade(str(damaged))):
        what = survives(work)
        assert not isinstance(what, ECGFounderError) or "in use" in str(what)


# What is removed.


@pytest.mark.parametrize("field", ["output", "removes", "shard", "commitment"])
def test_nothing_outside_of_the_run_is_ever_removed(
    made: dict[str, Made], place: Callable[[], Path], field: str
) -> None:
    one = made["json"]
    damaged = one.copy(place(), aged=True)
    for name in ("inner::", "inner"):
        (damaged / name).mkdir()
        (damaged / name / "mine").write_text("not of this run")
    (damaged / "mine").write_text("not of this run")
    for folder in (damaged.parent, damaged.parent.parent):
        (folder / "canary").write_text("not of this run")
    run_id = json.loads(run_json_of(damaged).read_bytes())["run_id"]
    raw: dict[str, Json] = {"record": "r", "status": "failed" if field == "removes" else "done", "shape": [1, 12]}
    entries = [
        {**raw, "key": f"f{number:015x}", "output": "r.json", field: name} for number, name in enumerate(OUTSIDE)
    ]
    commitments = [{"shard": name, "rows": 1, "records": 1} for name in OUTSIDE]
    lines = [text_of(line) for line in (commitments if field == "commitment" else entries)]
    write_lines(damaged, [*one.lines, *lines])
    merge(str(damaged))
    assert one.start(damaged).outcome == "complete"
    assert json.loads(run_json_of(damaged).read_bytes())["run_id"] == run_id
    assert one.start(damaged, overwrite=True).outcome == "complete"
    for canary in (damaged / "inner::/mine", damaged / "inner/mine", damaged / "mine", damaged.parent / "canary"):
        assert canary.exists(), canary
    assert (damaged.parent.parent / "canary").exists()
    assert os.path.exists("/etc/passwd")
    assert_whole(one, damaged)


def test_a_failure_of_a_recording_that_left_the_dataset_never_removes_the_output_of_another(
    made: dict[str, Made], tmp_path: Path
) -> None:
    """Its output was made obsolete; a recording that came since may have an output of the same name."""
    write_cohort(tmp_path / "in" / "a", 2)
    (tmp_path / "in" / "b").mkdir()
    shutil.copy(tmp_path / "in" / "a" / "ecg_00.npy", tmp_path / "in" / "b" / "ecg_00.npy")
    one = made["json"]
    options = {"data_dir": str(tmp_path / "in")}
    table = tmp_path / "table.parquet"
    pq.write_table(pa.table({"ecg_paths": ["a/ecg_00.npy", "a/ecg_01.npy"]}), table)
    one.start(tmp_path / "out", dataset=str(table), **options)
    (tmp_path / "in" / "a" / "ecg_00.npy").write_bytes(b"damaged since")
    one.start(tmp_path / "out", dataset=str(table), **options)
    assert set(json_outputs(tmp_path / "out")) == {"ecg_01.json"}
    pq.write_table(pa.table({"ecg_paths": ["b/ecg_00.npy", "a/ecg_01.npy"]}), table)
    assert one.start(tmp_path / "out", dataset=str(table), **options).outcome == "complete"
    assert set(json_outputs(tmp_path / "out")) == {"ecg_00.json", "ecg_01.json"}
    assert one.start(tmp_path / "out", dataset=str(table), **options).processed == 0


# Folders of version 0.1.0.


def make_old(folder: Path, lines: list[bytes]) -> None:
    """A folder as version 0.1.0 left it."""
    write_lines(folder, [old_form(line) for line in lines])
    for name in ("manifest", "predictions", "statements"):
        if (folder / "_run" / f"{name}.pq").exists():
            (folder / "_run" / f"{name}.pq").rename(folder / "_run" / f"{name}.parquet")
    at = folder / "_run" / "run.json"
    raw = json.loads(at.read_bytes())
    at.write_bytes(text_of({name: raw[name] for name in raw if name not in ("format_version", "run_id", "program")}))


def test_a_folder_of_version_0_1_0_goes_on_and_has_nothing_to_do(one: Made, place: Callable[[], Path]) -> None:
    old = one.copy(place(), aged=True)
    make_old(old, one.lines)
    look_through(old)
    assert one.run(old).preview().plan.done == COUNT - FAILURES
    assert upgrade(str(old))
    assert not upgrade(str(old))
    assert told_of(old) == told_of(one.folder)
    assert_done_again(one, old, times=0)


def test_a_damaged_line_of_version_0_1_0_is_done_again(one: Made, place: Callable[[], Path]) -> None:
    old = one.copy(place(), aged=True)
    lines = one.lines
    make_old(old, lines)
    lines = [old_form(line) for line in lines]
    first, second, third = (number for number in finished(lines)[:3])
    lines[first] = text_of(without(json.loads(lines[first]), ("mtime_ns",)))
    lines[second] = text_of(with_other(json.loads(lines[second]), ("leads", 0), 5))
    lines[third] = text_of(without(json.loads(lines[third]), ("size",)))
    write_lines(old, lines)
    assert_done_again(one, old, times=3)


# run.json.


def run_json_of(folder: Path) -> Path:
    return folder / "_run" / "run.json"


def usable(content: bytes) -> RunRecord | ECGFounderError:
    """A record, and all that is made of it; or the error."""

    def use() -> RunRecord:
        record = RunRecord.parse(content, "run.json")
        assert RunRecord.parse(orjson.dumps(record.as_dict()), "again") == record
        record.form  # noqa: B018 - it may be refused
        return record

    what: RunRecord | ECGFounderError = survives(use)
    return what


def test_whatever_stands_in_run_json_is_a_record_or_a_clear_error(made: dict[str, Made]) -> None:
    one = made["json"]
    content = run_json_of(one.folder).read_bytes()
    assert usable(text_of(json.loads(content))) == RunFolder(one.folder).read()
    for at, text in every_wrong_line(content, VALUES):
        what = usable(text)
        assert isinstance(what, RunRecord | RunError), at
        assert not isinstance(what, RunError) or "run.json" in str(what)


@st.composite
def damaged_record(draw: st.DrawFn, content: bytes) -> bytes:
    """A run.json after one to three accidents."""
    raw = json.loads(content)
    others = st.sampled_from(VALUES) | st.text(max_size=3).filter(lambda text: "/" not in text) | st.integers()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from(list(places_in(raw))[1:]))
        raw = without(raw, at) if draw(st.integers(0, 3)) == 0 else with_other(raw, at, draw(others))
    return text_of(raw)


@given(form=st.sampled_from(list(FORMS)), data=st.data())
@examples(15)
def test_a_run_with_a_damaged_run_json_can_be_used_or_says_why_not(
    made: dict[str, Made], place: Callable[[], Path], form: str, data: st.DataObject
) -> None:
    one = made[form]
    damaged = one.copy(place(), aged=True)
    run_json_of(damaged).write_bytes(data.draw(damaged_record(run_json_of(damaged).read_bytes())))
    with mock.patch.object(sources, "_load", side_effect=CohortError("there is no network here")):
        use_in_every_way(one, damaged)
    shutil.rmtree(damaged.parent)


SETTINGS = {
    "dataset": [
        "",
        "gone",
        "/gone",
        "../gone",
        "s3://bucket/x",
        "http://x/y",
        "file://other/x",
        "a\0b",
        "memory://fuzz/empty",
        None,
    ],
    "data_dir": ["", "gone", "/gone", "..", "s3://bucket/x", "a\0b", None],
    "path_column": ["", "gone", "site", "a\0b", None],
    "id_column": ["", "gone", "site", "ecg_paths", None],
    "keep_columns": [["gone"], ["site", "site"], ["id"], [""], ["record"], ["status"], ["ecg_paths"], [], None],
    "split": ["", "gone", None],
    "shards": [0, -1, 2**63, None],
    "batch_size": [0, -1, 2**63, None],
}


@pytest.mark.parametrize("form", ["json", "identifiers"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_that_was_told_something_else_is_merged_or_says_why_not(
    made: dict[str, Made], place: Callable[[], Path], name: str, form: str
) -> None:
    one = made[form]
    damaged = one.copy(place(), aged=True)
    raw = json.loads(run_json_of(damaged).read_bytes())
    for value in SETTINGS[name]:
        run_json_of(damaged).write_bytes(text_of(with_other(raw, ("settings", name), value)))
        with mock.patch.object(sources, "_load", side_effect=CohortError("there is no network here")):
            survives(lambda: merge(str(damaged)))
        look_through(damaged)
    run_json_of(damaged).write_bytes(text_of(raw))
    assert_done_again(one, damaged, times=0)


CONTENTS = [
    b"",
    b" ",
    b"null",
    b"[]",
    b"{",
    b"{}",
    b"\0" * 100,
    b"\xff",
    b'"x"',
    b"1",
    b'{"fingerprint":{}}',
    b'{"settings":{}}',
]


@pytest.mark.parametrize("content", CONTENTS)
def test_a_run_json_that_is_none_is_refused_by_its_name_and_left_alone(
    made: dict[str, Made], place: Callable[[], Path], content: bytes
) -> None:
    one = made["json"]
    damaged = one.copy(place(), aged=True)
    run_json_of(damaged).write_bytes(content)
    before = content_of(damaged)
    for work in users_ways(one, damaged):
        with pytest.raises(RunError, match=r"run\.json"):
            work()
    changed_since = {name for name, what in content_of(damaged).items() if before.get(name) != what}
    assert not {name for name in changed_since if not name.startswith("_run/locks/")}
    assert one.start(damaged, overwrite=True).outcome == "complete"
    assert_whole(one, damaged)


def users_ways(one: Made, folder: Path) -> list[Callable[[], Any]]:
    return [
        one.run(folder).preview,
        lambda: open_run(folder),
        lambda: open_run(folder, allow_incomplete=True),
        lambda: merge(str(folder)),
        lambda: upgrade(str(folder)),
        lambda: one.start(folder),
    ]


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 1_000_000, 2**63, 2**64 - 1])
@pytest.mark.parametrize("program", [{"name": "ecgfounder", "version": "7.8.9"}, {"version": "7.8.9", "more": [1]}])
def test_a_newer_format_is_refused_with_both_versions(
    made: dict[str, Made], place: Callable[[], Path], version: int, program: Json
) -> None:
    one = made["json"]
    newer = one.copy(place(), aged=True)
    raw = json.loads(run_json_of(newer).read_bytes())
    run_json_of(newer).write_bytes(
        text_of({**raw, "format_version": version, "program": program, "settings": "unknown"})
    )
    before = content_of(newer)
    for work in users_ways(one, newer):
        with pytest.raises(RunError, match=r"run\.json") as refused:
            work()
        for part in ("7.8.9", __version__, f"format_version {version}", f"format_version {FORMAT_VERSION}"):
            assert part in str(refused.value)
    after = content_of(newer)
    assert {name: after[name] for name in before if "/locks/" not in name} == {
        name: before[name] for name in before if "/locks/" not in name
    }


def test_a_format_that_is_no_number_is_refused(made: dict[str, Made]) -> None:
    raw = json.loads(run_json_of(made["json"].folder).read_bytes())
    programs: list[Json] = [None, [], "x", {}, {"version": None}, {"version": [1]}]
    for version, program in itertools.product(("3", 2.5, None, [], {}, True, False, 2**70), programs):
        with pytest.raises(RunError, match=r"run\.json"):
            RunRecord.parse(text_of({**raw, "format_version": version, "program": program}), "run.json")
