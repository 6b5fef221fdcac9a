"""The projector's example: from the demo cohort to a falling loss on a CPU, with both scripts' files and both forms of a run."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ecgfounder.cli import main
from ecgfounder.commands.chat import dummy_main, mimic_main
from tests.places import ROOT


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("script", "form"), [("mimic", "json"), ("dummy", "parquet")])
def test_a_tiny_model_learns_to_read_the_demos_ecgs(
    demo_cohort: Path, checkpoint_steady: Path, tmp_path: Path, script: str, form: str
) -> None:
    if importlib.util.find_spec("transformers") is None or importlib.util.find_spec("tokenizers") is None:
        pytest.skip("transformers is not installed (make test-all)")
    cohort = ["--data_dir", str(demo_cohort / "ecg")]
    flags = ["--dataset", str(demo_cohort / "dataset"), "--output_dir", str(tmp_path / "maps"), "--format", form]
    assert main(["embed", *flags, *cohort, "--checkpoint", str(checkpoint_steady), "--num_workers", "0"]) == 1
    chat = ["--dataset_name", str(demo_cohort / "dataset"), "--embeddings_dirs", str(tmp_path / "maps")]
    chat += ["--target_cols", "report_0", "report_1", "--output_file", str(tmp_path / "chat.json")]
    assert (
        mimic_main([*chat, *cohort, "--no_include_prompts"]) if script == "mimic" else dummy_main([*chat, *cohort])
    ) == 0
    program = [
        sys.executable,
        str(ROOT / "examples" / "train_projector.py"),
        "--chat_file",
        str(tmp_path / "chat.json"),
    ]
    program += ["--output_dir", str(tmp_path / "out"), "--device", "cpu"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    ended = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=800)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "out" / "losses.json").read_text())
    assert found["samples"] == 11  # one of twelve rows has a damaged ECG
    assert found["epochs"][-1] < found["epochs"][0] / 4
    assert found["own_ecgs"] < found["other_ecgs"] - 0.05  # the answers depend on the ECGs, not on the questions alone
