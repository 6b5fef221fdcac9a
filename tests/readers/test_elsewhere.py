"""What is read is read alike wherever it lies: files of recordings, cohorts, runs, shards to be compacted."""

from __future__ import annotations

import gzip
import uuid
from pathlib import Path

import numpy as np
import pytest

from ecgfounder.cohort.sources import ecg_files, open_cohort
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.errors import ReadError, RunError
from ecgfounder.ledger.compaction import compact, remove_orphans
from ecgfounder.ledger.entry import line_of
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.ledger import read_ledger
from ecgfounder.readers import make_source, read_ecg
from ecgfounder.readers.identity import companions_of, identity_of
from ecgfounder.readers.source import Hints
from ecgfounder.results import open_run, read_embedding
from ecgfounder.storage import Location, locate
from tests.builders.entries import entry_of
from tests.builders.runs import FORMS, PATHS, Made

HINTS = Hints(500.0, "mV", STANDARD_LEADS)


@pytest.fixture
def elsewhere() -> Location:
    return locate(f"memory://{uuid.uuid4().hex}/data")


def copied(folder: Path, place: Location) -> Location:
    """Every file of a folder in another store."""
    for path in folder.rglob("*"):
        if path.is_file():
            (place / str(path.relative_to(folder))).put(path.read_bytes())
    return place


def write_recordings(folder: Path) -> list[str]:
    """A recording in forms that are read whole, with companions, by pieces and unpacked; their names."""
    h5py = pytest.importorskip("h5py", reason="the extra [hdf5] is not installed")
    samples = (np.random.default_rng(3).standard_normal((12, 600)) * 300).astype(np.int16)
    (folder / "wfdb").mkdir()
    (folder / "wfdb" / "r.dat").write_bytes(samples.T.astype("<i2").tobytes())
    signals = "".join(
        f"r.dat 16 200 16 0 {row[0]} 0 0 {lead}\n" for lead, row in zip(STANDARD_LEADS, samples, strict=True)
    )
    (folder / "wfdb" / "r.hea").write_text(f"r 12 500 600\n{signals}")
    np.save(folder / "a.npy", samples / np.float32(200))
    (folder / "b.npy.gz").write_bytes(gzip.compress((folder / "a.npy").read_bytes()))
    with h5py.File(folder / "exams.hdf5", "w") as file:
        file["tracings"] = np.stack([samples.T, samples.T]) / np.float32(200)
    return ["wfdb/r.hea", "wfdb/r", "wfdb/r.dat", "a.npy", "b.npy.gz", "exams.hdf5::tracings/1"]


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
    assert there.tag == sources[1].location.status().tag
    assert companions_of(sources[1], there.companions) == sources[1].companions


def test_what_is_not_there_is_a_read_error_with_its_place(elsewhere: Location) -> None:
    with pytest.raises(ReadError, match=r"memory://.*/gone\.xml: No such file"):
        read_ecg(f"{elsewhere}/gone.xml")


def test_a_folder_of_recordings_is_listed_alike_in_any_store(tmp_path: Path, elsewhere: Location) -> None:
    write_recordings(tmp_path)
    for name in (".hidden/x.xml", "_run/y.xml", "z.txt", "notes.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    copied(tmp_path, elsewhere)
    expected = ["a.npy", "b.npy.gz", "exams.hdf5", "z.txt", "wfdb/r.hea"]
    assert [path.removeprefix(f"{tmp_path}/") for path in ecg_files(tmp_path)] == expected
    assert [path.removeprefix(f"{elsewhere}/") for path in ecg_files(elsewhere)] == expected
    assert [record.path for record in open_cohort(elsewhere).records()] == list(ecg_files(elsewhere))


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
