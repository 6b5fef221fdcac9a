"""The fuzz run: thousands of damaged files of every format, each read or refused within a second and little memory.

    python -m tests.harness.fuzz --count 20000 --seed 1

In: the originals of `tests/builders/originals.py`, the real files of --real among them. Out: a table by format, and status 1
if any file was not read or refused as promised; its damaged copy is kept in --keep.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.builders.originals import Original, built, real
from tests.harness.mutations import is_read_or_refused, mutations
from tests.places import RECORDINGS

MEMORY_LIMIT = 4 << 30


@dataclass
class Tally:
    """What came of the damaged copies of one format."""

    outcomes: Counter[str] = field(default_factory=Counter)  # read, refused, failed
    slowest: float = 0.0
    peak_bytes: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.outcomes += other.outcomes
        self.slowest = max(self.slowest, other.slowest)
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)
        self.failures += other.failures


def fuzz(original: Original, count: int, seed: int, keep: Path | None = None) -> Tally:
    """Read `count` damaged copies of one original; of several files that belong together, one is damaged each time."""
    tally = Tally()
    chance = random.Random(f"{seed} {original.format} {original.name}")
    names = sorted(original.files)
    with TemporaryDirectory() as folder:
        path = original.write(Path(folder))
        assert is_read_or_refused(path, original.hints, original.reader), "the original itself is refused"
        for number in range(count):
            original.write(Path(folder))
            damaged = chance.choice(names)
            copy = original.repaired(next(mutations(original.files[damaged], 1, chance.getrandbits(64))))
            (Path(folder) / damaged).write_bytes(copy)
            begin = time.perf_counter()
            try:
                outcome = "read" if is_read_or_refused(path, original.hints, original.reader) else "refused"
            except Exception as error:  # noqa: BLE001 - what must not happen, and is reported
                outcome = "failed"
                tally.failures.append(
                    f"{original.format}, {original.name}: {type(error).__name__}: {str(error).replace(path, '')}"
                )
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{original.format}-{seed}-{number}-{damaged}").write_bytes(copy)
            tally.slowest = max(tally.slowest, time.perf_counter() - begin)
            tally.outcomes[outcome] += 1
    tally.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return tally


def _share(
    originals: Sequence[Original], count: int, seed: int, keep: Path | None, answer: Connection[Tally, None]
) -> None:
    """One format, in a process of its own: of low priority, and with an end to its memory."""
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    tally = Tally()
    for number, original in enumerate(originals):
        share = count // len(originals) + (number < count % len(originals))
        tally.add(fuzz(original, share, seed, keep))
    answer.send(tally)


def _in_own_process(originals: Sequence[Original], count: int, seed: int, keep: Path | None) -> Tally:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_share, args=(originals, count, seed, keep, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        crash = f"{originals[0].format}: the process died (status {process.exitcode})"
        return Tally(Counter(failed=1), failures=[crash])
    finally:
        process.join()


def run(originals: Sequence[Original], count: int, seed: int, processes: int, keep: Path | None) -> dict[str, Tally]:
    """Fuzz all formats, each as often as the others, whatever the number of its originals."""
    formats = sorted({original.format for original in originals})
    with ThreadPoolExecutor(processes) as pool:
        waiting = {
            name: pool.submit(
                _in_own_process,
                [original for original in originals if original.format == name],
                count // len(formats) + (number < count % len(formats)),
                seed,
                keep,
            )
            for number, name in enumerate(formats)
        }
        return {name: future.result() for name, future in waiting.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description="Read damaged files of every format.")
    parser.add_argument("--count", type=int, default=20_000, help="damaged files over all formats (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--real", type=Path, default=RECORDINGS, help="folder of real recordings to damage too, if there"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, help="folder for copies that were not read or refused as promised")
    options = parser.parse_args()
    originals = built() + (real(options.real) if options.real.is_dir() else [])
    begin = time.perf_counter()
    tallies = run(originals, options.count, options.seed, options.processes, options.keep)
    print(f"{'format':16}{'files':>8}{'read':>8}{'refused':>9}{'failed':>8}{'slowest':>11}{'peak memory':>14}")
    for name, tally in sorted(tallies.items()):
        counts = "".join(
            f"{tally.outcomes[kind]:>{width}}" for kind, width in (("read", 8), ("refused", 9), ("failed", 8))
        )
        print(
            f"{name:16}{tally.outcomes.total():>8}{counts}{tally.slowest * 1e3:>8.0f} ms{tally.peak_bytes >> 20:>10} MiB"
        )
    failures = Counter(failure for tally in tallies.values() for failure in tally.failures)
    total = sum(tally.outcomes.total() for tally in tallies.values())
    print(f"{total} damaged copies of {len(originals)} files, seed {options.seed}, {time.perf_counter() - begin:.0f} s")
    for failure, times in failures.most_common(50):
        print(f"{times} times: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
