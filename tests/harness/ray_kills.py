"""Runs on a cluster of this machine whose workers, machines and drivers are killed at random, and that are started again.

In: a seed. Out: each run with what was killed; an error at the first record that is lost, doubled or changed. With `--started`,
the machines are `ray start` processes.

    python -m tests.harness.ray_kills --kills 100 --seed 1 --portion 1/4
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ecgfounder.demo.demo import write_demo_checkpoint
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.storage import Location, locate, storage_options
from tests.builders.cohorts import write_cohort
from tests.harness import store_faults
from tests.harness.object_server import ObjectServer, program, running
from tests.harness.outputs import json_outputs
from tests.harness.ray_runs import COMPLETE, REFUSED, Driver, Machines, cluster, workers
from tests.harness.ray_started import Started, started

COUNT, FAILED = 61, 2
LONGEST_PAUSE = 6.0


@dataclass
class _Script:
    """What all runs of the script share."""

    seed: int
    folder: Path
    machines: Machines | Started
    server: ObjectServer | None
    expected: dict[str, Any] = field(default_factory=dict)
    killed: Counter[str] = field(default_factory=Counter)
    _added: list[Any] = field(default_factory=list)

    def given(self, out: str, form: str) -> dict[str, Any]:
        return {
            "dataset": str(self.folder / "cohort"),
            "output_dir": out,
            "checkpoint": str(self.folder / "weights.pth"),
            "leads": list(STANDARD_LEADS),
            "format": form,
            "num_workers": 0,
        }

    def begin(self, given: dict[str, Any], **more: Any) -> Driver:
        return Driver(given | more, self.folder, ECGFOUNDER_CACHE=str(self.folder / "cache"))

    def expect(self, form: str) -> None:
        out = self.folder / f"expected-{form}"
        local = self.begin(self.given(str(out), form))
        assert local.end() == COMPLETE, local.said
        self.expected[form] = self.result(locate(out), form)

    def result(self, out: Location, form: str) -> Any:
        if not out.is_local:
            return store_faults.json_objects(out) if form == "json" else store_faults.rows_of_shards(out)
        if form == "json":
            return json_outputs(out.path)
        tables = [pq.read_table(shard) for shard in sorted(out.path.glob("*.parquet"))]
        return sorted(pa.concat_tables(tables).to_pylist(), key=lambda row: row["key"])

    def run(self, number: int, most: int) -> int:
        """One run, started until it is complete; how many kills there were."""
        chance = random.Random(self.seed * 100_003 + number)
        form = chance.choice(("json", "parquet"))
        in_bucket = self.server is not None and chance.random() < 0.5
        given, out = self._place(number, form, in_bucket)
        kills: list[str] = []
        wanted = min(most, chance.randint(3, 8))
        starts = 0
        while True:
            starts += 1
            assert starts < 40, "it does not end"
            driver = self.begin(
                given,
                driver="ray",
                ray_address=self.machines.address,
                group_size=chance.choice((3, 8)),
                filters={"slow": chance.choice((0.05, 0.2))},
            )
            while driver.process.poll() is None:
                time.sleep(chance.uniform(0.0, LONGEST_PAUSE))
                if driver.process.poll() is None and len(kills) < wanted:
                    kills += self._kill(chance, driver)
            status = driver.end()
            if status == COMPLETE:
                break
            assert status in (-signal.SIGKILL, REFUSED), driver.said[-3000:]
        where = "bucket" if in_bucket else "folder"
        print(f"run {number}: {form}, {where}, {starts} starts, killed: {', '.join(kills)}", flush=True)
        assert self.result(out, form) == self.expected[form], "records are lost, doubled or changed"
        if in_bucket:
            store_faults.check_sealed(out, COUNT - FAILED, FAILED)
        self.killed.update(kills)
        return len(kills)

    def _place(self, number: int, form: str, in_bucket: bool) -> tuple[dict[str, Any], Location]:
        if not in_bucket:
            out = self.folder / f"out-{number}"
            return self.given(str(out), form), locate(out)
        assert self.server is not None
        url = f"s3://{self.server.new_bucket()}/study"
        names = {"access_key_id": "AWS_ACCESS_KEY_ID", "secret_access_key": "AWS_SECRET_ACCESS_KEY"}
        names |= {"region": "AWS_REGION", "endpoint": "AWS_ENDPOINT_URL"}
        options = {name: self.server.environment[variable] for name, variable in names.items()} | {"allow_http": "true"}
        return self.given(url, form) | {"storage_options": options}, locate(url, storage_options(options))

    def _kill(self, chance: random.Random, driver: Driver) -> list[str]:
        """Kill something; what it was."""
        what = chance.choice(("worker", "worker", "driver", "machine"))
        if what == "worker":
            found = workers(self.machines.address)
            if not found:
                return []
            with suppress(ProcessLookupError):
                os.kill(chance.choice(found), signal.SIGKILL)
        elif what == "driver":
            driver.kill()
        else:
            lost = bool(self._added)
            if lost:
                self.machines.lose(self._added.pop())
            try:
                self._added.append(self.machines.add(1))
            except Exception as error:  # noqa: BLE001 - Ray raises nothing narrower
                print(f"no machine was added: {error}", file=sys.stderr)
            return [what] if lost else []
        return [what]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.harness.ray_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--portion", default="1/1", help="I/N: the I-th of N portions")
    parser.add_argument("--started", action="store_true", help="machines are `ray start` processes")
    arguments = parser.parse_args()
    part, parts = map(int, arguments.portion.split("/"))
    most = -(-arguments.kills // parts)
    began = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_cohort(folder / "cohort", COUNT)
        write_demo_checkpoint(folder / "weights.pth")
        weed = program()
        server = None
        if weed is None:
            print("SeaweedFS is not installed: runs to folders alone", file=sys.stderr)
        else:
            server = stack.enter_context(running(Path(stack.enter_context(tempfile.TemporaryDirectory())), weed))
        machines = stack.enter_context(started(1, 1) if arguments.started else cluster(1, 1))
        script = _Script(arguments.seed, folder, machines, server)
        for form in ("json", "parquet"):
            script.expect(form)
        count, number = 0, part
        while count < most:
            count += script.run(number, most - count)
            number += parts
        print(
            f"{count} kills ({dict(script.killed)}): no record lost, doubled or changed; {time.monotonic() - began:.0f} s"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
