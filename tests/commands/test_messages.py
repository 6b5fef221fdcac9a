"""What stands in the way of a new user is named with what helps."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import ecgfounder
from ecgfounder import cli
from ecgfounder.machine import is_reachable
from tests.builders.cohorts import HINTS, write_cohort

pytestmark = pytest.mark.usefixtures("known_files")


def flags_of(cohort: Path, out: Path, checkpoint: Path, *more: str) -> list[str]:
    hints = ["--sampling_rate", "500", "--unit", "mV", "--leads", ",".join(HINTS.leads or ())]
    few = ["--num_workers", "0", "--pooling", "mean", "--checkpoint", str(checkpoint)]
    return ["embed", "--dataset", str(cohort), "--output_dir", str(out), *few, *hints, *more]


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The last line on standard error of a command that is refused."""
    try:
        status: Any = cli.main(list(words))
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["embed", "--datset", "a.csv"], "unrecognized arguments: --datset (did you mean --dataset?)"),
        (["embed", "--datset=a.csv"], "unrecognized arguments: --datset (did you mean --dataset?)"),
        (["embed", "--output-dir", "x"], "unrecognized arguments: --output-dir (did you mean --output_dir?)"),
        (["merge", "x", "--storage_option", "{}"], "refused"),
        (["inspect", "--plott", "x"], "unrecognized arguments: --plott (did you mean --plot?)"),
        (["embed", "--dataset", "a", "--output_dir", "b", "--zzz"], "unrecognized arguments: --zzz"),
        (["embed", "--", "--datset"], "the following arguments are required"),
    ],
)
def test_a_wrong_flag_names_the_nearest_right_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    line = complaint(capsys, *words)
    if told == "refused":  # the beginning of a flag is that flag
        assert "holds no run" in line
    else:
        assert told in line


def test_a_wrong_column_names_the_flag_and_the_columns(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, checkpoint_12lead: Path
) -> None:
    table = tmp_path / "t.csv"
    pd.DataFrame({"paths": ["a.xml"], "study": ["1"]}).to_csv(table, index=False, sep=";")
    for more, told in (
        ([], "its columns are: paths, study. Did you mean 'paths'? Name the right one with --path_column."),
        (["--path_column", "paths", "--id_column", "x"], "paths, study. Name the right one with --id_column."),
        (["--path_column", "paths", "--keep_columns", "y"], "paths, study. Name the right one with --keep_columns."),
    ):
        assert complaint(capsys, *flags_of(table, tmp_path / "out", checkpoint_12lead, *more)).endswith(told)


def test_an_empty_identifier_names_its_row(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, checkpoint_12lead: Path
) -> None:
    write_cohort(tmp_path / "in", 3)
    names = [str(tmp_path / "in" / f"ecg_{number:02d}.npy") for number in range(3)]
    pd.DataFrame({"ecg_paths": names, "id": ["1", " ", "3"]}).to_csv(tmp_path / "t.csv", index=False)
    flags = flags_of(tmp_path / "t.csv", tmp_path / "out", checkpoint_12lead, "--id_column", "id")
    assert cli.main(flags) == 1
    assert "the identifier of row 1 is empty" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["/x.pth", "weights.safetensors", "s3://bucket/x.pth"])
def test_a_checkpoint_in_the_place_of_the_mode_is_recognised(mode: str) -> None:
    with pytest.raises(ecgfounder.SettingsError, match=rf"looks like a checkpoint: load\(checkpoint='{mode}'\)"):
        ecgfounder.load(mode)
    with pytest.raises(ecgfounder.SettingsError, match="Allowed values are '12lead' and '1lead'"):
        ecgfounder.load("12leads")


# --- the Hub -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that accepts no connection: its queue is full."""
    with socket.socket() as server, socket.socket() as waiting:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting.connect(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("way", ["offline", "no network"])
def test_without_a_checkpoint_and_without_the_hub_a_run_is_refused_soon(
    tmp_path: Path, way: str, silent_server: str
) -> None:
    write_cohort(tmp_path / "in", 2)
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "01"[way == "offline"],
        "HF_ENDPOINT": silent_server,
    }
    words = ["embed", "--dataset", str(tmp_path / "in"), "--output_dir", str(tmp_path / "out")]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "ecgfounder.cli", *words], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 2
    assert time.monotonic() - began < 20  # with the start of Python, on a busy machine
    (line,) = done.stderr.splitlines()
    why = "HF_HUB_OFFLINE is set" if way == "offline" else f"{silent_server} does not answer"
    assert f"cannot be downloaded from PKUDigitalHealth/ECGFounder ({why}). To get the weights" in line


def test_a_server_is_reachable_if_it_accepts_a_connection(monkeypatch: pytest.MonkeyPatch, silent_server: str) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert is_reachable(url)
        monkeypatch.setenv("https_proxy", url)
        assert is_reachable("https://nowhere.invalid")
        monkeypatch.delenv("https_proxy")
    assert not is_reachable(url)
    began = time.monotonic()
    assert not is_reachable(silent_server)
    assert time.monotonic() - began < 2


# --- shards, idle runs, dry runs ---------------------------------------------------------------------------------------


def test_merge_names_the_shards_that_are_missing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, checkpoint_12lead: Path
) -> None:
    write_cohort(tmp_path / "in", 12)
    out = tmp_path / "out"
    flags = flags_of(tmp_path / "in", out, checkpoint_12lead)
    assert cli.main([*flags, "--shard", "2/3"]) in (0, 1)
    capsys.readouterr()
    assert cli.main(["merge", str(out)]) == 1
    told = capsys.readouterr().err
    lines = [line for line in told.splitlines() if line.startswith("Shard ")]
    assert [line.partition(":")[0] for line in lines] == ["Shard 1/3", "Shard 3/3"]
    assert lines[0].endswith(
        f"still to do: ecgfounder embed --output_dir {out} --shard 1/3, with the run's other flags"
    )
    pending = sum(int(line.split()[2]) for line in lines)
    assert f"{pending} still to do" in told
    for shard in ("1/3", "3/3"):
        assert cli.main([*flags, "--shard", shard]) in (0, 1)
    capsys.readouterr()
    cli.main(["merge", str(out)])
    assert "Shard" not in capsys.readouterr().err


def test_a_run_with_nothing_to_do_tells_no_rates(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, checkpoint_12lead: Path
) -> None:
    write_cohort(tmp_path / "in", 3)
    (tmp_path / "in" / "ecg_07.npy").unlink()
    flags = flags_of(tmp_path / "in", tmp_path / "out", checkpoint_12lead)
    assert cli.main(flags) == 0
    told = capsys.readouterr().err
    assert "3 in this attempt" in told
    assert "Time by stage" in told
    assert cli.main(flags) == 0
    told = capsys.readouterr().err
    assert "3 of 3 recordings embedded, 0 failed; nothing was left to do" in told
    assert "ECG/s" not in told
    assert "Time by stage" not in told
    named = re.search(r"^A page about this run: ecgfounder (.+)$", told, re.MULTILINE)
    assert named is not None
    assert cli.main(shlex.split(named[1])) == 0
    assert (tmp_path / "out-report" / "report.html").is_file()


def test_a_dry_run_explains_what_changed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, checkpoint_12lead: Path
) -> None:
    write_cohort(tmp_path / "in", 3)
    (tmp_path / "in" / "ecg_07.npy").unlink()
    flags = flags_of(tmp_path / "in", tmp_path / "out", checkpoint_12lead)
    assert cli.main(flags) == 0
    (tmp_path / "in" / "ecg_00.npy").write_bytes((tmp_path / "in" / "ecg_01.npy").read_bytes())
    (tmp_path / "out" / "ecg_01.json").unlink()
    (tmp_path / "in" / "ecg_02.npy").unlink()
    capsys.readouterr()
    assert cli.main([*flags, "--dry_run"]) == 0
    told = capsys.readouterr().out
    assert "changed     1  (to do again: their files differ from those that were embedded)" in told
    assert "missing     1  (to do again: their outputs are no longer in the output folder)" in told
    assert "gone        1  (in the output folder, but no longer in the dataset; their outputs are kept)" in told
    assert "found again 0\n" in told
