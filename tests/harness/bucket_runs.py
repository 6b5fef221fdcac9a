"""Runs to a bucket of a real object store that are killed at chosen requests, or at chosen times, and started again.

In: settings, a gateway before the store. Out: exit statuses. Each start is forked from a process that has never used an object
store, because the client of object stores cannot be used after a fork.

    python -m tests.harness.bucket_runs --kills 200 --launch_kills 20 --faults 1000 --seed 1 --portion 1/4

kills that many starts, that many processes of launches, and injects that many faults in requests. It
prints each run, and ends with an error at the first record that is lost or doubled, and at the first object that is left over.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from ecgfounder.ledger.groups.lease import Intervals
from ecgfounder.run.settings import Settings
from ecgfounder.storage import Location, locate
from tests.builders.cohorts import settings_for, write_cohort
from tests.harness import store_faults
from tests.harness.faults import COMPLETE, CRASHED
from tests.harness.launches import Process, launch_of, program_flags, write_program
from tests.harness.object_server import Gateway, Request, Rule, Trouble, gateway_to, program, running
from tests.harness.store_faults import HERE, Machine, check_sealed

CHANGES = ("PUT", "POST", "DELETE")
DONE, FAILED = 19, 2
SLOW = Intervals(renew=0.5, stale=4.0, give_up=60.0, look=0.1)
"""For a store in which requests take long."""

_starter = multiprocessing.get_context("forkserver")
_starter.set_forkserver_preload(["tests.harness.store_faults"])


@dataclass(frozen=True)
class Kill:
    """A kill at the `at`-th request that changes the store, before it is passed on or after it is done; or after some seconds."""

    at: int = 0
    after: bool = False
    seconds: float | None = None


def _begin(settings: Settings, environment: dict[str, str], machine: Machine, intervals: Intervals) -> None:
    os.environ.update(environment)
    store_faults.run_here(settings, machine, intervals)


def run_in_bucket(
    settings: Settings,
    gateway: Gateway,
    kill: Kill | None = None,
    *,
    rule: Rule = lambda _request: None,
    machine: Machine = HERE,
    intervals: Intervals = SLOW,
) -> int:
    """One start; its exit status, negative for a signal. Without a kill, the gateway follows `rule`."""
    process = _starter.Process(target=_begin, args=(settings, gateway.environment, machine, intervals))
    counter, timer = itertools.count(1), None

    def end() -> None:
        os.kill(process.pid or 0, signal.SIGKILL)

    def killing(request: Request) -> Any:
        if kill is None:
            return rule(request)
        if request.method not in CHANGES or next(counter) != kill.at:
            return None
        if kill.after:
            return end
        end()
        return Trouble.RESET

    gateway.rule = killing
    process.start()
    if kill is not None and kill.seconds is not None:
        timer = threading.Timer(kill.seconds, partial(_kill_if_alive, process))
        timer.start()
    process.join()
    gateway.rule = lambda _request: None
    if timer is not None:
        timer.cancel()
    assert process.exitcode is not None
    assert process.exitcode != CRASHED, "an exception that no user should see"
    return process.exitcode


def _kill_if_alive(process: Any) -> None:
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)


def run_to_the_end(
    settings: Settings, gateway: Gateway, kills: Iterator[Kill], machines: Iterator[Machine], intervals: Intervals
) -> tuple[int, int]:
    """Start again and again, each time with the next kill; how many starts that took, and how many were killed."""
    killed = 0
    for number in range(1, 60):
        status = run_in_bucket(settings, gateway, next(kills, None), machine=next(machines), intervals=intervals)
        killed += status == -signal.SIGKILL
        if status == COMPLETE:
            return number, killed
    raise AssertionError("not complete after 59 starts")


# --- the script --------------------------------------------------------------------------------------------------------


@dataclass
class _Script:
    """What all runs of the script share."""

    seed: int
    gateway: Gateway
    bucket: str
    cohort: Path
    launches: Path
    expected: dict[str, Any]

    def killed(self, number: int) -> int:
        """One run with kills at random; how many there were."""
        chance = random.Random(self.seed * 100_003 + number)
        form, workers = chance.choice(("json", "parquet")), chance.choice((0, 1, 2))
        intervals = chance.choice((Intervals(0.2, 1.2, 30.0, 0.1), Intervals(2.0, 6.0, 30.0, 0.5)))
        two = chance.random() < 0.3
        machines = itertools.cycle([Machine("one"), Machine("two")]) if two else itertools.repeat(HERE)
        settings = self.settings(f"killed/{number}", form, workers)
        kills = (
            Kill(chance.randint(1, 45), after=chance.random() < 0.5)
            if chance.random() < 0.7
            else Kill(seconds=chance.uniform(0.05, 2.0))
            for _ in range(chance.randint(1, 5))
        )
        starts, killed = run_to_the_end(settings, self.gateway, kills, machines, intervals)
        where = "two machines" if two else "one machine"
        print(
            f"run {number}: {form}, {workers} workers, {where}, {intervals}, {starts} starts, {killed} killed",
            flush=True,
        )
        self.check(settings)
        return killed

    def launched(self, number: int) -> int:
        """One run by launches of one to three processes, of which one is killed at random; how many were killed."""
        chance = random.Random(self.seed * 100_003 + number)
        form = chance.choice(("json", "parquet"))
        settings = self.settings(f"launched/{number}", form)
        flags = program_flags(self.cohort / "cohort", str(settings.output_dir), self.cohort)
        killed, sizes = 0, []
        for attempt in range(1, 20):
            sizes.append(size := chance.choice((1, 2, 3)))
            launch = launch_of(size) if size > 1 else {}
            command = [sys.executable, str(self.launches), *flags, "--format", form]
            processes = [Process(command, **launch, RANK=str(rank), PAUSE="0.2") for rank in range(size)]
            victim = chance.choice(processes).process if attempt < 4 else None
            if victim is not None:
                time.sleep(chance.uniform(3.0, 14.0))
                victim.kill()
                for each in processes:  # as a launcher does: one that has not joined yet is waited for in vain
                    with suppress(subprocess.TimeoutExpired):
                        each.process.wait(20)
                    each.process.terminate()
            statuses = [each.end() for each in processes]
            killed += statuses.count(-signal.SIGKILL)
            if not any(statuses[1:]) and statuses[0] in (0, 1) and self.is_complete(settings):
                break
        else:
            raise AssertionError("not complete after 19 starts")
        print(f"run {number}: {form}, launches of {sizes} processes, {killed} killed", flush=True)
        self.check(settings)
        return killed

    def is_complete(self, settings: Settings) -> bool:
        record = locate(f"{settings.output_dir}/_run/run.json")
        return record.exists() and orjson.loads(record.read())["outcome"] == "complete"

    def faulty(self, number: int) -> int:
        """One run with faults in its requests; how many there were."""
        chance = random.Random(self.seed * 100_003 + number)
        form, share = chance.choice(("json", "parquet")), chance.choice((0.02, 0.05, 0.1, 0.2))
        settings = self.settings(f"faulty/{number}", form, chance.choice((0, 2)))
        count = 0

        def rule(_request: Request) -> Any:
            nonlocal count
            if chance.random() >= share:
                return None
            count += 1
            return chance.choice((503, 429, 500, 0.2, *Trouble))

        for starts in range(1, 60):
            patience = rule if starts < 20 else lambda _request: None
            if run_in_bucket(settings, self.gateway, rule=patience, intervals=SLOW) == COMPLETE:
                break
        print(f"run {number}: {form}, {share:.0%} of requests go wrong: {count} faults, {starts} starts", flush=True)
        self.check(settings)
        return count

    def settings(self, name: str, form: str, workers: int = 0) -> Settings:
        out = locate(f"s3://{self.bucket}/{name}")
        return settings_for(self.cohort / "cohort", out, self.cohort / "w", format=form, num_workers=workers)  # type: ignore[arg-type]

    def check(self, settings: Settings) -> None:
        assert isinstance(settings.output_dir, Location)
        found = store_faults.result(settings)
        if settings.format in self.expected:
            assert found == self.expected[settings.format], "records are lost, doubled or changed"
        self.expected[settings.format] = found
        check_sealed(settings.output_dir, DONE, FAILED)


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs to a bucket that are killed and disturbed.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--launch_kills", type=int, default=20)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--portion", default="1/1", help="I/N: the I-th of N portions")
    arguments = parser.parse_args()
    part, parts = map(int, arguments.portion.split("/"))
    weed = program()
    if weed is None:
        print("SeaweedFS is not installed (make test-services)", file=sys.stderr)
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as data:
        cohort = Path(folder)
        write_cohort(cohort / "cohort")
        (cohort / "w").write_bytes(b"weights")
        with running(Path(data), weed) as server, gateway_to(server) as gateway:
            os.environ.update(gateway.environment)
            script = _Script(arguments.seed, gateway, server.new_bucket(), cohort, write_program(cohort), {})
            for form in ("json", "parquet"):
                settings = script.settings(form, form)
                assert run_in_bucket(settings, gateway) == COMPLETE
                script.check(settings)
            for what, work, most in (
                ("kills", script.killed, arguments.kills),
                ("kills in launches", script.launched, arguments.launch_kills),
                ("faults", script.faulty, arguments.faults),
            ):
                count, numbers = 0, itertools.count(part, parts)
                while count < -(-most // parts):
                    count += work(next(numbers))
                print(f"{count} {what}: no record lost or doubled, nothing left over; {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
