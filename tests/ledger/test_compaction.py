"""What a killed process leaves is removed, and shards and ledger are brought together, wherever they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ecgfounder.errors import RunError
from ecgfounder.ledger.compaction import compact, remove_orphans
from ecgfounder.ledger.entry import Line, line_of
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.ledger import LedgerState, LedgerWriter, read_ledger
from ecgfounder.results import read_embedding
from ecgfounder.sinks.sink import Output
from ecgfounder.storage import Location, locate
from tests.builders.elsewhere import copied
from tests.builders.entries import END, HEADER, entry_of, lines_from
from tests.builders.runs import PATHS, Made
from tests.builders.shards import embeddings, map_of, output_of, read, sink_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def state_of(folder: Path, *starts: list[Line]) -> LedgerState:
    """The state of a ledger with a part for each start."""
    ledger = folder.parent / "ledger"
    ledger.mkdir()
    for number, lines in enumerate(starts):
        part = LedgerWriter(ledger / f"{number}.jsonl", HEADER)
        part.append(lines)
        part.end(END)
    return read_ledger(locate(ledger))


def written(folder: Path, prefix: str, *outputs: Output, shard_size: int = 10) -> list[Line]:
    sink = sink_of(folder, prefix=prefix, shard_size=shard_size)
    return lines_from([*sink.write(outputs), *sink.close()])


def run_folder(folder: Path) -> RunFolder:
    made = RunFolder(folder)
    made.scratch.mkdir(parents=True, exist_ok=True)
    return made


def test_shards_that_no_ledger_commits_are_removed_and_nothing_else(folder: Path) -> None:
    prefixes = [f"{number:020d}-shard1of1-rank0of1" for number in range(3)]
    first = written(folder, prefixes[0], output_of(0), output_of(1))
    torn = written(folder, prefixes[1], output_of(2))[:-1]  # killed before the last line
    written(folder, prefixes[2], output_of(3))  # killed before any line
    (folder / "embeddings-mine.parquet").write_bytes(b"a user's own")
    state = state_of(folder, [*first, *torn])
    assert remove_orphans(locate(folder), state.committed) == 2
    assert sorted(path.name for path in folder.iterdir()) == [
        f"embeddings-{prefixes[0]}-000000.parquet",
        "embeddings-mine.parquet",
    ]
    assert len(state) == 2


def test_compaction_leaves_one_row_for_each_recording_that_is_done(folder: Path) -> None:
    first = written(folder, "1", *(output_of(number) for number in range(6)), shard_size=3)
    again = written(folder, "2", output_of(1, [map_of(101)]), output_of(3, [map_of(103)]))
    failed = entry_of(4, "failed", record="a/4.xml", error="ReadError", reason="gone")
    untouched = written(folder, "3", output_of(8))
    state = state_of(folder, first, [*again, failed, *untouched])
    before = (folder / "embeddings-3-000000.parquet").stat().st_mtime_ns
    assert compact(run_folder(folder), state) == 2
    rows = dict(zip((table := read(folder))["ecg_path"].to_pylist(), embeddings(table), strict=True))
    assert len(table) == len(rows)
    assert sorted(rows) == [f"a/{n}.xml" for n in (0, 1, 2, 3, 5, 8)]
    assert np.array_equal(rows["a/1.xml"], map_of(101))
    assert np.array_equal(rows["a/3.xml"], map_of(103))
    assert np.array_equal(rows["a/5.xml"], map_of(5))
    assert (folder / "embeddings-3-000000.parquet").stat().st_mtime_ns == before
    assert compact(run_folder(folder), state) == 0


def test_a_shard_of_which_nothing_is_left_goes_and_a_packed_one_stays_packed(folder: Path) -> None:
    first = written(folder, "1", output_of(0), output_of(1), shard_size=1)
    pair = written(folder, "2", output_of(2), output_of(3))
    again = written(folder, "3", output_of(0, [map_of(9)]), output_of(2, [map_of(9)]))
    state = state_of(folder, first, pair, again)
    assert compact(run_folder(folder), state) == 2
    names = sorted(path.name for path in folder.glob("*.parquet"))
    assert names == ["embeddings-1-000001.parquet", "embeddings-2-000000.parquet", "embeddings-3-000000.parquet"]
    group = pq.ParquetFile(folder / names[1]).metadata.row_group(0)
    encodings = {group.column(n).path_in_schema: group.column(n).encodings for n in range(group.num_columns)}
    assert "BYTE_STREAM_SPLIT" in encodings["embedding.list.element.list.element"]
    assert read(folder)["ecg_path"].to_pylist() == ["a/1.xml", "a/3.xml", "a/0.xml", "a/2.xml"]


def test_a_shard_that_is_gone_does_not_stop_compaction(folder: Path) -> None:
    first = written(folder, "1", output_of(0), output_of(1))
    (folder / "embeddings-1-000000.parquet").unlink()
    assert compact(run_folder(folder), state_of(folder, first)) == 0


def test_shards_elsewhere_are_brought_together_with_the_ledger(tmp_path: Path, elsewhere: Location) -> None:
    shard = "embeddings-00000000000000000001-shard1of1-rank0of1-000000.parquet"
    made = Made(tmp_path / "run", format="parquet", shard_size=4)
    made.sink = lambda: type(made).sink(made, "00000000000000000001-shard1of1-rank0of1")  # type: ignore[method-assign]
    run = copied(made.make(), elsewhere)
    (run / shard.replace("-000000", "-000007")).put((run / shard).read())  # never committed
    later = line_of(entry_of(made.key(PATHS[1]), "failed", record=PATHS[1], reason="damaged"))
    (run / "_run" / "ledger" / "00000000000000000002.jsonl").put(b'{"part":{}}\n' + later + b"\n")
    folder = RunFolder(run)
    state = read_ledger(folder.ledger)
    assert remove_orphans(run, state.committed) == 1
    assert compact(folder, state) == 1
    with pytest.raises(RunError, match="holds no row"):
        read_embedding(f"{run}/{shard}::{made.key(PATHS[1])}")
    assert read_embedding(f"{run}/{shard}::{made.key(PATHS[0])}").shape == (3, 6)
