"""Runs to a bucket of a real store: the outputs of a run to a folder; after kills and faults, nothing is lost or left over."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecgfounder.run.settings import Settings
from ecgfounder.storage import Location, locate
from tests.builders.cohorts import settings_for, write_cohort
from tests.harness.bucket_runs import CHANGES, DONE, FAILED, SLOW, Kill, run_in_bucket, run_to_the_end
from tests.harness.faults import BROKEN, COMPLETE, start
from tests.harness.object_server import Gateway, Request, Rule, Trouble
from tests.harness.outputs import json_outputs, parquet_rows
from tests.harness.store_faults import HERE, Machine, check_sealed, result

pytestmark = pytest.mark.services

FORMATS = ("json", "parquet")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bucket_faults")
    write_cohort(folder / "cohort")
    (folder / "w").write_bytes(b"weights")
    return folder


@pytest.fixture(scope="module")
def expected(cohort: Path) -> dict[str, Any]:
    """For each format the result of a run to a folder."""
    found: dict[str, Any] = {}
    for form in FORMATS:
        settings = settings_for(cohort / "cohort", cohort / form, cohort / "w", format=form)
        assert start(settings, None, cohort / "count")[0] == [COMPLETE]
        found[form] = json_outputs(cohort / form) if form == "json" else parquet_rows(cohort / form)
    return found


Given = Callable[..., Settings]


@pytest.fixture
def given(cohort: Path, bucket: str) -> Given:
    def make(form: str, name: str = "study/out", **more: Any) -> Settings:
        return settings_for(cohort / "cohort", locate(f"s3://{bucket}/{name}"), cohort / "w", format=form, **more)  # type: ignore[arg-type]

    return make


def check(settings: Settings, expected: dict[str, Any]) -> None:
    assert isinstance(settings.output_dir, Location)
    assert result(settings) == expected[settings.format]
    check_sealed(settings.output_dir, DONE, FAILED)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("form", FORMATS)
def test_a_run_to_a_bucket_writes_what_a_run_to_a_folder_writes(
    form: str, num_workers: int, given: Given, gateway: Gateway, expected: dict[str, Any]
) -> None:
    settings = given(form, num_workers=num_workers)
    assert run_in_bucket(settings, gateway) == COMPLETE
    check(settings, expected)
    before = len(gateway.requests)
    assert run_in_bucket(settings, gateway) == COMPLETE
    check(settings, expected)
    again = gateway.requests[before:]
    assert not [request for request in again if request.method == "PUT" and "/_run/" not in request.path]


@pytest.mark.parametrize("form", FORMATS)
def test_killed_runs_are_resumed_to_one_row_for_each_record(
    form: str, given: Given, gateway: Gateway, expected: dict[str, Any]
) -> None:
    """Six kills each: at the lease, the epoch, outputs, parts, the end; before the request, and after it is done."""
    kills = [Kill(at, after=at % 2 == 0) for at in (1, 3, 8, 5, 10, 7)]
    settings = given(form)
    _, killed = run_to_the_end(settings, gateway, iter(kills), itertools.repeat(HERE), SLOW)
    assert killed >= 5
    check(settings, expected)


def test_a_start_on_another_machine_waits_until_the_lease_is_stale(
    given: Given, gateway: Gateway, expected: dict[str, Any]
) -> None:
    settings = given("parquet")
    machines = itertools.cycle([Machine("one"), Machine("two")])
    _, killed = run_to_the_end(settings, gateway, iter([Kill(7), Kill(9, after=True)]), machines, SLOW)
    assert killed == 2
    check(settings, expected)


# --- trouble -----------------------------------------------------------------------------------------------------------


def every(number: int, trouble: Any) -> Rule:
    """Trouble at every n-th request, of any kind."""
    counter = itertools.count(1)
    return lambda _request: trouble if next(counter) % number == 0 else None


@pytest.mark.parametrize(
    "trouble",
    [503, 429, 500, Trouble.RESET, Trouble.DROPPED_REPLY, Trouble.HALF_A_BODY, 0.3],
    ids=["503", "429", "500", "reset", "dropped reply", "half a body", "slow"],
)
@pytest.mark.parametrize("form", FORMATS)
def test_a_store_in_trouble_loses_nothing_and_fails_no_record(
    form: str, trouble: Any, given: Given, gateway: Gateway, expected: dict[str, Any]
) -> None:
    settings = given(form)
    for number in (5, 7, 11, 1000):
        status = run_in_bucket(settings, gateway, rule=every(number, trouble))
        assert status in (COMPLETE, BROKEN)
    assert status == COMPLETE
    check(settings, expected)


def puts_of(text: str) -> Callable[[Request], bool]:
    return lambda request: request.method in CHANGES and text in request.path


@pytest.mark.parametrize(
    ("what", "status"),
    [
        *((what, 403) for what in ("/ledger/", "embeddings-", ".seal.json", "manifest.pq", "leases")),
        ("manifest.pq", 503),
    ],
)
def test_a_store_that_refuses_ends_the_run_and_the_same_command_resumes_it(
    what: str, status: int, given: Given, gateway: Gateway, expected: dict[str, Any]
) -> None:
    settings = given("parquet")
    meets = puts_of(what)
    assert run_in_bucket(settings, gateway, rule=lambda request: status if meets(request) else None) == BROKEN
    assert run_in_bucket(settings, gateway) == COMPLETE
    check(settings, expected)
