"""A process among those launched together: its rank, its card, its cores, and words that all hear or none."""

from __future__ import annotations

from typing import Any

import pytest

from ecgfounder.drivers import launch as module
from ecgfounder.drivers.launch import Launch, join_launch
from ecgfounder.errors import RunError

WORLD = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


class Accelerator:
    """Accelerate as a launcher's process finds it; says what it was asked for."""

    process_index = 0
    local_process_index = 0
    num_processes = 1
    asked: list[dict[str, Any]]

    def __init__(self, **asked: Any) -> None:
        type(self).asked.append(asked)
        self.ended = 0

    def end_training(self) -> None:
        self.ended += 1


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WORLD:
        monkeypatch.delenv(name, raising=False)


def joined(
    monkeypatch: pytest.MonkeyPatch,
    *,
    rank: int = 0,
    local_rank: int = 0,
    size: int = 1,
    local_size: int | None = None,
    gpus: int = 0,
    seen: int | None = None,
    device: str | None = None,
) -> Launch:
    """What a process of a launch of `size` makes of its place, on a machine with `gpus` cards."""
    monkeypatch.setattr(Accelerator, "process_index", rank)
    monkeypatch.setattr(Accelerator, "local_process_index", local_rank)
    monkeypatch.setattr(Accelerator, "num_processes", size if seen is None else seen)
    monkeypatch.setattr(Accelerator, "asked", [], raising=False)
    monkeypatch.setattr("accelerate.Accelerator", Accelerator)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setenv("WORLD_SIZE", str(size))
    if local_size is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local_size))
    return join_launch(device)


@pytest.mark.parametrize("said", [None, "", "0", "1"])
def test_without_others_a_process_is_alone_and_accelerate_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, said: str | None
) -> None:
    monkeypatch.setattr(Accelerator, "asked", [], raising=False)
    monkeypatch.setattr("accelerate.Accelerator", Accelerator)
    if said is not None:
        monkeypatch.setenv("WORLD_SIZE", said)
    alone = join_launch()
    assert alone == Launch()
    assert (alone.rank, alone.world_size, alone.local_size, alone.device) == (0, 1, 1, None)
    assert alone.is_main
    assert Accelerator.asked == []


@pytest.mark.parametrize(
    ("gpus", "dealt"), [(4, [0, 1, 2, 3]), (2, [0, 1, 0, 1]), (1, [0, 0, 0, 0]), (8, [0, 1, 2, 3])]
)
def test_cards_are_dealt_by_the_rank_on_a_machine(monkeypatch: pytest.MonkeyPatch, gpus: int, dealt: list[int]) -> None:
    for local_rank, card in enumerate(dealt):
        # The second of two machines with four processes each.
        launch = joined(monkeypatch, rank=5 + local_rank, local_rank=local_rank, size=9, local_size=4, gpus=gpus)
        assert launch.device == f"cuda:{card}"
        assert (launch.rank, launch.world_size, launch.local_size) == (5 + local_rank, 9, 4)
        assert not launch.is_main


def test_without_a_card_or_where_the_cpu_is_asked_for_no_card_is_dealt(monkeypatch: pytest.MonkeyPatch) -> None:
    assert joined(monkeypatch, size=2, gpus=0).device == "cpu"
    assert joined(monkeypatch, size=2, gpus=2, device="cpu").device == "cpu"
    assert joined(monkeypatch, size=2, gpus=2, device="cuda").device == "cuda:0"


def test_the_processes_speak_without_the_library_of_the_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = joined(monkeypatch, size=2, gpus=2)
    assert Accelerator.asked == [{"cpu": True}]
    with launch as entered:
        assert entered is launch
        assert launch.accelerator.ended == 0
    assert launch.accelerator.ended == 1


@pytest.mark.parametrize(("size", "seen"), [(2, 1), (4, 2), (2, 4)])
def test_a_launch_that_accelerate_sees_otherwise_is_refused_with_both_numbers(
    monkeypatch: pytest.MonkeyPatch, size: int, seen: int
) -> None:
    with pytest.raises(RunError, match=rf"started {size} processes \(WORLD_SIZE\) but Accelerate sees {seen}: .*unset"):
        joined(monkeypatch, size=size, seen=seen)


@pytest.mark.parametrize(("local_size", "shared_by"), [(None, 6), (0, 6), (3, 3)])
def test_cores_are_shared_with_the_processes_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, local_size: int | None, shared_by: int
) -> None:
    launch = joined(monkeypatch, size=6, local_size=local_size)
    assert launch.local_size == shared_by
    for cores, threads in (
        (1, 1),
        (shared_by - 1, 1),
        (2 * shared_by - 1, 1),
        (2 * shared_by, 2),
        (64, 64 // shared_by),
    ):
        monkeypatch.setattr(module, "usable_cores", lambda cores=cores: cores)
        assert launch.threads == threads


# --- words ------------------------------------------------------------------------------------------------------------


def among(monkeypatch: pytest.MonkeyPatch, rank: int, *others: dict[str, Any]) -> tuple[Launch, list[Any]]:
    """A process of that rank beside others, who say these things; and what it said itself."""
    told: list[Any] = []

    def gather(words: list[Any]) -> list[Any]:
        told.extend(dict(word) for word in words)
        return [*others[:rank], *words, *others[rank:]]

    monkeypatch.setattr("accelerate.utils.gather_object", gather)
    return Launch(rank, len(others) + 1, len(others) + 1), told


def test_what_the_main_process_says_all_have(monkeypatch: pytest.MonkeyPatch) -> None:
    launch, told = among(monkeypatch, 1, {"stamp": 7, "run_id": "ab"}, {})
    with launch.together() as said:
        assert said == {}
    assert said == {"stamp": 7, "run_id": "ab"}
    assert told == [{}]
    main, told = among(monkeypatch, 0, {}, {"stamp": 9})
    with main.together() as said:
        said["stamp"] = 7
    assert said == {"stamp": 7}
    assert told == [{"stamp": 7}]


def test_one_that_is_refused_takes_the_others_with_it_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    launch, _ = among(monkeypatch, 0, {}, {"refused": "no memory"})
    with pytest.raises(RunError, match=r"^process 3 of 3: no memory$"), launch.together():
        pass
    launch, _ = among(monkeypatch, 1, {"refused": "the folder is in use"}, {})
    with pytest.raises(RunError, match=r"^the folder is in use$"), launch.together():
        pass


@pytest.mark.parametrize(
    ("error", "word"), [(RunError("in use"), "in use"), (ZeroDivisionError(), "ZeroDivisionError")]
)
def test_one_that_is_refused_tells_the_others_and_keeps_its_own_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception, word: str
) -> None:
    launch, told = among(monkeypatch, 1, {"refused": "something else"})
    with pytest.raises(type(error)) as raised, launch.together():
        raise error
    assert raised.value is error
    assert told == [{"refused": word}]


def test_processes_that_lose_each_other_say_so_unless_one_has_a_better_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_words: list[Any]) -> list[Any]:
        raise RuntimeError("connection closed by peer")

    monkeypatch.setattr("accelerate.utils.gather_object", lost)
    launch = Launch(1, 2, 2)
    with pytest.raises(RunError, match=r"lost their connection .* connection closed by peer"), launch.together():
        pass
    with pytest.raises(RunError, match=r"^its own$"), launch.together():
        raise RunError("its own")


def test_a_process_alone_speaks_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.utils.gather_object", lambda _words: pytest.fail("nobody is there"))
    with Launch().together() as said:
        said["stamp"] = 7
    assert said == {"stamp": 7}
