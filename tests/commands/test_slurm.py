"""`--write_slurm`: the script that it writes, run by bash with SLURM's variables and a stand-in for `scontrol`."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from ecgfounder.cli import main
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.status import RunStatus, run_status

N_RECORDINGS = 13

Write = Callable[..., int]

pytestmark = pytest.mark.usefixtures("known_files")


@pytest.fixture
def write(tmp_path: Path, demo_cohort: Path, checkpoint_12lead: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes `job.sh` for a run to `out`, in a folder whose name needs quotes; or does a task of it without the script."""
    folder = tmp_path / "it's here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in [each for each in os.environ if each.startswith("SLURM_")]:
        monkeypatch.delenv(name)

    def run(*more: str, task: bool = False) -> int:
        words = ["embed", "--dataset", str(demo_cohort / "ecg"), "--checkpoint", str(checkpoint_12lead)]
        words += ["--output_dir", "out", "--pooling", "mean", "--num_workers", "0"]
        return main([*words, *(() if task else ("--write_slurm", "job.sh")), *more])

    return run


def environment(task: int, tmp_path: Path, **more: str) -> dict[str, str]:
    """What SLURM gives to a task; `scontrol` notes how it is called."""
    programs = tmp_path / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/scontrol.log"\n')
    (programs / "scontrol").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_JOB_ID": "77", **more}


def submit(tmp_path: Path, *tasks: int) -> list[int]:
    """Run tasks as `sbatch --array` does, from another folder; returns their exit statuses."""
    return [
        subprocess.run(["bash", str(Path("job.sh").absolute())], env=environment(task, tmp_path), cwd="/").returncode
        for task in tasks
    ]


def status() -> RunStatus:
    return run_status(RunFolder("out"))


@pytest.fixture
def script(write: Write) -> str:
    assert write("--shard", "1/4") == 0
    return Path("job.sh").read_text()


def test_the_script_has_its_shards_as_a_literal_and_the_same_flags(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write("--shard", "1/4") == 0
    assert subprocess.run(["bash", "-n", "job.sh"]).returncode == 0
    script = Path("job.sh").read_text()
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash"
    for line in ("#SBATCH --array=1-4", "#SBATCH --signal=B:USR1@120", "#SBATCH --requeue", "SHARDS=4"):
        assert line in lines
    assert "SLURM_ARRAY_TASK_COUNT" not in script
    assert "  --pooling mean \\" in lines
    assert "write_slurm" not in script
    said = capsys.readouterr()
    assert "recordings  13\nto do       13\n" in said.out  # of the whole cohort, not of a shard
    assert "job.sh: 4 shards. Submit it: sbatch job.sh" in said.err
    assert "sbatch --dependency=afterany:JOB --wrap=" in said.err
    assert os.access("job.sh", os.X_OK)
    assert not Path("out").exists()


@pytest.mark.slow
def test_lost_tasks_are_sent_again_alone(script: str, tmp_path: Path) -> None:
    assert set(submit(tmp_path, 1, 2)) <= {0, 1}
    assert status().again == ((3, 4), (4, 4))
    assert set(submit(tmp_path, 3, 4)) <= {0, 1}  # --array=3,4
    found = status()
    assert (found.again, found.done, found.failed) == ((), 12, 1)
    assert main(["merge", "out"]) == 1  # the damaged recording
    assert orjson.loads(Path("out/_run/run.json").read_bytes())["outcome"] == "complete"


@pytest.mark.slow
def test_an_array_that_begins_at_0_does_every_shard_once(script: str, tmp_path: Path) -> None:
    assert set(submit(tmp_path, 0, 1, 2, 3)) <= {0, 1}
    found = status()
    assert (found.again, found.done + found.failed) == ((), N_RECORDINGS)
    assert len(list(Path("out/_run/ledger").glob("*.jsonl"))) == 4
    assert submit(tmp_path, 5) == [2]


def test_without_slurm_the_script_says_how_it_is_run(script: str) -> None:
    run = subprocess.run(["bash", "job.sh"], capture_output=True, text=True)
    assert run.returncode != 0
    assert "submit this script with sbatch" in run.stderr


def wait_for(path: Path, pattern: str) -> None:
    deadline = time.monotonic() + 120
    while not list(path.glob(pattern)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "restarts", "calls"),
    [
        (signal.SIGUSR1, "0", ["requeue 77"]),
        (signal.SIGUSR1, "100", []),
        (signal.SIGTERM, "0", []),
    ],
)
def test_a_task_ends_in_order_before_its_limit_and_is_queued_again(
    number: signal.Signals, restarts: str, calls: list[str], write: Write, tmp_path: Path, demo_cohort: Path
) -> None:
    (recording,) = demo_cohort.rglob("ecg_0001.xml")
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    for each in range(1000):
        (cohort / f"{each}.xml").hardlink_to(recording)
    assert write("--dataset", str(cohort), "--shard", "1/2", "--batch_size", "1") == 0
    task = subprocess.Popen(["bash", "job.sh"], env=environment(1, tmp_path, SLURM_RESTART_COUNT=restarts))
    wait_for(Path("out"), "*.json")
    task.send_signal(number)
    assert task.wait(timeout=60) == 128 + number
    log = tmp_path / "scontrol.log"
    assert (log.read_text().splitlines() if log.exists() else []) == calls
    (part,) = Path("out/_run/ledger").glob("*.jsonl")
    assert part.read_text().splitlines()[-1].startswith('{"end":{"outcome":"interrupted"')


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ([], "--write_slurm needs the number of tasks in --shard: 1/16 gives 16 of them."),
        (["--shard", "1/4", "--dtype", "float16"], "--dtype float16 needs --format parquet"),
        (["--shard", "1/4", "--dataset", "none.csv"], "no such file"),
        (
            ["--shard", "1/4", "--storage_options", '{"secret_access_key": "sesame"}'],
            "--storage_options may be secret (secret_access_key) and is not written to a script",
        ),
    ],
)
def test_what_embed_refuses_is_refused_before_a_script_is_written(
    more: list[str], reason: str, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(*more) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert "sesame" not in said
    assert not Path("job.sh").exists()


@pytest.mark.usefixtures("script")
def test_a_run_with_other_settings_is_refused(write: Write) -> None:
    assert write("--shard", "1/4", task=True) in (0, 1)
    before = Path("job.sh").read_bytes()
    assert write("--shard", "1/4", "--window", "10") == 2
    assert Path("job.sh").read_bytes() == before
    assert write("--shard", "1/8") == 0  # the same settings in another division
    assert b"SHARDS=8" in Path("job.sh").read_bytes()


def test_another_file_is_not_replaced(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    Path("job.sh").write_text("#!/bin/bash\necho mine\n")
    assert write("--shard", "1/4") == 2
    assert "job.sh exists and is not a script of this command" in capsys.readouterr().err
    assert Path("job.sh").read_text().endswith("echo mine\n")


def test_flags_of_every_kind_come_back(write: Write, tmp_path: Path) -> None:
    table = tmp_path / "table with spaces.csv"
    table.write_text("path,study,age group\npatient_001/ecg_0001.xml,a,1\npatient_002/ecg_0002.xml,b,2\n")
    public = '{"region": "eu-central-1"}'
    more = [
        "--dataset",
        str(table),
        "--path_column",
        "path",
        "--id_column",
        "study",
        "--keep_columns",
        "age group",
        "study",
    ]
    more += ["--data_dir", "data", "--predictions", "--read_timeout", "5.5", "--storage_options", public, "--log_json"]
    Path("data").mkdir()
    assert write(*more, "--shard", "1/2", "--unit=-1") == 2  # no such unit
    assert write(*more, "--shard", "1/2", "--device", "cuda:0") == 0
    script = Path("job.sh").read_text()
    for line in (
        f"  --dataset '{table}' \\",
        "  --keep_columns 'age group' study \\",
        "  --predictions \\",
        "  --read_timeout 5.5 \\",
        f"  --storage_options '{public}' \\",
        "  --log_json \\",
        "#SBATCH --gres=gpu:1",
    ):
        assert line in script.splitlines()
