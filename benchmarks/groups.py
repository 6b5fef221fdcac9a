"""What one driver of a distributed run costs: thousands of groups planned, committed by workers that do nothing, and resumed.

In: numbers of groups, records in each. Out: seconds, core-seconds and memory of the driver, for a new run and one that finds all
done.

    python -m benchmarks.groups --groups 10000 100000 --records 10

Parts of the ledger and (empty) shards are written to a store in memory, whose size is told apart.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from ecgfounder.distributed import Facts, Group, Outcome, Work
from ecgfounder.ecg.facts import Identity
from ecgfounder.ledger.entry import Commitment, Entry, PartEnd, PartHeader, key_text
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.groups.writer import GROUP, part_content, publish_part
from ecgfounder.ledger.liveness import own_name
from ecgfounder.run.choice import make_run
from ecgfounder.run.settings import Settings
from ecgfounder.storage import Location
from ecgfounder.storage.memory import MemoryStore

FACTS = Facts(host="here", pid=1, engine="null", precision="float32", device="cpu", description="null", batch_size=8)


class Quiet:
    """A console that says nothing."""

    def line(self, text: str) -> None: ...

    def progress(self, done: int, failed: int, total: int, detail: str = "") -> None: ...


def commit(work: Work, groups: Iterator[Group]) -> Iterator[Outcome]:
    """Publish each group's part, as a worker does, for recordings that nobody reads."""
    ledger = RunFolder(work.output_dir).ledger
    for group in groups:
        shard = f"embeddings-{work.epoch.prefix}-group{group.number:06d}-000000-{group.number:08x}.parquet"
        entries = [
            Entry(
                key=key_text(job.key),
                record=job.record,
                status="done",
                output=f"{shard}::{key_text(job.key)}",
                shard=shard,
                shape=(1024,),
                input=Identity(size=100_000, mtime_ns=1, sha256="0" * 64),
            )
            for job in group.jobs
        ]
        (work.output_dir / shard).put(b"")
        header = PartHeader(**own_name(), attempt=uuid.uuid4().hex)
        lines = [*entries, Commitment(shard, len(entries), len(entries))]
        content = part_content(header, lines, PartEnd(done=len(entries)))
        publish_part(ledger, work.epoch, GROUP, group.number, content)
        yield Outcome(number=group.number, facts=FACTS, published=True, done=len(entries))


def measure(groups: int, records: int) -> dict[str, float]:
    """One run of so many groups, and a second attempt that finds all done."""
    with tempfile.TemporaryDirectory() as folder:
        cohort, weights = Path(folder) / "cohort.txt", Path(folder) / "weights.pth"
        cohort.write_text("\n".join(f"p{number // 1000:04d}/s{number:08d}.xml" for number in range(groups * records)))
        weights.write_bytes(b"weights")
        settings = Settings(
            dataset=str(cohort),
            data_dir=folder,
            output_dir=Location(MemoryStore(uuid.uuid4().hex), "run"),
            checkpoint=str(weights),
            format="parquet",
            driver="called",
            carrier=commit,
            group_size=records,
            shard_size=records,
        )
        seconds, cores = [], []
        for processed in (groups * records, 0):
            began, used = time.perf_counter(), time.process_time()
            summary = make_run(settings, Quiet()).execute()
            seconds.append(time.perf_counter() - began)
            cores.append(time.process_time() - used)
            assert (summary.processed, summary.outcome) == (processed, "complete")
        assert isinstance(settings.output_dir, Location)
        held = sum(status.size for status in settings.output_dir.list())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "groups": groups,
        "records": groups * records,
        "seconds": round(seconds[0], 1),
        "seconds_to_resume": round(seconds[1], 1),
        "core_seconds": round(cores[0], 1),
        "core_seconds_to_resume": round(cores[1], 1),
        "peak_mb": round(peak / 1e6),
        "store_mb": round(held / 1e6),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.groups", description=__doc__)
    parser.add_argument("--groups", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--records", type=int, default=10, help="recordings in a group")
    parser.add_argument("--one", action="store_true", help="measure in this process")
    chosen = parser.parse_args()
    for groups in chosen.groups:
        if chosen.one:
            print(json.dumps(measure(groups, chosen.records)))
            continue
        command = [
            sys.executable,
            "-m",
            "benchmarks.groups",
            "--one",
            f"--groups={groups}",
            f"--records={chosen.records}",
        ]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
