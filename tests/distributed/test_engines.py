"""The same core in other engines: a process pool, and Spark, which does groups twice where workers are slow or die."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgfounder import embed_cohort
from ecgfounder.distributed import Group, Outcome, Work, do_group
from ecgfounder.ecg.leads import STANDARD_LEADS
from tests.builders.cohorts import write_cohort
from tests.harness.outputs import json_outputs
from tests.harness.ray_runs import python_path

COUNT, FAILED = 31, 2

Embed = Callable[..., Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ecgfounder.demo.demo import write_demo_checkpoint

    folder = tmp_path_factory.mktemp("made")
    write_cohort(folder / "cohort", COUNT)
    write_demo_checkpoint(folder / "weights.pth")
    return folder


@pytest.fixture
def embed(made: Path) -> Embed:
    def embed(out: Path, **more: Any) -> Any:
        return embed_cohort(
            made / "cohort",
            out,
            checkpoint=made / "weights.pth",
            sampling_rate=500.0,
            unit="mV",
            leads=STANDARD_LEADS,
            num_workers=0,
            **more,
        )

    return embed


def result(out: Path, form: str) -> Any:
    if form == "json":
        return json_outputs(out)
    tables = [pq.read_table(shard) for shard in sorted(out.glob("*.parquet"))]
    return sorted(pa.concat_tables(tables).to_pylist(), key=lambda row: row["key"])


def check(out: Path, done: Any, embed: Embed, form: str) -> None:
    tally = done.summary.tally
    assert (tally.done, tally.failed, tally.pending) == (COUNT - FAILED, FAILED, 0)
    local = out.with_name("local")
    embed(local, format=form)
    assert result(out, form) == result(local, form)
    named = {
        output.partition("::")[0] for output in pq.read_table(out / "_run/manifest.pq")["output"].to_pylist() if output
    }
    assert {path.name for path in out.iterdir()} - {"_run", ".huggingface.yaml"} == named


# --- a process pool ----------------------------------------------------------------------------------------------------


def in_processes(work: Work, groups: Iterator[Group]) -> Iterator[Outcome]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(partial(do_group, work), groups)


def or_die(work: Work, flag: str, group: Group) -> Outcome:
    """`do_group`, in a process that dies once, after its group was published."""
    outcome = do_group(work, group)
    if group.number == 2 and not os.path.exists(flag):
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return outcome


@pytest.mark.slow
@pytest.mark.parametrize("form", ["json", "parquet"])
def test_a_process_pool(form: str, embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path())
    done = embed(tmp_path / "out", format=form, driver=in_processes, group_size=5)
    check(tmp_path / "out", done, embed, form)


@pytest.mark.slow
def test_a_process_pool_that_breaks_is_tried_again(
    embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path())
    flag = str(tmp_path / "died")

    def carry(work: Work, groups: Iterator[Group]) -> Iterator[Outcome]:
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            results = [pool.submit(or_die, work, flag, group) for group in groups]
            for each in results:
                if each.exception() is None:
                    yield each.result()

    done = embed(tmp_path / "out", format="parquet", driver=carry, group_size=5)
    check(tmp_path / "out", done, embed, "parquet")
    assert os.path.exists(flag)


# --- Spark -------------------------------------------------------------------------------------------------------------


def slowly_once(work: Work, folder: str, group: Group) -> Outcome:
    """`do_group`, which at the first attempt at the third group takes so long that Spark begins a second one."""
    import time

    try:
        os.close(os.open(f"{folder}/{group.number}", os.O_CREAT | os.O_EXCL))
        first = True
    except FileExistsError:
        first = False
    outcome = do_group(work, group)
    if first and group.number == 3:
        time.sleep(20)
    with open(f"{folder}/outcomes", "a") as file:
        file.write(f"{group.number} {outcome.lost}\n")
    return outcome


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.timeout(280)
@pytest.mark.parametrize("form", ["json", "parquet"])
def test_spark_with_speculative_execution(
    form: str, embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyspark = pytest.importorskip("pyspark.sql", reason="pyspark is not installed")
    monkeypatch.setenv("PYTHONPATH", python_path())
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    seen = tmp_path / "seen"
    seen.mkdir()
    builder = pyspark.SparkSession.builder.master("local-cluster[2,1,1024]")
    for name, value in {
        "spark.speculation": "true",
        "spark.speculation.interval": "200ms",
        "spark.speculation.multiplier": "1.5",
        "spark.speculation.quantile": "0.3",
        "spark.speculation.minTaskRuntime": "2s",
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.executorEnv.PYTHONPATH": python_path(),
    }.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()

    def in_spark(work: Work, groups: Iterator[Group]) -> Iterator[Outcome]:
        cut = list(groups)
        spread = session.sparkContext.parallelize(cut, len(cut))
        yield from spread.map(partial(slowly_once, work, str(seen))).collect()

    try:
        done = embed(tmp_path / "out", format=form, driver=in_spark, group_size=5)
    finally:
        session.stop()
    check(tmp_path / "out", done, embed, form)
    assert "3 False" in (seen / "outcomes").read_text() or "3 True" in (seen / "outcomes").read_text()
