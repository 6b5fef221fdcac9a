"""The writing end: a record has an entry when its output is safe, and the entry says all that was found out of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from ecgfounder.ecg.facts import Facts, Identity
from ecgfounder.errors import PrepareError
from ecgfounder.ledger.entry import Commitment, Entry, Line, key_text, unpacked
from ecgfounder.ledger.ledger import LedgerWriter, lines_of
from ecgfounder.network.head import Head, pooled
from ecgfounder.sinks.json import JsonSink
from ecgfounder.sinks.parquet import ParquetSink
from ecgfounder.sinks.sink import Output, ShardWritten, Written
from ecgfounder.stages.batch import Batch
from ecgfounder.stages.collect import Finished, Gathering, collect, give_up
from ecgfounder.stages.embed import NOT_FINITE, EmbedStage
from ecgfounder.stages.pooling import InputEmbedding, pooling_of
from ecgfounder.stages.read import Failed, Job, Opened
from ecgfounder.stages.record import Recorder
from ecgfounder.storage import locate
from tests.builders.entries import HEADER

PREFIX = "00000000000000000001-shard1of1-rank0of1"
FACTS = Facts(
    format="numpy", sampling_rate=500.0, n_samples=600, leads=("I", "II"), flags=("too_short",), starts=(0.0,)
)
IDENTITY = Identity(size=10, mtime_ns=7, sha256="ab" * 32)


def job(place: int = 0, **more: object) -> Job:
    name = f"{place}.npy"
    return Job(place, f"/data/{name}", key=place + 1, record=name, title=name, output=f"{place}.json", **more)  # type: ignore[arg-type]


def done(place: int = 0, *views: InputEmbedding, **more: object) -> Finished:
    kept = views or (InputEmbedding(np.full((3, 4), place, dtype=np.float32)),)
    outer = (len(kept),) if len(kept) > 1 else ()
    seconds = {"read": 1.0, "embed": 2.0}
    return Finished(job(place, **more), kept, outer, facts=FACTS, identity=IDENTITY, seconds=seconds)


def failed(place: int = 0, **more: object) -> Finished:
    return Finished(job(place, **more), None, (), "ReadError", "damaged", FACTS, IDENTITY, {"read": 1.0})


@dataclass
class Sink:
    """Says what a test tells it to."""

    answers: list[Sequence[Written | ShardWritten]] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)

    def write(self, outputs: Sequence[Output]) -> list[Written | ShardWritten]:
        self.outputs += outputs
        return list(self.answers.pop(0)) if self.answers else [Written(output, output.name) for output in outputs]

    def close(self) -> list[Written | ShardWritten]:
        return []


@pytest.fixture
def ledger(tmp_path: Path) -> LedgerWriter:
    return LedgerWriter(tmp_path / "1.jsonl", HEADER)


def lines(ledger: LedgerWriter) -> list[Line]:
    return [line for _, line in lines_of(locate(ledger.path))]


def test_a_finished_record_becomes_its_output_and_an_entry_with_all_that_is_known(
    tmp_path: Path, ledger: LedgerWriter
) -> None:
    recorder = Recorder(JsonSink(tmp_path, tmp_path), ledger)
    recorder.finish([done(5, path_key=77)])
    (entry,) = lines(ledger)
    assert isinstance(entry, Entry)
    assert entry.seconds["write"] > 0
    assert entry == Entry(
        key=key_text(6),
        record="5.npy",
        status="done",
        output="5.json",
        path=key_text(77),
        shape=(3, 4),
        input=IDENTITY,
        facts=FACTS,
        seconds={"read": 1.0, "embed": 2.0, "write": entry.seconds["write"]},
    )
    assert (tmp_path / "5.json").exists()
    assert (recorder.done, recorder.failed) == (1, 0)


def test_a_sink_is_told_all_that_an_output_needs(ledger: LedgerWriter) -> None:
    mean, other = (np.full(4, value, dtype=np.float32) for value in (1.5, 2.5))
    finished = done(
        3, InputEmbedding(np.zeros((3, 4), np.float32), mean), InputEmbedding(np.ones((3, 4), np.float32), other)
    )
    sink = Sink()
    Recorder(sink, ledger).finish([finished])
    (output,) = sink.outputs
    assert (output.key, output.record, output.title, output.name) == (key_text(4), "3.npy", "3.npy", "3.json")
    assert (output.order, output.outer_shape, output.embedding.shape) == (3, (2,), (2, 3, 4))
    assert np.array_equal(output.means, [mean, other])
    assert output.facts == FACTS
    (entry,) = lines(ledger)
    assert isinstance(entry, Entry)
    assert entry.shape == (2, 3, 4)


def test_a_failure_becomes_an_entry_with_its_reason_and_no_output(tmp_path: Path, ledger: LedgerWriter) -> None:
    recorder = Recorder(JsonSink(tmp_path / "none", tmp_path), ledger)
    recorder.finish([failed(2, path_key=9)])
    assert lines(ledger) == [
        Entry(
            key=key_text(3),
            record="2.npy",
            status="failed",
            path=key_text(9),
            input=IDENTITY,
            facts=FACTS,
            seconds={"read": 1.0},
            error="ReadError",
            reason="damaged",
            file="/data/2.npy",
        )
    ]
    assert (recorder.done, recorder.failed) == (0, 1)


def test_a_failure_says_which_files_were_absent_and_its_path_if_its_name_does_not(ledger: LedgerWriter) -> None:
    absent = give_up(None, Failed(job(0), "ReadError", "No such file", absent=("*.dat",)))
    assert absent is not None
    Recorder(Sink(), ledger).finish([absent, failed(1, path_key=9), done(2, path_key=10)])
    first, second, third = (entry for entry in lines(ledger) if isinstance(entry, Entry))
    assert (first.absent, first.file) == (("*.dat",), None)  # its name is its path
    assert (second.absent, second.file) == ((), "/data/1.npy")
    assert (third.absent, third.file) == ((), None)  # it is done


def test_a_failure_before_the_file_was_read_is_recorded_by_its_kind(ledger: LedgerWriter) -> None:
    recorder = Recorder(Sink(), ledger)
    recorder.refuse(job(1), PrepareError("no name for it: \udcff"))
    (entry,) = lines(ledger)
    assert isinstance(entry, Entry)
    assert (entry.status, entry.error, entry.reason) == ("failed", "PrepareError", "no name for it: \\xff")
    assert recorder.failed == 1


def test_a_record_of_a_shard_counts_when_the_shard_is_there_and_not_before(
    tmp_path: Path, ledger: LedgerWriter
) -> None:
    recorder = Recorder(ParquetSink(tmp_path, tmp_path, prefix=PREFIX, shard_size=2), ledger)
    recorder.finish([done(0)])
    assert (lines(ledger), recorder.done) == ([], 0)
    recorder.finish([done(1), failed(2), done(3)])
    shard = f"embeddings-{PREFIX}-000000.parquet"
    failure, first, second, commitment = lines(ledger)
    assert isinstance(failure, Entry)
    assert failure.status == "failed"
    assert [line.output for line in (first, second) if isinstance(line, Entry)] == [
        f"{shard}::{key_text(1)}",
        f"{shard}::{key_text(2)}",
    ]
    assert [line.shard for line in (first, second) if isinstance(line, Entry)] == [shard, shard]
    assert commitment == Commitment(shard, rows=2, records=2)
    assert (recorder.done, recorder.failed) == (2, 1)
    recorder.close()
    assert recorder.done == 3
    assert isinstance(lines(ledger)[-1], Commitment)
    recorder.close()
    assert len(lines(ledger)) == 6


def test_an_output_that_cannot_have_its_name_is_a_failure_that_says_so(ledger: LedgerWriter) -> None:
    sink = Sink()
    recorder = Recorder(sink, ledger)
    records = [done(0), done(1, replaces="1.json")]
    good, bad = (Output(key_text(n + 1), f"{n}.npy", "", f"{n}.json", (), receipt=records[n]) for n in (0, 1))
    sink.answers.append([Written(good, "0.json"), Written(bad, "1.json", error="the name is too long")])
    recorder.finish(records)
    first, second = lines(ledger)
    assert isinstance(first, Entry)
    assert isinstance(second, Entry)
    assert (first.status, second.status) == ("done", "failed")
    assert (second.error, second.reason, second.removes) == ("OutputError", "the name is too long", "1.json")
    assert (recorder.done, recorder.failed) == (1, 1)
    assert recorder.take_obsolete() == ["1.json"]


def test_outputs_of_records_that_fail_now_are_handed_out_once_and_others_never(ledger: LedgerWriter) -> None:
    recorder = Recorder(Sink(), ledger)
    recorder.finish([failed(0, replaces="0.json"), done(1, replaces="1.json"), failed(2)])
    assert recorder.take_obsolete() == ["0.json"]
    assert recorder.take_obsolete() == []
    assert [line.removes for line in lines(ledger) if isinstance(line, Entry)] == ["0.json", None, None]


def test_nothing_is_recorded_of_what_could_not_be_written(ledger: LedgerWriter) -> None:
    class Full(Sink):
        def write(self, outputs: Sequence[Output]) -> list[Written | ShardWritten]:
            raise OSError(28, "No space left on device")

    recorder = Recorder(Full(), ledger)
    with pytest.raises(OSError, match="No space"):
        recorder.finish([done(0), failed(1)])
    assert lines(ledger) == []
    assert (recorder.done, recorder.failed) == (0, 0)


def test_nothing_is_obsolete_before_the_ledger_says_so(ledger: LedgerWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(Sink(), ledger)

    def torn(_lines: Sequence[Line]) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(ledger, "append", torn)
    with pytest.raises(OSError, match="Input/output"):
        recorder.finish([failed(0, replaces="0.json")])
    assert recorder.take_obsolete() == []
    assert recorder.failed == 0


def test_the_seconds_of_writing_are_shared_by_the_records_that_they_made_safe(
    ledger: LedgerWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 10.0, 16.0, 20.0, 22.0])
    monkeypatch.setattr("ecgfounder.stages.record.time.perf_counter", lambda: next(clock))
    shard = f"embeddings-{PREFIX}-000000.parquet"
    outputs = [Output(key_text(n + 1), f"{n}.npy", "", "", (), receipt=done(n)) for n in range(4)]
    safe = [Written(each, f"{shard}::{each.key}", shard) for each in outputs[:2]]
    bad = Written(outputs[2], "", error="the name is too long")
    last = Written(outputs[3], "3.json")
    recorder = Recorder(Sink([[], [*safe, bad, ShardWritten(shard, 2, 2)], [last]]), ledger)
    for place in (0, 1, 3):
        recorder.finish([done(place)])
    seconds = [line.seconds.get("write") for line in lines(ledger) if isinstance(line, Entry)]
    assert seconds == [3.5, 3.5, None, 2.0]


def test_probabilities_of_every_input_go_into_the_entry(ledger: LedgerWriter) -> None:
    rows = [np.random.default_rng(n).random(150, dtype=np.float32) for n in range(2)]
    views = [InputEmbedding(np.zeros((3, 4), np.float32), None, row) for row in rows]
    facts = Facts(starts=(0.0, 1.0), leads=("I",))
    Recorder(Sink(), ledger).finish([Finished(job(), tuple(views), (2,), facts=facts)])
    (entry,) = lines(ledger)
    assert isinstance(entry, Entry)
    assert entry.probabilities is not None
    assert np.array_equal([unpacked(text) for text in entry.probabilities], rows)


def test_groups_from_several_threads_are_all_recorded(ledger: LedgerWriter) -> None:
    recorder = Recorder(Sink(), ledger)
    threads = [
        threading.Thread(target=lambda n=n: [recorder.finish([done(10 * n + k)]) for k in range(10)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.done == 40
    assert {line.record for line in lines(ledger) if isinstance(line, Entry)} == {f"{n}.npy" for n in range(40)}


# --- a value that is not finite ---------------------------------------------------------------------------------------


class Maps:
    """A network whose maps [T, 4] have one value that is not finite, in one row of a batch."""

    threads = 1

    def __init__(self, row: int, value: float) -> None:
        self.row, self.value = row, value

    def embed(self, batch: np.ndarray) -> np.ndarray:
        maps = np.zeros((len(batch), 3, 4), dtype=np.float32)
        maps[self.row, 2, 3] = self.value
        return maps


class Pooling(Maps):
    """A network that pools itself, and counts what it was asked for."""

    def __init__(self) -> None:
        super().__init__(1, np.nan)
        self.asked: list[str] = []

    def embed(self, batch: np.ndarray) -> np.ndarray:
        self.asked.append("maps")
        return super().embed(batch)

    def means(self, batch: np.ndarray) -> np.ndarray:
        self.asked.append("means")
        return np.stack([pooled(feature_map) for feature_map in super().embed(batch)])

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        self.asked.append("memory")
        return np.empty(shape, np.float32)


@pytest.mark.parametrize("pooling", ["none", "mean", "both"])
@pytest.mark.parametrize("with_head", [False, True])
def test_a_network_that_pools_is_asked_for_means_if_nothing_else_is_kept(pooling: str, with_head: bool) -> None:
    head = Head(np.ones((2, 4), np.float32), np.zeros(2, np.float32)) if with_head else None
    network, batch = (
        Pooling(),
        Batch(np.zeros((2, 12, 50), np.float32), tuple((Gathering(Opened(job(0), 2)), n) for n in (0, 1))),
    )
    stage = EmbedStage.of(network, pooling, head)
    found = stage(batch)
    assert network.asked == ["means" if pooling == "mean" and not with_head else "maps"]
    assert [each.reason for each in found] == ["", NOT_FINITE]
    expected = EmbedStage(Maps(1, np.nan), pooling_of(pooling, head))(batch)
    assert found[0].kept is not None
    assert expected[0].kept is not None
    assert np.array_equal(found[0].kept.embedding, expected[0].kept.embedding)
    assert stage.empty((3, 4)).shape == (3, 4)
    assert network.asked[1:] == ["memory"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("pooling", ["none", "mean", "both"])
@pytest.mark.parametrize("window", [0, 1, 2])
def test_one_window_that_is_not_finite_fails_its_record_and_writes_nothing(
    tmp_path: Path, ledger: LedgerWriter, window: int, pooling: str, value: float
) -> None:
    gathering = Gathering(Opened(job(0), 3, (3,), FACTS, IDENTITY, {"read": 1.0}))
    other = Gathering(Opened(job(1), 1, ()))
    tags = [*((gathering, number) for number in range(3)), (other, 0)]
    rows = EmbedStage(Maps(window, value), pooling_of(pooling))(Batch(np.zeros((4, 12, 50), np.float32), tuple(tags)))
    finished = [each for row in rows if (each := collect(row)) is not None]
    recorder = Recorder(JsonSink(tmp_path / "out", tmp_path), ledger)
    (tmp_path / "out").mkdir()
    recorder.finish(finished)
    assert (recorder.done, recorder.failed) == (1, 1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1.json"]
    entry = next(line for line in lines(ledger) if isinstance(line, Entry) and line.status == "failed")
    assert (entry.record, entry.error, entry.reason) == ("0.npy", "EmbeddingError", NOT_FINITE)
    assert (entry.facts, entry.input, entry.seconds) == (FACTS, IDENTITY, {"read": 1.0})


# --- what belongs to one record ---------------------------------------------------------------------------------------


def test_what_is_known_of_a_file_stays_with_its_failure_whoever_knows_it() -> None:
    gathering = Gathering(Opened(job(0), 2, (2,), FACTS, IDENTITY))
    bare = Failed(job(0), "ReadError", "the reading process died")
    told = give_up(gathering, bare)
    assert told is not None
    assert (told.facts, told.identity, told.kind) == (FACTS, IDENTITY, "ReadError")
    assert give_up(gathering, bare) is None  # it is over
    later = Failed(job(0), "ReadError", "damaged", Facts(format="edf"), Identity(size=1, mtime_ns=2))
    told = give_up(Gathering(Opened(job(0), 2, (2,), FACTS, IDENTITY)), later)
    assert told is not None
    assert (told.facts, told.identity) == (later.facts, later.identity)
    assert give_up(None, bare) == Finished(job(0), kind="ReadError", reason="the reading process died")
