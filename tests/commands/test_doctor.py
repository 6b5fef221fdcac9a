"""`ecgfounder doctor` tells what works from what does not, and how to mend it; nothing that it meets makes it fail itself."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from ecgfounder.commands import doctor
from ecgfounder.commands.doctor import (
    ALL_WELL,
    SOME_FAILED,
    Finding,
    add_doctor_arguments,
    probe_in_process,
    run_doctor,
)
from ecgfounder.model import BUNDLES
from ecgfounder.network.checkpoint import load_state_dict


def parsed(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_doctor_arguments(parser)
    return parser.parse_args(flags)


def told(findings: Any) -> list[tuple[str, str]]:
    return [(finding.status, finding.subject) for finding in findings]


@pytest.mark.slow
def test_a_whole_examination_passes_here(
    tmp_path: Path, checkpoint_12lead: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run_doctor(parsed("--checkpoint", str(checkpoint_12lead), "--output_dir", str(tmp_path / "new")))
    lines = capsys.readouterr().out.splitlines()
    subjects = {line[6:20].strip(): line[:4] for line in lines if line[:4] in ("PASS", "WARN", "FAIL")}
    assert status == ALL_WELL, lines
    assert {subjects[name] for name in ("python", "packages", "torch", "checkpoint", "head")} == {"PASS"}
    assert {"gpu", "cores", "memory", "engine cache", "output_dir", "extra cpu"} <= set(subjects)
    assert lines[-1].endswith(" 0 failed")
    assert not (tmp_path / "new").exists()


def test_a_failed_line_makes_the_exit_status_1_and_a_warning_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Finding("PASS", "a", "well"), Finding("WARN", "b", "not so well", "do this")]
    monkeypatch.setattr(doctor, "findings", lambda *_: iter(found))
    assert run_doctor(parsed()) == ALL_WELL
    assert "WARN  b             not so well\n                    -> do this\n" in capsys.readouterr().out
    found.append(Finding("FAIL", "c", "broken", "do that"))
    assert run_doctor(parsed()) == SOME_FAILED
    assert "1 passed, 1 warnings, 1 failed" in capsys.readouterr().out


def test_a_reader_who_has_seen_enough_gets_no_traceback() -> None:
    program = (
        "from ecgfounder import cli; from ecgfounder.commands import doctor; import itertools, sys; "
        "doctor.findings = lambda *_: itertools.repeat(doctor.Finding('PASS', 'a', 'well'), 5000); "
        "sys.exit(cli.main(['doctor']))"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == ALL_WELL  # the verdict is that of all findings


# --- packages --------------------------------------------------------------------------------------------------------


def test_missing_and_old_packages_are_named_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=999", "absent-package>=1", 'lxml>=1; extra == "cpu"', 'other-absent>=2; extra == "wfdb"']
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    found = {finding.subject: finding for finding in doctor._packages()}
    assert found["packages"].status == "FAIL"
    assert "absent-package is not installed" in found["packages"].found
    assert f"numpy {metadata.version('numpy')} is not >=999" in found["packages"].found
    assert found["extra cpu"].status == "PASS"
    assert (found["extra wfdb"].status, found["extra wfdb"].fix) == ("WARN", "pip install 'ecgfounder[wfdb]'")


def test_every_extra_of_the_package_is_looked_at() -> None:
    offered = set(metadata.metadata("ecgfounder").get_all("Provides-Extra") or [])
    assert set(doctor.PURPOSE_OF_EXTRA) == offered - {"dev", "test", "formats"}


def test_source_code_that_was_never_installed_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_name: str) -> list[str]:
        raise metadata.PackageNotFoundError("ecgfounder")

    monkeypatch.setattr(metadata, "requires", absent)
    assert told(doctor._packages()) == [("WARN", "packages")]


# --- the machine -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("", None), ("1 0", None)]
)
def test_a_containers_share_of_the_cores_is_found(tmp_path: Path, content: str, cores: float | None) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert doctor._container_cores(tmp_path / "cpu.max") == cores
    assert doctor._container_cores(tmp_path / "absent") is None


def test_more_cores_than_the_container_may_use_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_container_cores", lambda: 0.5)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert told(doctor._processors()) == [("WARN", "cores"), ("WARN", "launcher")]
    monkeypatch.setattr(doctor, "_container_cores", lambda: None)
    monkeypatch.delenv("WORLD_SIZE")
    assert told(doctor._processors()) == [("PASS", "cores")]


def test_little_memory_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "meminfo"
    for content, status in (
        ("MemAvailable: 1000000 kB\n", "WARN"),
        ("MemAvailable: 9000000 kB\n", "PASS"),
        ("?", "PASS"),
    ):
        file.write_text(content)
        assert doctor._memory(file).status == status
    assert doctor._memory(tmp_path / "absent").status == "PASS"


# --- engines ---------------------------------------------------------------------------------------------------------


def python_that(does: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program in the place of Python, so that what an engine's process does can be chosen."""
    script = folder / "python"
    script.write_text(f"#!/bin/sh\n{does}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.mark.parametrize(
    ("does", "error"),
    [
        ("kill -SEGV $$", "ended by signal 11"),
        ("echo 'ImportError: libtorch.so: not found' >&2; exit 1", "ImportError: libtorch.so: not found"),
        ("exit 3", "status 3"),
        ("echo chatter", "status 0"),
        ("exec sleep 30", "no answer within 0.5 s"),
    ],
)
def test_a_library_that_crashes_or_hangs_is_a_line(
    does: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python_that(does, tmp_path, monkeypatch)
    if "sleep" in does:
        monkeypatch.setattr(doctor, "PROBE_TIMEOUT", 0.5)
    trial = probe_in_process("torch", "cpu", str(tmp_path))
    assert error in trial["error"]
    finding = doctor._engine_finding("torch", trial, None)
    assert (finding.status, finding.fix) == ("FAIL", "pip install --force-reinstall torch")


def test_without_pytorch_the_examination_still_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python_that("exit 1", tmp_path, monkeypatch)
    found = told(doctor.findings(str(tmp_path / "weights.pth")))
    assert ("FAIL", "torch") in found
    assert ("FAIL", "checkpoint") in found
    assert found[-1][1] == "engine cache"


def test_an_engine_that_gives_other_numbers_fails() -> None:
    reference = {"engine": "PyTorch", "values": [1.0, 2.0], "per_second": 10.0}
    right = {"engine": "ONNX Runtime", "values": [1.00001, 2.0], "per_second": 20.0}
    for wrong in ([1.1, 2.0], [float("nan"), 2.0]):
        assert doctor._engine_finding("onnx", {**right, "values": wrong}, reference).status == "FAIL"
    assert doctor._engine_finding("onnx", right, reference).status == "PASS"


def test_without_the_native_engine_there_is_a_warning_that_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ecgfounder.engines.native_usable", lambda: False)
    monkeypatch.setattr(doctor, "probe_in_process", lambda *_: {"engine": "any", "values": [1.0], "per_second": 1.0})
    found = {finding.subject: finding for finding in doctor._engines()}
    assert found["native"].status == "WARN"
    assert "C compiler" in found["native"].fix


def test_a_gpu_that_pytorch_cannot_use_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"cpu": {"engine": "any", "values": [1.0], "per_second": 1.0}, "cuda": {"no_gpu": "built for CUDA None"}}
    monkeypatch.setattr(doctor, "probe_in_process", lambda _choice, device, _folder: answers[device])
    monkeypatch.setattr(doctor, "_gpu_device_files", lambda: True)
    found = {finding.subject: finding for finding in doctor._engines()}
    assert found["gpu"].status == "WARN"
    assert "CUDA build" in found["gpu"].fix
    monkeypatch.setattr(doctor, "_gpu_device_files", lambda: False)
    assert told(doctor._engines())[-1] == ("PASS", "gpu")


@pytest.mark.parametrize(
    ("triton", "status"),
    [
        ({"engine": "Triton", "values": [1.0], "per_second": 1.0}, "PASS"),
        ({"engine": "Triton", "values": [2.0], "per_second": 1.0}, "FAIL"),
        ({"no_triton": "the engine needs another GPU"}, "WARN"),
    ],
)
def test_a_gpu_is_tried_with_both_of_its_engines(
    monkeypatch: pytest.MonkeyPatch, triton: dict[str, Any], status: str
) -> None:
    fine = {"engine": "any", "values": [1.0], "per_second": 1.0}
    monkeypatch.setattr(
        doctor, "probe_in_process", lambda choice, _device, _folder: triton if choice == "triton" else fine
    )
    monkeypatch.setattr(doctor, "_gpu_device_files", lambda: True)
    assert told(doctor._engines())[-2:] == [("PASS", "gpu"), (status, "triton")]


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_the_mode_is_found_from_the_weights(checkpoint_12lead: Path, checkpoint_1lead: Path) -> None:
    for path, mode in ((checkpoint_12lead, "12lead"), (checkpoint_1lead, "1lead")):
        layout, head = doctor._checkpoints(str(path), None)
        assert (layout.status, head.status) == ("PASS", "PASS")
        assert layout.found.endswith(f"--mode {mode}")


def test_both_published_files_of_a_folder_are_looked_into(
    tmp_path: Path, checkpoint_12lead: Path, checkpoint_1lead: Path
) -> None:
    for source, mode in ((checkpoint_12lead, "12lead"), (checkpoint_1lead, "1lead")):
        (tmp_path / BUNDLES[mode].filename).symlink_to(source)
    assert told(doctor._checkpoints(str(tmp_path), None)) == [("PASS", "checkpoint"), ("PASS", "head")] * 2
    assert told(doctor._checkpoints(str(tmp_path), "1lead")) == [("PASS", "checkpoint"), ("PASS", "head")]


def test_weights_for_the_other_mode_fail_and_name_it(checkpoint_1lead: Path) -> None:
    [finding] = doctor._checkpoints(str(checkpoint_1lead), "12lead")
    assert finding.status == "FAIL"
    assert "--mode 1lead" in finding.found


@pytest.mark.parametrize(("classes", "has"), [(None, "none"), (1, "1 classes")])
def test_a_checkpoint_without_the_150_statements_is_a_warning(
    tmp_path: Path, checkpoint_12lead: Path, classes: int | None, has: str
) -> None:
    state = {name: tensor for name, tensor in load_state_dict(checkpoint_12lead).items() if "dense." not in name}
    if classes:
        state |= {"dense.weight": torch.zeros(classes, 1024), "dense.bias": torch.zeros(classes)}
    torch.save(state, tmp_path / "w.pth")
    layout, head = doctor._checkpoints(str(tmp_path / "w.pth"), None)
    assert (layout.status, head.status) == ("PASS", "WARN")
    assert head.found.startswith(has)


def test_what_is_no_checkpoint_fails_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("not weights at all")
    torch.save({"state_dict": {"fc.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    for name, reason in (("text.pth", "not a PyTorch checkpoint"), ("other.pth", "missing"), ("absent.pth", "no such")):
        [finding] = doctor._checkpoints(str(tmp_path / name), None)
        assert finding.status == "FAIL"
        assert reason in finding.found
        assert finding.fix


def test_the_hubs_cache_is_looked_into_without_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_1lead: Path
) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    cached: dict[str, str] = {}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda _repo, name: cached.get(name))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert told(doctor._hub(None)) == [("PASS", "hub"), ("WARN", "checkpoint"), ("WARN", "checkpoint")]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = list(doctor._hub("12lead"))
    assert told(offline) == [("PASS", "hub"), ("FAIL", "checkpoint")]
    assert "on a machine with internet" in offline[1].fix
    cached[BUNDLES["1lead"].filename] = str(checkpoint_1lead)
    assert told(doctor._hub("1lead")) == [("PASS", "hub"), ("PASS", "checkpoint"), ("PASS", "head")]


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_place_for_outputs_is_examined_without_being_made(tmp_path: Path) -> None:
    assert told(doctor._output(tmp_path / "a" / "b")) == [("PASS", "output_dir")]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "_run").mkdir()
    assert told(doctor._output(tmp_path)) == [("PASS", "output_dir")] * 2
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").touch()
    assert told(doctor._output(other)) == [("PASS", "output_dir"), ("FAIL", "output_dir")]
    assert told(doctor._output(other / "thesis.tex")) == [("FAIL", "output_dir")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_fails(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    assert told(doctor._output(tmp_path / "new")) == [("FAIL", "output_dir")]


def test_little_space_is_a_warning_that_names_what_takes_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_free", lambda _: 100 << 20)
    [finding] = doctor._output(tmp_path)
    assert finding.status == "WARN"
    assert "--format parquet" in finding.fix
    assert doctor._engine_cache().status == "WARN"
