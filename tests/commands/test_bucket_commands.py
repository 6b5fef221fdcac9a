"""Commands over runs in a bucket of a real store: exit statuses, messages, and what they write."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import ecgfounder
from ecgfounder.results.run import open_run
from ecgfounder.results.store import read_embedding
from ecgfounder.storage import locate
from tests.harness.object_server import KEY_ID, SECRET, Gateway, ObjectServer

pytestmark = pytest.mark.services

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def url(bucket: str) -> str:
    return f"s3://{bucket}/results/study"


@pytest.fixture
def embed(demo_cohort: Path, checkpoint_12lead: Path) -> list[str]:
    flags = ["embed", "--dataset", str(demo_cohort / "ecg"), "--checkpoint", str(checkpoint_12lead)]
    return [*flags, "--pooling", "mean", "--num_workers", "1"]


def words_of(words: Any) -> list[str]:
    return [sys.executable, "-m", "ecgfounder.cli", *map(str, words)]


def command(*words: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words_of(words), capture_output=True, text=True, timeout=300)


def test_the_commands_of_a_run_work_on_a_bucket(embed: list[str], url: str, bucket: str, tmp_path: Path) -> None:
    flags = [*embed, "--format", "parquet", "--output_dir", url]
    asked = command(*flags, "--dry_run")
    assert asked.returncode == 0, asked.stderr
    assert re.search(r"requests    about \d+ to write them", asked.stdout)
    assert list(locate(url).names()) == []
    first = command(*flags)
    assert first.returncode == 1, first.stderr  # one of the demo's recordings is damaged
    assert "12 of 13 recordings embedded, 1 failed" in first.stderr
    assert f"All failures with their reasons: {url}/_run/failures.csv" in first.stderr
    status = command("status", url)
    assert status.returncode == 1, status.stderr
    assert status.stdout.splitlines()[0].startswith(f"run         {url}: complete, begun ")
    assert "done        12 of 13 recordings, 1 failed, 0 to do\n" in status.stdout
    again = command(*flags)
    assert "to do: 0, done before: 12, failed before: 1" in again.stderr
    other = command(*embed, "--output_dir", url)
    assert (other.returncode, "holds a run with other settings" in other.stderr) == (2, True)
    assert command("merge", url).returncode == 1
    assert command("upgrade", url).returncode == 0
    looked = command("doctor", "--checkpoint", embed[4], "--output_dir", url)
    assert f"{url} can be listed" in looked.stdout
    exported = command("export", url, "--to", "json", "--output_dir", f"s3://{bucket}/exported")
    assert exported.returncode == 0, exported.stderr
    assert SECRET not in "".join(each.stdout + each.stderr for each in (asked, first, again, other, looked, exported))
    assert SECRET.encode() not in b"".join((locate(url) / name).read() for name in locate(url).names())
    run, copy = open_run(url), open_run(f"s3://{bucket}/exported")
    assert np.array_equal(np.asarray(run.arrays()[0]), np.asarray(copy.arrays()[0]))
    assert read_embedding(f"{url}/{run.records['output'][0].as_py()}").shape == (1024,)


def test_a_complete_run_is_read_by_its_url(embed: list[str], url: str, object_server: ObjectServer) -> None:
    assert command(*embed, "--format", "parquet", "--shard_size", "5", "--output_dir", url).returncode == 1
    options = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET, "aws_region": "us-east-1"}
    options |= {"aws_endpoint_url": object_server.endpoint, "aws_allow_http": "true"}
    for pattern in ("*.parquet", "**/*.parquet"):
        rows = pl.read_parquet(f"{url}/{pattern}", storage_options=options)
        assert len(rows) == rows["key"].n_unique() == 12
    manifest = pl.read_parquet(f"{url}/_run/manifest.pq", storage_options=options)
    assert manifest["status"].value_counts().sort("status")["count"].to_list() == [12, 1]


def test_a_cohort_of_a_bucket_is_embedded_into_a_bucket_from_python(
    demo_cohort: Path, checkpoint_12lead: Path, url: str, bucket: str
) -> None:
    for path in (demo_cohort / "ecg").rglob("*.xml"):
        locate(f"s3://{bucket}/cohort/{path.name}").put(path.read_bytes())
    done = ecgfounder.embed_cohort(
        f"s3://{bucket}/cohort", url, checkpoint=checkpoint_12lead, pooling="mean", num_workers=0
    )
    assert done.summary.tally is not None
    assert (done.summary.tally.done, done.summary.tally.failed) == (12, 1)
    assert done.run.arrays()[0].shape == (12, 1024)
    assert len([name for name in locate(url).names() if re.fullmatch(r"\w+\.json", name)]) == 12


def slow(gateway: Gateway, text: str, seconds: float) -> None:
    """Let requests that write such objects take long."""
    gateway.rule = lambda request: seconds if request.method == "PUT" and text in request.path else None


def started(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(words_of(words), stderr=subprocess.PIPE, text=True)


def wait_until_written(gateway: Gateway, text: str) -> None:
    """Wait until a start writes such an object."""
    began = time.monotonic()
    while not any(text in each.path and each.method == "PUT" for each in list(gateway.requests)):
        assert time.monotonic() - began < 200
        time.sleep(0.05)


def test_the_second_of_two_starts_ends_with_2_and_names_the_first(embed: list[str], url: str, gateway: Gateway) -> None:
    slow(gateway, "/ledger/", 12.0)  # longer than the time between two renewals
    first = started([*embed, "--output_dir", url])
    wait_until_written(gateway, "/epochs/")
    second = command(*embed, "--output_dir", url)
    _, said = first.communicate(timeout=300)
    assert second.returncode == 2
    assert f"{url} is in use by process {first.pid} on " in second.stderr
    assert (first.returncode, "12 of 13 recordings embedded" in said) == (1, True)


def test_a_signal_ends_a_run_to_a_bucket_in_order(embed: list[str], url: str, gateway: Gateway) -> None:
    slow(gateway, "/study/ecg_", 3.0)
    first = started([*embed, "--batch_size", "1", "--output_dir", url])
    wait_until_written(gateway, "/study/ecg_")
    os.kill(first.pid, signal.SIGTERM)
    _, said = first.communicate(timeout=300)
    assert first.returncode == 128 + signal.SIGTERM, said
    gateway.rule = lambda _request: None
    again = command(*embed, "--output_dir", url)
    assert "12 of 13 recordings embedded" in again.stderr


def test_after_a_kill_on_this_machine_the_next_start_goes_on_at_once(
    embed: list[str], url: str, gateway: Gateway
) -> None:
    slow(gateway, "/study/ecg_", 3.0)
    first = started([*embed, "--batch_size", "1", "--output_dir", url])
    wait_until_written(gateway, "/study/ecg_")
    first.kill()
    first.communicate(timeout=60)
    gateway.rule = lambda _request: None
    began = time.monotonic()
    again = command(*embed, "--output_dir", url)
    assert "12 of 13 recordings embedded" in again.stderr
    assert "may be in use" not in again.stderr
    assert time.monotonic() - began < 110


def test_what_may_not_be_written_to_is_refused_in_one_line(embed: list[str], gateway: Gateway, url: str) -> None:
    gateway.rule = lambda request: 403 if request.method == "PUT" else None
    refused = command(*embed, "--output_dir", url)
    assert refused.returncode == 2
    assert f"ecgfounder: {url} cannot be written to: access denied" in refused.stderr
    gone = command(*embed, "--output_dir", "s3://there-is-no-such-bucket/x")
    assert gone.returncode == 2
    assert len(gone.stderr.strip().splitlines()) == 1
    assert "there is no such bucket" in gone.stderr
