"""The documentation: every command and snippet runs, every message is what the program says, and the site is built offline.

The cohorts' pages run on stand-ins of the same layout with a few synthetic recordings; `/data/` and the working directory are
temporary folders. In a page, a `# exit status N` behind a command is what it must end with (0 if nothing is said), a text block
after a block that ran must be found in what that printed (`…` stands for anything), and `<!-- $ command -->` runs unseen.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import importlib.util
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch

import ecgfounder
from ecgfounder import errors
from ecgfounder.cli import COMMANDS, main
from ecgfounder.commands.chat import dummy_main, mimic_main
from ecgfounder.commands.compare import add_compare_arguments
from ecgfounder.commands.doctor import add_doctor_arguments
from ecgfounder.commands.drift import add_drift_arguments
from ecgfounder.commands.embed import add_embed_arguments, advice, report, settings_of
from ecgfounder.commands.export import add_export_arguments
from ecgfounder.commands.inspect import add_inspect_arguments
from ecgfounder.commands.probe import add_probe_arguments
from ecgfounder.commands.terminal import as_flags
from ecgfounder.commands.verify import add_verify_arguments
from ecgfounder.commands.view import add_view_arguments
from ecgfounder.drivers.launch import join_launch
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.errors import MissingDependencyError, RunError
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.groups.hold import StoreHold
from ecgfounder.ledger.locks import RunLock
from ecgfounder.ledger.manifest import Tally
from ecgfounder.readers import read_ecg
from ecgfounder.results.run import open_run
from ecgfounder.run.budget import Budget
from ecgfounder.run.plan import Plan
from ecgfounder.run.run import Summary
from ecgfounder.run.settings import Settings
from ecgfounder.storage import Location
from tests.builders import cardiosoft as cardiosoft_xml
from tests.builders import muse as muse_xml
from tests.harness.finished_demo import FinishedDemo
from tests.harness.pages import DOCS, Block, blocks_of, commands_of
from tests.places import ROOT

pytestmark = pytest.mark.usefixtures("known_files")

OUTPUT = ("--output_dir", "embeddings")
ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "embed": add_embed_arguments,
    "inspect": add_inspect_arguments,
    "export": add_export_arguments,
    "compare": add_compare_arguments,
    "doctor": add_doctor_arguments,
    "drift": add_drift_arguments,
    "verify": add_verify_arguments,
    "view": add_view_arguments,
    "probe": add_probe_arguments,
}


class Workplace:
    """A working directory in which a page's blocks are run one after the other, as its reader would."""

    def __init__(self, folder: Path, special: dict[str, Callable[[], str]]) -> None:
        self.folder = folder
        self.special = special
        self.names: dict[str, Any] = {"__name__": "page"}
        self.said = ""
        self.runs = 0
        self.not_run = {"doctor", "verify", "view"}

    def run(self, block: Block) -> None:
        if block.kind == "bash":
            self.said = ""
            if block.text in self.special:
                self.said = self.special[block.text]()
                return
            for words, status in commands_of(block.text.replace("/data/", f"{self.folder}/data/")):
                found = self.command(words)
                assert found == status, f"line {block.line}: {' '.join(words)} ended with {found}:\n{self.said}"
        elif block.kind == "python":
            code = block.text.replace("/data/", f"{self.folder}/data/")
            self.said = self.listen(lambda: exec(compile(code, f"line {block.line}", "exec"), self.names))
        elif block.kind == "text" and self.said:
            self.compare(block)
        else:
            self.said = ""

    def compare(self, block: Block) -> None:
        """Every line of the block is a line of what was printed."""
        said = [line.strip() for line in self.said.replace(f"{self.folder}/data/", "/data/").splitlines()]
        for line in block.text.splitlines():
            pattern = re.compile(".*".join(map(re.escape, line.strip().split("…"))) + ("" if "…" in line else r"\Z"))
            assert any(pattern.match(each) for each in said), (
                f"line {block.line}: not said: {line}\nbut:\n" + "\n".join(said)
            )

    def command(self, words: list[str]) -> int:
        """Run a command, or look at its flags where running makes no sense here; the exit status."""
        if words[:2] == ["accelerate", "launch"]:
            at = words.index("ecgfounder.cli")
            assert words[at - 1] == "-m"
            self.check_flags(words[at + 1 :])
            return 0
        if words[0] in ("pip", "hf"):
            return 0
        if words[0] == "python":
            made = {"create_dummy_dataset.py": dummy_main, "create_mimic_ecg_inputs.py": mimic_main}
            return made[Path(words[1]).name](words[2:])
        assert words[0] == "ecgfounder", f"no command of ours: {' '.join(words)}"
        if words[1] in self.not_run:
            self.check_flags(words[1:])
            return 0
        if words[1] == "embed":
            self.runs += 1
            given = [*("--output_dir", f"run-{self.runs}"), *("--checkpoint", "checkpoints")]
            words = ["ecgfounder", "embed", *given, *words[2:], *("--num_workers", "0")]
        status = -1

        def run() -> None:
            nonlocal status
            try:
                status = main(words[1:])
            except SystemExit as stop:
                status = int(stop.code or 0)

        self.said += self.listen(run)
        return status

    @staticmethod
    def check_flags(words: list[str]) -> None:
        parser = argparse.ArgumentParser(prog=" ".join(words))
        ARGUMENTS[words[0]](parser)
        arguments = parser.parse_args(words[1:])
        if words[0] == "embed":
            settings_of(arguments)

    @staticmethod
    def listen(run: Callable[[], Any]) -> str:
        heard = io.StringIO()
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            run()
        return heard.getvalue()


@pytest.fixture(scope="module")
def demo(demo_cohort: Path) -> Path:
    return demo_cohort / "ecg"


@pytest.fixture
def workplace(
    tmp_path: Path, checkpoint_12lead: Path, monkeypatch: pytest.MonkeyPatch, special: dict[str, Callable[[], str]]
) -> Workplace:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "12_lead_ECGFounder.pth").symlink_to(checkpoint_12lead)
    return Workplace(tmp_path, special)


def read_page(name: str, workplace: Workplace) -> None:
    """Run a page from top to bottom."""
    for block in blocks_of(DOCS / name):
        if block.kind == "python" and "sklearn" in block.text and importlib.util.find_spec("sklearn") is None:
            continue
        workplace.run(block)


# --- stand-ins for cohorts -------------------------------------------------------------------------------------------


def millivolts(demo: Path, number: int = 1) -> npt.NDArray[np.float32]:
    """Ten seconds of a demo recording, [12, 5000] in the standard order."""
    (path,) = demo.rglob(f"ecg_{number:04d}.xml")
    recording = read_ecg(path)
    assert recording.leads == STANDARD_LEADS
    return recording.samples[:, :5000]


def write_wfdb(record: Path, samples: npt.NDArray[np.float32], rate: int, leads: tuple[str, ...], gain: int) -> None:
    """A WFDB record in format 16, as PhysioNet's are: its path has no suffix."""
    record.parent.mkdir(parents=True, exist_ok=True)
    rows = [STANDARD_LEADS.index(lead) for lead in leads]
    counts = np.rint(samples[rows].T * gain).astype("<i2")
    counts.tofile(record.with_name(f"{record.name}.dat"))
    lines = [f"{record.name} {len(leads)} {rate} {len(counts)}"]
    for lead, column in zip(leads, counts.T, strict=True):
        checksum = int(np.int64(column.sum()).astype("<i2"))
        lines.append(f"{record.name}.dat 16 {gain}(0)/mV 16 0 {column[0]} {checksum} 0 {lead}")
    record.with_name(f"{record.name}.hea").write_text("\n".join(lines) + "\n")


def mimic(data: Path, demo: Path) -> None:
    root = data / "mimic-iv-ecg" / "1.0"
    order = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
    records, machine = [], []
    for number, (subject, study) in enumerate([(10000032, 40689238), (10000032, 44458630), (10000117, 45090959)], 1):
        path = f"files/p{subject // 10000}/p{subject}/s{study}/{study}"
        write_wfdb(root / path, millivolts(demo, number), 500, order, gain=200)
        records.append((subject, study, study, "2180-07-23 08:44:00", path))
        machine.append((subject, study, 6848296, "2180-07-23 08:44:00", "Sinus rhythm", None, "Normal ECG", 659))
    pd.DataFrame(records, columns=["subject_id", "study_id", "file_name", "ecg_time", "path"]).to_csv(
        root / "record_list.csv", index=False
    )
    columns = ["subject_id", "study_id", "cart_id", "ecg_time", "report_0", "report_1", "report_2", "rr_interval"]
    pd.DataFrame(machine, columns=columns).to_csv(root / "machine_measurements.csv", index=False)


def ptb_xl(data: Path, demo: Path) -> None:
    root = data / "ptb-xl"
    rows = []
    for number, fold in ((1, 3), (2, 9), (3, 10)):
        low, high = f"records100/00000/{number:05d}_lr", f"records500/00000/{number:05d}_hr"
        write_wfdb(root / low, millivolts(demo, number)[:, ::5], 100, STANDARD_LEADS, gain=1000)
        write_wfdb(root / high, millivolts(demo, number), 500, STANDARD_LEADS, gain=1000)
        report = "sinusrhythmus\nnormales ekg, sonst" if number == 2 else "sinusrhythmus"
        rows.append((number, 15709.0, report, "{'NORM': 100.0, 'SR': 0.0}", fold, low, high))
    columns = ["ecg_id", "patient_id", "report", "scp_codes", "strat_fold", "filename_lr", "filename_hr"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "ptbxl_database.csv", index=False)
    statements = {"diagnostic": [1.0, None], "diagnostic_class": ["NORM", None]}
    pd.DataFrame(statements, index=["NORM", "SR"]).to_csv(root / "scp_statements.csv")


def code_15(data: Path, demo: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="HDF5 needs the extra [hdf5]")
    root = data / "code-15"
    root.mkdir()
    exams = [1169160, 2873686, 168405]
    tracings = np.zeros((4, 4096, 12), dtype="f4")  # the last row is a filler, as in the published files
    times = np.arange(4000) / 400
    for row, seconds in enumerate((10.0, 7.0, 10.0)):
        ecg = np.stack([np.interp(times, np.arange(5000) / 500, lead) for lead in millivolts(demo, row + 1)])
        ecg = ecg[:, : round(seconds * 400)]
        first = (4096 - ecg.shape[1]) // 2
        tracings[row, first : first + ecg.shape[1]] = ecg.T
    with h5py.File(root / "exams_part0.hdf5", "w") as file:
        file["exam_id"] = np.array([*exams, 0])
        file.create_dataset("tracings", data=tracings, chunks=(1, 4096, 12), compression="gzip")
    labels = {name: [False, True, False] for name in ("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST")}
    table = {"exam_id": exams, "age": [38, 73, 55], "is_male": [True, False, True], **labels, "patient_id": [7, 8, 9]}
    table |= {"death": [False, None, True], "timey": [3.2, None, 1.5]}  # of first exams alone
    pd.DataFrame({**table, "trace_file": "exams_part0.hdf5"}).to_csv(root / "exams.csv", index=False)


def uk_biobank(data: Path, demo: Path) -> None:
    root = data / "ukb" / "20205"
    for number, name in enumerate(["10/1012345_20205_2_0", "10/1012345_20205_3_0", "12/1234567_20205_2_0"], 1):
        counts = np.rint(millivolts(demo, number) * 200).astype(int)
        leads = {lead: row.tolist() for lead, row in zip(STANDARD_LEADS, counts, strict=True)}
        path = root / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cardiosoft_xml.document(cardiosoft_xml.strip_data(leads, total="5000")))
    table = {"eid": [1012345, 1234567, 7654321], "age": [61, 47, 55], "af": [0, 1, 0]}
    pd.DataFrame(table).to_csv(data / "ukb" / "phenotypes.csv", index=False)


def philips(data: Path, demo: Path) -> None:
    for year, number in (("2021", 1), ("2022", 7)):
        (path,) = demo.rglob(f"ecg_{number:04d}.xml")
        target = data / "philips" / year / "ecg.xml"
        target.parent.mkdir(parents=True)
        target.write_bytes(path.read_bytes())


def muse(data: Path, demo: Path) -> None:
    (data / "muse").mkdir()
    for number, rate in ((1, 500), (2, 250)):
        samples = millivolts(demo, number)[:, :: 500 // rate]
        counts = np.rint(samples / 0.00488).astype("<i2")
        leads = {lead: counts[STANDARD_LEADS.index(lead)] for lead in muse_xml.STORED}
        median = muse_xml.waveform({lead: row[:300] for lead, row in leads.items()}, "Median")
        document = muse_xml.document(median, muse_xml.waveform(leads, base=rate))
        (data / "muse" / f"MUSE_20200131_12000{number}_78000.xml").write_bytes(document)


# --- the pages -------------------------------------------------------------------------------------------------------


@pytest.fixture
def special(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], str]]:
    """What no command can provoke here: how each of these comes to its message."""

    def out_of_memory() -> str:
        nothing = np.zeros(0, dtype=np.bool_)
        plan = Plan(nothing, nothing, done=0, failed=0, changed=0, missing=0, gone=0)
        summary = Summary("complete", Tally(done=1), plan, 1, 0, 1.0, "torch", "cuda", samples_per_pass=24 * 5000)
        lines: list[str] = []

        class Console:
            line = staticmethod(lines.append)

        report(summary, Settings(dataset="x", output_dir=tmp_path), Console())  # type: ignore[arg-type]
        return "\n".join(lines)

    def full_disk() -> str:
        budget = Budget(174_400_000_000, 800_000, 90_100_000_000, 500_000)
        with pytest.raises(RunError) as refused:
            budget.check(Path("/data/embeddings"))
        return as_flags(str(refused.value))

    def launcher() -> str:
        class Alone:
            num_processes = 1

            def __init__(self, **_: object) -> None: ...

        with monkeypatch.context() as patched:
            patched.setattr("accelerate.Accelerator", Alone)
            patched.setenv("WORLD_SIZE", "2")
            with pytest.raises(RunError) as refused:
                join_launch("cpu")
        return as_flags(str(refused.value))

    return {
        "out of memory": out_of_memory,
        "a full disk": full_disk,
        "a launcher": launcher,
        "a slow network": lambda: advice("embed", Settings(dataset="x", output_dir=tmp_path), "cpu"),
        "a missing extra": lambda: str(MissingDependencyError("h5py", "reading HDF5 files", "hdf5")),
    }


DERIVED = "derived_leads:III,aVR,aVL,aVF"


@pytest.mark.parametrize(
    ("page", "build", "run", "flags"),
    [
        ("mimic-iv-ecg", mimic, "mimic-iv-ecg", [[], [], []]),
        ("ptb-xl", ptb_xl, "ptb-xl", [[], [], []]),
        ("code-15", code_15, "code-15", [["resampled:400"]] * 3),
        ("uk-biobank", uk_biobank, "ukb", [[], [], []]),
        ("philips", philips, "philips", [[], []]),
        ("muse", muse, "muse", [[DERIVED], ["resampled:250", DERIVED]]),
    ],
)
@pytest.mark.filterwarnings("ignore:.* have a row of the table:UserWarning")
def test_a_cohorts_page_works_on_its_layout(
    page: str,
    build: Callable[[Path, Path], None],
    run: str,
    flags: list[list[str]],
    workplace: Workplace,
    demo: Path,
) -> None:
    build(workplace.folder / "data", demo)
    workplace.not_run.add(
        "probe"
    )  # of so few recordings; `tests/analysis/pages/test_pages.py` runs it on runs of the same layout
    read_page(f"cohorts/{page}.md", workplace)
    X, meta = open_run(workplace.folder / "embeddings" / run).arrays(pooling="mean")
    assert X.shape == (len(flags), 1024)
    assert [sorted(each) for each in meta["flags"].to_pylist()] == [sorted(each) for each in flags]


def test_the_tutorial_runs_and_shows_what_its_command_draws(workplace: Workplace, finished_demo: FinishedDemo) -> None:
    pytest.importorskip("matplotlib", reason="the tutorial draws an ECG; the extra [report] is not installed")
    from PIL import Image

    workplace.special["ecgfounder demo demo\n"] = lambda: finished_demo.copy_to(Path("demo"))
    read_page("tutorial.md", workplace)
    assert workplace.names["X"].shape == (12, 1024)
    with Image.open(workplace.folder / "ecg.png") as drawn, Image.open(DOCS / "figures" / "paper.png") as shown:
        assert drawn.size == shown.size, "draw the figures again: python docs/figures/make_figures.py"
        differences = np.abs(np.asarray(drawn.convert("L"), dtype=float) - np.asarray(shown.convert("L"), dtype=float))
    assert differences.mean() < 5  # the page's has fewer colours; another drawing differs by 10 and more


def test_the_first_page_runs(workplace: Workplace, demo: Path) -> None:
    for number in (1, 7):
        (path,) = demo.rglob(f"ecg_{number:04d}.xml")
        (workplace.folder / "data" / "ecg").mkdir(exist_ok=True)
        (workplace.folder / "data" / "ecg" / path.name).write_bytes(path.read_bytes())
    read_page("index.md", workplace)
    assert workplace.names["X"].shape == (2, 1024)
    assert (workplace.folder / "embeddings" / "ecg_0001.json").exists()


def test_the_page_on_neighbours_runs(workplace: Workplace, finished_demo: FinishedDemo) -> None:
    finished_demo.copy_to(workplace.folder / "demo")
    read_page("neighbours.md", workplace)
    assert workplace.names["found"].rows.shape == (12, 5)
    assert (workplace.folder / "neighbours" / "hubs.csv").exists()


def test_the_page_on_the_viewer_runs(workplace: Workplace, finished_demo: FinishedDemo) -> None:
    finished_demo.copy_to(workplace.folder / "demo")
    read_page("view.md", workplace)
    assert workplace.said == "enter\n"


def test_the_page_on_duplicates_runs(workplace: Workplace, finished_demo: FinishedDemo) -> None:
    finished_demo.copy_to(workplace.folder / "demo")
    read_page("duplicates.md", workplace)
    assert workplace.names["found"].n_of["same_file"] == 0
    assert (workplace.folder / "duplicates" / "recordings.csv").exists()


def written_script(workplace: Workplace) -> str:
    """The script of `--write_slurm` with the reader's folders, and without what `Workplace` adds to a command."""
    script = (
        Path("job.sh").read_text().replace("  --num_workers 0 \\\n", "").replace("cpus-per-task=4", "cpus-per-task=6")
    )
    for here, there in (
        (f"{workplace.folder}/data/", "/data/"),
        (str(workplace.folder), "/home/me/study"),
        (sys.executable, "/home/me/.venv/bin/python"),
        (ecgfounder.__version__, "0.2.0"),
    ):
        script = script.replace(here, there)
    return script


def test_resuming_does_what_its_page_says(workplace: Workplace, demo: Path) -> None:
    data = workplace.folder / "data"
    (data / "ecg").symlink_to(demo)
    mimic(data, demo)
    for block in blocks_of(DOCS / "resuming.md"):
        if "SBATCH" not in block.text:
            workplace.run(block)
            continue
        assert written_script(workplace) == block.text
        (command,) = re.findall(r"ecgfounder\.cli (embed .*?) \\\n  --shard ", Path("job.sh").read_text(), re.DOTALL)
        for task in range(1, 5):
            assert main([*shlex.split(command.replace("\\\n", " ")), "--shard", f"{task}/4"]) == 0
    assert open_run("embeddings/array").is_complete


def test_troubleshooting_quotes_what_the_program_says(
    workplace: Workplace, demo: Path, checkpoint_1lead: Path, checkpoint_12lead: Path
) -> None:
    data, checkpoints = workplace.folder / "data", workplace.folder / "checkpoints"
    troubles(data, demo)
    (checkpoints / "one_lead.pth").symlink_to(checkpoint_1lead)
    broken_checkpoints(checkpoints, checkpoint_12lead)
    with RunLock(workplace.folder / "held" / "_run" / "locks"):
        read_page("troubleshooting.md", workplace)


def troubles(data: Path, demo: Path) -> None:
    """The cohorts that the troubleshooting page meets."""
    pd.DataFrame({"path": ["a.xml"], "study": [1]}).to_csv(data / "other-column.csv", index=False)
    validation = datasets.Dataset.from_dict({"ecg_paths": ["a.xml"]})
    datasets.DatasetDict({"validation": validation}).save_to_disk(str(data / "splits"))
    relative = {"ecg_paths": ["patient_001/ecg_0001.xml"], "study_id": [40689238]}
    pd.DataFrame(relative).to_csv(data / "relative.csv", index=False)
    decimal = {"ecg_paths": ["a.xml", "b.xml"], "study_id": [40689238, None]}
    pd.DataFrame(decimal).to_csv(data / "decimal.csv", index=False)
    normal, calibrated, uncompressed = (next(demo.rglob(f"ecg_{n:04d}.xml")).read_bytes() for n in (1, 7, 9))
    files = {
        "two/a/ecg.xml": normal,
        "two/b/ecg.xml": normal,
        "philips/calibrated.xml": calibrated,
        "philips/uncompressed.xml": uncompressed,
        "odd/note.xml": b"<note/>",
        "odd/empty.xml": b"",
        "odd/array.csv": "\n".join(["0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0,1.1,1.2"] * 300).encode(),
    }
    for name, content in files.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(content)


def broken_checkpoints(folder: Path, whole: Path) -> None:
    state = torch.load(whole, weights_only=True, mmap=True)["state_dict"]
    torch.save({"epoch": 1}, folder / "no_weights.pth")
    missing = {name: torch.zeros(1) for name in state if "stage_list.3" not in name and "first_conv" not in name}
    torch.save({"state_dict": missing}, folder / "some_missing.pth")
    torch.save({"state_dict": {n: t for n, t in state.items() if "dense" not in n}}, folder / "no_head.pth")
    torch.save({"state_dict": {}, "folder": Path("x")}, folder / "code.pth")
    (folder / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


@pytest.mark.parametrize("page", [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"], ids=lambda page: page.stem)
def test_no_page_has_a_flag_that_does_not_exist(page: Path) -> None:
    for block in blocks_of(page):
        if block.kind != "bash" or "SBATCH" in block.text:
            continue
        for words, status in commands_of(block.text):
            if words[0] == "ecgfounder" and words[1] in ARGUMENTS and "..." not in words and status != 2:
                Workplace.check_flags([*words[1:], *([] if "--output_dir" in words or words[1] != "embed" else OUTPUT)])


def test_examples_on_pages_exist_and_have_the_flags_that_are_shown() -> None:
    shown = 0
    for page in sorted(DOCS.rglob("*.md")):
        for block in blocks_of(page):
            for words, _ in commands_of(block.text) if block.kind == "bash" and "examples/" in block.text else ():
                [script] = [word for word in words if word.startswith("examples/")] or [""]
                text = (ROOT / script).read_text(encoding="utf-8") if script else ""
                flags = [word for word in words[words.index(script) + 1 :] if word.startswith("--")] if script else []
                assert [flag for flag in flags if f'"{flag}"' not in text] == []
                shown += bool(flags)
    assert shown >= 3


@pytest.mark.parametrize("page", [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"], ids=lambda page: page.stem)
def test_long_commands_are_broken(page: Path) -> None:
    for block in blocks_of(page):
        if block.kind == "bash" and block.text.endswith("\n"):  # not a command in a comment
            long = [line for line in block.text.splitlines() if len(line) > 90]
            assert not long, f"line {block.line}: {long}"


@pytest.mark.parametrize("page", [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"], ids=lambda page: page.stem)
def test_a_page_that_uses_scikit_learn_says_how_to_install_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert ("sklearn" not in text) or "pip install scikit-learn" in text


def test_the_page_of_commands_names_each_and_no_other() -> None:
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:accelerate launch \.\.\. -m )?ecgfounder(?:\.cli)? ([a-z]\w*)", page))
    assert named == set(COMMANDS)
    parser = argparse.ArgumentParser(add_help=False)
    add_embed_arguments(parser)
    flags = set(re.findall(r"`[^`]*?(--\w+)", page))
    known = {flag for action in parser._actions for flag in action.option_strings}
    assert flags <= known | {"--by", "--checkpoint", "--plot", "--record", "--to", "--help", "--print_completion"}


def test_the_tree_of_a_run_s_folder_is_complete(
    workplace: Workplace, demo: Path, elsewhere: Location, checkpoint_12lead: Path
) -> None:
    page = (DOCS / "outputs.md").read_text(encoding="utf-8")
    tree = page.partition("```text\n")[2].partition("```")[0]
    outer, _, inner = tree.partition("  _run/\n")
    given = ["--dataset", str(demo), "--checkpoint", str(checkpoint_12lead), "--num_workers", "0", "--predictions"]
    given += ["--statements", "--pooling", "mean"]
    out = workplace.folder / "out"
    assert main(["embed", *given, "--output_dir", str(out)]) == 1
    assert main(["embed", *given, "--output_dir", str(out / "shards"), "--format", "parquet"]) == 1
    (workplace.folder / "cohort").mkdir()
    for name in ("a/x.npy", "b/x.npy"):
        (workplace.folder / "cohort" / name).parent.mkdir()
        np.save(workplace.folder / "cohort" / name, np.zeros((12, 5000)))
    collide = ["--dataset", str(workplace.folder / "cohort"), "--checkpoint", str(checkpoint_12lead)]
    assert main(["embed", *collide, "--output_dir", str(out / "refused")]) == 2
    with StoreHold(RunFolder(elsewhere), (1, 1)) as hold:
        hold.begin()
    names = {path.name for folder in out.rglob("_run") for path in folder.iterdir()}
    names |= {name.partition("/")[0] for name in (elsewhere / "_run").names()}
    entries = (re.split("  +", line.strip())[0] for line in inner.splitlines())
    assert names == {name.strip().partition("/")[0] for entry in entries for name in entry.split(",")}
    beside = {path.name for folder in (out, out / "shards") for path in folder.iterdir() if path.is_file()}
    patterns = ("deid_3.json", "embeddings-*.parquet", ".huggingface.yaml")
    assert all(pattern in outer for pattern in patterns)
    assert all(name.endswith(".json") or fnmatch(name, patterns[1]) or name == patterns[2] for name in beside)


def test_the_reference_has_every_public_name() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    shown = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)", page, re.MULTILINE)}
    shown |= set(re.findall(r"`(\w+)`", page)) | {name for name in vars(errors) if name.endswith("Error")}
    assert set(ecgfounder.__all__) <= shown


# --- the site --------------------------------------------------------------------------------------------------------


def test_every_figure_is_drawn_by_the_script_and_small(
    tmp_path: Path, finished_demo: FinishedDemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="figures need the extra [report]")
    monkeypatch.setattr("ecgfounder.demo.demo.write_demo", lambda _folder: finished_demo.paths)
    script = DOCS / "figures" / "make_figures.py"
    with matplotlib.rc_context():
        runpy.run_path(str(script))["main"]([str(tmp_path)])
    drawn = {path.name for path in tmp_path.iterdir()}
    kept = {path.name for path in script.parent.iterdir() if path.suffix in (".svg", ".png")}
    assert drawn == kept
    assert all((script.parent / name).stat().st_size < 300_000 for name in kept)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    for package in ("mkdocs", "material", "mkdocstrings_handlers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"building the site needs the extra [docs]: {package} is not installed")
    folder = tmp_path_factory.mktemp("site")
    # A proxy that nobody listens to: whoever asks the network fails.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    return folder


def test_the_site_is_built_without_a_complaint_and_loads_nothing_from_elsewhere(site: Path) -> None:
    reference = html.unescape((site / "api.html").read_text(encoding="utf-8"))
    assert re.search(r"<p>\"12lead\" or \"1lead\", the network.</p>", reference)  # a meaning, not taken for a type
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")  # for pages from disk
    assert index.startswith("var __index = {")
    assert "write_slurm" in index
    assert 'href="stylesheets/extra.css"' in (site / "index.html").read_text(encoding="utf-8")
    loads = re.compile(
        r"""<(?:script|img|iframe|source)\b[^>]*\ssrc=["']?(?:https?:)?//|<link\b[^>]*\bhref=["']?(?:https?:)?//"""
    )
    for page in site.rglob("*.html"):
        found = loads.search(page.read_text(encoding="utf-8"))
        assert found is None, f"{page.name}: {found and found[0]}"


def in_browser(page: str, *flags: str) -> str:
    """The page as a browser without a screen makes it from disk."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    words = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=15000",
        "--dump-dom",
        *flags,
    ]
    return subprocess.run([*words, page], capture_output=True, text=True, timeout=120).stdout


@pytest.mark.parametrize(
    ("page", "query", "found"), [("index", "requeue", "resuming"), ("cohorts/muse", "strat_fold", "ptb-xl")]
)
def test_the_site_is_searched_from_disk(site: Path, page: str, query: str, found: str) -> None:
    shown = in_browser(f"file://{site}/{page}.html?q={query}")
    results = re.findall(r'href="([^"]+)"[^>]*class="md-search-result__link"', shown)
    assert any(f"{found}.html" in each for each in results), results


def test_tables_fit_a_narrow_screen(site: Path, tmp_path: Path) -> None:
    measure = """<script>addEventListener("load", () => setTimeout(() => {
      const cells = [...document.querySelectorAll("article td")].map((cell) => cell.getBoundingClientRect().right);
      document.title = `${document.documentElement.clientWidth} ${Math.max(...cells)}`;
    }, 2000));</script></body>"""
    for name in ("commands", "resuming"):
        page = (site / f"{name}.html").read_text(encoding="utf-8")
        (site / f"{name}-measured.html").write_text(page.replace("</body>", measure))
        shown = in_browser(f"file://{site}/{name}-measured.html", "--window-size=500,900")
        width, right = map(float, re.findall(r"<title>([\d.]+) ([\d.]+)</title>", shown)[0])
        assert width <= 500
        assert right <= width, name
