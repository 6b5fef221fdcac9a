"""The protocol of group commits, on every store: publication, leases, epochs, and what of a ledger counts."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import orjson
import pytest

from ecgfounder.errors import RunError
from ecgfounder.ledger.entry import Commitment, Entry, PartEnd, PartHeader
from ecgfounder.ledger.groups import lease as leases
from ecgfounder.ledger.groups.epochs import Epoch, counting_parts, seal_epoch, take_epoch
from ecgfounder.ledger.groups.lease import Intervals, Lease
from ecgfounder.ledger.groups.names import WHOLE, Shard
from ecgfounder.ledger.groups.publish import Superseded, Undecided, publish
from ecgfounder.ledger.groups.writer import Bounds, GroupWriter, close_group, part_content, publish_part
from ecgfounder.ledger.ledger import read_ledger
from ecgfounder.ledger.liveness import own_name
from ecgfounder.storage import Conflict, Denied, Location, Missing, Unavailable
from ecgfounder.storage.local import LocalStore
from ecgfounder.storage.memory import MemoryStore
from ecgfounder.storage.objects import ObjectStore
from tests.builders.entries import HEADER, entry_of

STORES = ["memory", "files", pytest.param("objects", marks=pytest.mark.services)]
QUICK = Intervals(renew=0.1, stale=1.0, give_up=20.0, look=0.05)
NEVER = Bounds(1000, 1000.0)


@pytest.fixture(params=STORES)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """The folder `_run` of a run in a store of each kind."""
    if request.param == "objects":
        return Location(ObjectStore("s3", request.getfixturevalue("bucket")), "study/out/_run")
    if request.param == "memory":
        return Location(MemoryStore(uuid.uuid4().hex), "study/out/_run")
    return Location(LocalStore(str(tmp_path)), "study/out/_run")


def checked() -> None: ...


def writer_in(run: Location, epoch: Epoch, bounds: Bounds = NEVER, check: Callable[[], None] = checked) -> GroupWriter:
    return GroupWriter(run / "ledger", epoch, HEADER, check, itertools.count(1), bounds=bounds)


def write(run: Location, epoch: Epoch, *entries: Entry) -> None:
    """One part of an epoch."""
    writer = writer_in(run, epoch)
    writer.append(entries)
    writer.end(PartEnd())


def outputs(run: Location) -> dict[int, str | None]:
    """What counts: the output of each record by its key."""
    state = read_ledger(run / "ledger")
    return {entry.number: entry.output for entry in state.entries(range(len(state)))}


# --- publication -------------------------------------------------------------------------------------------------------


class Unreliable(MemoryStore):
    """A store whose requests to create and to read go wrong as told, one after the other; None: as they should."""

    faults: Iterator[Callable[[], None] | None]

    def claim(self, name: str, data: bytes) -> None:
        fault = next(self.faults, None)
        if fault is not None:
            fault()
        super().claim(name, data)


def unreliable(*faults: Any) -> Location:
    store = Unreliable(uuid.uuid4().hex)
    place = Location(store, "part")

    def lost_reply(content: bytes) -> Callable[[], None]:
        def fault() -> None:
            MemoryStore.create(store, "part", content)
            raise Unavailable("no answer in time")

        return fault

    def refused(error: Exception) -> Callable[[], None]:
        def fault() -> None:
            raise error

        return fault

    made = (lost_reply(fault) if isinstance(fault, bytes) else refused(fault) for fault in faults)
    store.faults = iter(list(made))
    return place


def test_what_is_published_first_stays(run: Location) -> None:
    assert publish(run / "a", b"first")
    assert not publish(run / "a", b"second")
    assert (run / "a").read() == b"first"
    assert publish(run / "a", b"first")  # the same attempt asks again


def test_a_winner_whose_reply_was_dropped_and_whose_client_says_that_it_lost_has_won() -> None:
    assert publish(unreliable(b"ours"), b"ours")  # no reply at all
    place = unreliable()
    place.store.put("part", b"ours")  # the client tried again by itself, and met its own object
    assert publish(place, b"ours")
    assert place.read() == b"ours"


def test_a_loser_whose_reply_was_dropped_has_lost() -> None:
    assert not publish(unreliable(b"another's"), b"ours")


def test_what_is_absent_after_an_error_is_tried_again() -> None:
    with mock.patch.object(time, "sleep"):
        place = unreliable(Unavailable("reset"), Conflict("a 409, though nothing was written"))
        assert publish(place, b"ours")
        assert place.read() == b"ours"
        with pytest.raises(Undecided, match="cannot be written: the store is down"):
            publish(unreliable(*[Unavailable("the store is down")] * 9), b"ours")
    with pytest.raises(Denied):
        publish(unreliable(Denied("access denied")), b"ours")


def test_what_cannot_be_read_back_is_left_alone() -> None:
    place = unreliable(b"ours")
    with (
        mock.patch.object(Unreliable, "read", side_effect=Unavailable("down")),
        pytest.raises(Undecided, match="cannot be read back"),
    ):
        publish(place, b"ours")
    assert place.read() == b"ours"


# --- leases ------------------------------------------------------------------------------------------------------------


def take(run: Location, shard: Shard = WHOLE, **more: Any) -> Lease:
    return Lease(run / "leases", shard, "s3://bucket/study/out", **({"intervals": QUICK} | more))


def as_machine(name: str) -> Any:
    """A patch: this process is taken for one of another machine, about which nothing is known but its leases."""
    return mock.patch.object(leases, "own_name", return_value=own_name() | {"boot": name, "host": name})


def die(lease: Lease) -> None:
    """Let a lease's holder die: it renews nothing and gives nothing back."""
    lease._stopped.set()
    lease._thread.join()
    leases._held_here.discard(lease._token)


def test_a_lease_is_held_by_one_and_given_back(run: Location) -> None:
    with take(run), pytest.raises(RunError, match=r"s3://bucket/study/out is in use by process \d+ on .*, started 20"):
        take(run)
    for _ in range(3):
        with take(run) as lease:
            lease.check()
    assert len(list((run / "leases").names())) == 1


def test_a_lease_is_renewed_and_never_twice_the_same(run: Location) -> None:
    seen = set()
    with take(run) as lease:
        began = time.monotonic()
        while len(seen) < 4 and time.monotonic() - began < 20:
            for name in (run / "leases").names():
                if "lease." not in name:  # half written
                    continue
                try:
                    seen.add((name, (run / "leases" / name).read()))
                except Missing:  # removed meanwhile
                    continue
            lease.check()
            time.sleep(0.02)
    assert len({name for name, _ in seen}) == len({body for _, body in seen}) >= 4


def test_the_lease_of_a_process_that_is_known_to_be_dead_is_taken_at_once(run: Location) -> None:
    dead = own_name() | {"pid": 2**22 + 1, "state": "held", "token": "x"}
    (run / "leases" / "whole" / "lease.000000000007").put(orjson.dumps(dead))
    with take(run, intervals=replace(QUICK, stale=1000.0)) as lease:
        lease.check()


def test_the_lease_of_a_dead_process_of_another_machine_is_taken_when_it_is_stale(run: Location) -> None:
    with as_machine("elsewhere"):
        first = take(run)
    die(first)
    told: list[str] = []
    began = time.monotonic()
    with take(run, tell=told.append) as second:
        assert time.monotonic() - began >= QUICK.stale
        second.check()
        assert "may be in use by process" in told[0]
        assert "on elsewhere" in told[0]


def test_a_live_holder_of_another_machine_is_not_taken_over(run: Location) -> None:
    with as_machine("elsewhere"):
        lease = take(run)
    with lease:
        with pytest.raises(RunError, match="is in use"):
            take(run)
        lease.check()


def test_a_holder_that_stood_still_learns_that_it_was_taken_over(run: Location) -> None:
    with as_machine("elsewhere"):
        first = take(run)
        die(first)
        with take(run) as second:
            first._publish("held")  # it goes on
            with pytest.raises(Superseded, match="taken over"):
                first.check()
            second.check()
            first.release()
            second._publish("held")
            second.check()


def test_numbers_that_were_removed_do_not_come_back_to_life(run: Location) -> None:
    """A zombie's next number may be free again, because its successor has removed it; the highest counts."""
    with as_machine("elsewhere"):
        first = take(run, intervals=replace(QUICK, renew=1000.0))
        die(first)
        with take(run, intervals=replace(QUICK, renew=1000.0)) as second:
            for _ in range(3):
                second._publish("held")
            first._publish("held")
            with pytest.raises(Superseded):
                first.check()
            second._publish("held")
            second.check()


def test_a_holder_that_cannot_renew_stops(run: Location) -> None:
    impatient = replace(QUICK, give_up=0.4)
    with take(run, intervals=impatient) as lease, mock.patch.object(leases, "publish", side_effect=Unavailable("down")):
        time.sleep(2.0)
        with pytest.raises(Superseded, match="could not be renewed"):
            lease.check()


def test_shards_of_one_division_work_together_and_refuse_all_others(run: Location) -> None:
    with take(run, (1, 3)), take(run, (3, 3)):
        for shard in (WHOLE, (1, 3), (2, 2), (1, 2)):
            with pytest.raises(RunError, match="is in use"):
                take(run, shard)
    with take(run), pytest.raises(RunError, match="is in use"):
        take(run, (2, 3))
    with take(run, (2, 3)):
        pass


def test_a_whole_run_takes_over_the_leases_of_dead_shards(run: Location) -> None:
    with as_machine("elsewhere"):
        shard = take(run, (1, 2))
    die(shard)
    with take(run):
        with as_machine("elsewhere"):
            shard._publish("held")
        with pytest.raises(Superseded):
            shard.check()


def test_of_many_that_start_at_once_one_wins(run: Location) -> None:
    came: list[Lease | str] = []

    def begin() -> None:
        gate.wait()
        try:
            came.append(take(run))
        except RunError as error:
            came.append(str(error))

    gate = threading.Barrier(6)
    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [each for each in came if isinstance(each, Lease)]
    assert len(held) == 1
    assert all("is in use by process" in str(each) for each in came if not isinstance(each, Lease))
    held[0].release()


def test_a_lease_is_held_before_it_can_be_seen(run: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else another thread of this process would take it for one of a run that is over, and have one of its own."""
    real, seen = leases.publish, []

    def published(place: Location, body: bytes, **options: Any) -> bool:
        seen.append(orjson.loads(body)["token"] in leases._held_here)
        return real(place, body, **options)

    monkeypatch.setattr(leases, "publish", published)
    take(run).release()
    assert seen[:2] == [True, True]  # taken, and probed
    assert not leases._held_here
    monkeypatch.setattr(leases, "publish", lambda *_arguments, **_options: False)
    with pytest.raises(RunError, match="is in use"):
        take(run)
    assert not leases._held_here


def test_a_store_that_ignores_conditions_is_refused() -> None:
    class Careless(MemoryStore):
        def claim(self, name: str, data: bytes) -> None:
            self.put(name, data)

    with pytest.raises(RunError, match="its store replaces an object that exists"):
        take(Location(Careless(uuid.uuid4().hex), "out/_run"))


# --- epochs ------------------------------------------------------------------------------------------------------------


def test_what_an_epoch_finds_counts_with_what_it_adds(run: Location) -> None:
    first = take_epoch(run, WHOLE)
    write(run, first, entry_of(1, output="1.json"), entry_of(2, output="2.json"))
    second = take_epoch(run, WHOLE)
    assert second.number == 2
    assert second.stamp > first.stamp
    write(run, second, entry_of(2, output="2b.json"), entry_of(3, output="3.json"))
    assert outputs(run) == {1: "1.json", 2: "2b.json", 3: "3.json"}


def test_a_late_zombie_counts_for_nothing(run: Location) -> None:
    first = take_epoch(run, WHOLE)
    write(run, first, entry_of(1, output="1.json"))
    zombie = writer_in(run, first)
    second = take_epoch(run, WHOLE)
    zombie._numbers = itertools.count(2)
    zombie.append([entry_of(1, output="zombie.json"), entry_of(9, output="zombie.json")])
    zombie.end(PartEnd())
    assert outputs(run) == {1: "1.json"}
    write(run, second, entry_of(2, output="2.json"))
    late = seal_epoch(run, second)
    assert outputs(run) == {1: "1.json", 2: "2.json"}
    assert len(late) == 1
    (run / "ledger").delete(late)
    assert outputs(run) == {1: "1.json", 2: "2.json"}
    with pytest.raises(Superseded):
        seal_epoch(run, first)


def test_after_the_seal_nothing_of_its_own_epoch_counts_either(run: Location) -> None:
    epoch = take_epoch(run, WHOLE)
    write(run, epoch, entry_of(1, output="1.json"))
    seal_epoch(run, epoch)
    late = writer_in(run, epoch)
    late._numbers = itertools.count(7)
    late.append([entry_of(2, output="2.json")])
    late.end(PartEnd())
    assert outputs(run) == {1: "1.json"}
    take_epoch(run, WHOLE)
    assert outputs(run) == {1: "1.json"}


def test_of_starts_at_once_each_epoch_belongs_to_one(run: Location) -> None:
    came: list[Epoch | RunError] = []

    def begin() -> None:
        gate.wait()
        try:
            came.append(take_epoch(run, WHOLE))
        except RunError as error:
            came.append(error)

    gate = threading.Barrier(5)
    threads = [threading.Thread(target=begin) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [each.number for each in came if isinstance(each, Epoch)]
    assert 1 in numbers
    assert len(set(numbers)) == len(numbers)


def test_shards_count_side_by_side_until_a_whole_run_names_them(run: Location) -> None:
    whole = take_epoch(run, WHOLE)
    write(run, whole, entry_of(1, output="1.json"))
    one, two = take_epoch(run, (1, 2)), take_epoch(run, (2, 2))
    write(run, one, entry_of(2, output="2.json"))
    write(run, two, entry_of(3, output="3.json"))
    assert outputs(run) == {1: "1.json", 2: "2.json", 3: "3.json"}
    again = take_epoch(run, (1, 2))
    write(run, again, entry_of(4, output="4.json"))
    stray = writer_in(run, one)
    stray._numbers = itertools.count(2)
    stray.append([entry_of(5, output="zombie.json")])
    stray.end(PartEnd())
    assert sorted(outputs(run)) == [1, 2, 3, 4]
    merged = take_epoch(run, WHOLE)
    late = writer_in(run, two)
    late._numbers = itertools.count(2)
    late.append([entry_of(6, output="zombie.json")])
    late.end(PartEnd())
    assert sorted(outputs(run)) == [1, 2, 3, 4]
    seal_epoch(run, merged)
    assert sorted(outputs(run)) == [1, 2, 3, 4]
    after = take_epoch(run, (2, 2))
    assert after.base == merged.number
    write(run, after, entry_of(7, output="7.json"))
    assert sorted(outputs(run)) == [1, 2, 3, 4, 7]


def test_a_fresh_epoch_forgets_what_was_before_and_numbers_go_on(run: Location) -> None:
    write(run, take_epoch(run, WHOLE), entry_of(1, output="1.json"))
    fresh = take_epoch(run, WHOLE, fresh=True)
    assert fresh.number == 2
    assert outputs(run) == {}
    assert take_epoch(run, WHOLE).number == 3


def test_a_ledger_without_epochs_counts_as_the_one_before_the_first(run: Location) -> None:
    old = "00000000000000000007-shard1of1-rank0of1.jsonl"
    (run / "ledger" / old).put(part_content(HEADER, [entry_of(1, output="1.json")], PartEnd()))
    assert outputs(run) == {1: "1.json"}
    epoch = take_epoch(run, WHOLE)
    assert epoch.parts == (old,)
    write(run, epoch, entry_of(2, output="2.json"))
    assert outputs(run) == {1: "1.json", 2: "2.json"}
    (run / "ledger" / old.replace("7-", "8-")).put(part_content(HEADER, [entry_of(3, output="3.json")], PartEnd()))
    assert outputs(run) == {1: "1.json", 2: "2.json"}


def test_a_damaged_epoch_stops_and_says_which(run: Location) -> None:
    write(run, take_epoch(run, WHOLE), entry_of(1, output="1.json"))
    (run / "epochs" / "whole" / "000001.json").put(b'{"epoch"')
    with pytest.raises(RunError, match=r"000001.json is damaged"):
        counting_parts(run / "ledger")


# --- groups ------------------------------------------------------------------------------------------------------------


def test_a_group_ends_with_its_shard_when_it_is_full_or_old_enough(run: Location) -> None:
    epoch = take_epoch(run, WHOLE)
    writer = writer_in(run, epoch, Bounds(records=3, seconds=0.2))
    shard = f"embeddings-{epoch.stamp:020d}-shard1of1-epoch000001-000000-0123abcd.parquet"
    rows = [replace(entry_of(n), output=f"{shard}::{n:016x}", shard=shard) for n in (1, 2)]
    writer.append(rows)
    assert outputs(run) == {}
    writer.append([Commitment(shard, 2, 2)])
    assert sorted(outputs(run)) == [1, 2]
    for number in (3, 4):
        writer.append([entry_of(number, output=f"{number}.json")])
    assert sorted(outputs(run)) == [1, 2]
    writer.append([entry_of(5, output="5.json")])
    assert sorted(outputs(run)) == [1, 2, 3, 4, 5]
    writer.append([entry_of(6, output="6.json")])
    writer.append([])
    assert 6 not in outputs(run)
    time.sleep(0.25)
    writer.append([])
    assert 6 in outputs(run)
    writer.append([entry_of(7, output="7.json")])
    writer.end(PartEnd())
    assert 7 in outputs(run)


def test_what_is_abandoned_is_not_published(run: Location) -> None:
    writer = writer_in(run, take_epoch(run, WHOLE))
    writer.append([entry_of(1, output="1.json")])
    writer.abandon()
    writer.end(PartEnd())
    assert outputs(run) == {}


def test_of_two_attempts_at_a_group_the_first_counts_and_the_other_learns_it(run: Location) -> None:
    epoch = take_epoch(run, WHOLE)
    one, two = writer_in(run, epoch), writer_in(run, epoch)
    one.append([entry_of(1, output="one.json")])
    two.append([entry_of(1, output="two.json")])
    two.end(PartEnd())
    with pytest.raises(Superseded, match="another process published the records of group 1"):
        one.end(PartEnd())
    assert outputs(run) == {1: "two.json"}


def test_a_group_is_cut_anew_only_when_its_part_cannot_appear_any_more(run: Location) -> None:
    epoch = take_epoch(run, WHOLE)
    driver = PartHeader(**own_name(), attempt="the driver")
    assert close_group(run / "ledger", epoch, 1, driver)
    late = part_content(HEADER, [entry_of(1, output="late.json")], PartEnd())
    assert not publish_part(run / "ledger", epoch, "group", 1, late)
    assert outputs(run) == {}
    assert publish_part(run / "ledger", epoch, "group", 2, late)
    assert not close_group(run / "ledger", epoch, 2, driver)  # it is done
    assert outputs(run) == {1: "late.json"}


def test_nothing_is_published_once_the_lease_is_lost(run: Location) -> None:
    def lost() -> None:
        raise Superseded("taken over")

    writer = writer_in(run, take_epoch(run, WHOLE), check=lost)
    writer.append([entry_of(1, output="1.json")])
    with pytest.raises(Superseded):
        writer.end(PartEnd())
    assert outputs(run) == {}
