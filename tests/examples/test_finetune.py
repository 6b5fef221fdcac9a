"""The recipe for fine-tuning: it learns, divides by patients, keeps the test part out, and writes what the commands take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import brier_score_loss, roc_auc_score

import ecgfounder
from ecgfounder.cli import main
from examples import finetune
from tests.builders.probes import write_signals
from tests.places import ROOT

TABLE = """\
ecg_paths,patient,fast,slow,part
patient_001/ecg_0001.xml,1,0,0,train
patient_002/ecg_0002.xml,2,0,1,train
patient_003/ecg_0003.xml,3,0,0,validation
patient_003/ecg_0004.xml,3,1,0,validation
patient_004/ecg_0005.xml,4,0,0,test
patient_005/ecg_0006.xml,5,0,0,train
patient_006/ecg_0007.xml,6,0,0,train
patient_007/ecg_0008.xml,7,0,0,test
patient_008/ecg_0009.xml,8,0,1,validation
patient_009/ecg_0010.xml,9,0,0,train
patient_010/ecg_0011.xml,10,1,0,train
patient_011/ecg_0012.xml,11,0,1,test
patient_012/ecg_0013.xml,12,0,0,test
"""


def run(
    launcher: list[str], demo: Path, checkpoint: Path, folder: Path, *more: str
) -> subprocess.CompletedProcess[str]:
    """The example in a process of its own, over the demo cohort, whose last file is damaged."""
    (folder / "labels.csv").write_text(TABLE)
    flags = ["--dataset", str(folder / "labels.csv"), "--data_dir", str(demo / "ecg"), "--patient_column", "patient"]
    flags += ["--label_columns", "fast", "slow", "--checkpoint", str(checkpoint), "--output_dir", str(folder / "out")]
    flags += ["--window", "1", "--batch_size", "3", "--num_workers", "0", *more]
    program = [*launcher, str(ROOT / "examples" / "finetune.py"), *flags]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"}
    return subprocess.run(program, capture_output=True, text=True, timeout=800, env=environment, cwd=folder)


def check_outcome(ended: subprocess.CompletedProcess[str], folder: Path, n_processes: int) -> dict[str, Any]:
    assert ended.returncode == 0, ended.stderr
    metrics: dict[str, Any] = json.loads((folder / "out" / "metrics.json").read_text())
    assert metrics["processes"] == n_processes
    assert metrics["recordings"] == {"train": 6, "validation": 3, "test": 4}
    assert metrics["used"] == {"train": 6, "validation": 3, "test": 3}  # one of the test part is damaged
    losses = [epoch["train"] for epoch in metrics["history"]]
    assert min(losses[1:]) < losses[0]
    for method in ("fine_tuned", "frozen_probe"):
        assert metrics[method]["test"]["slow"]["of"] == 3
        assert metrics[method]["test"]["slow"]["interval"] is None  # of three patients, nothing can be said
        assert metrics[method]["test"]["fast"]["auroc"] is None  # nobody in the test part has it
        assert set(metrics[method]["thresholds"]) == {"fast", "slow"}
    return metrics


@pytest.mark.services  # it takes half a minute
@pytest.mark.timeout(900)
def test_the_recipe_learns_and_what_it_writes_is_taken_by_the_commands(
    demo_cohort: Path, checkpoint_steady: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = run([sys.executable], demo_cohort, checkpoint_steady, tmp_path, "--part_column", "part", "--epochs", "2")
    check_outcome(ended, tmp_path, 1)
    tuned = tmp_path / "out" / "finetuned.pth"
    told = ended.stdout.splitlines()[-1]
    assert told.startswith(f"written: {tuned}. Use it with: ecgfounder embed --predictions --checkpoint {tuned}")
    flags = told.partition("ecgfounder ")[2].split()
    flags += ["--dataset", str(tmp_path / "labels.csv"), "--data_dir", str(demo_cohort / "ecg"), "--num_workers", "0"]
    flags += ["--output_dir", str(tmp_path / "run"), "--pooling", "mean"]
    assert main(flags) == 1  # the damaged file
    predictions = pq.read_table(tmp_path / "run" / "_run" / "predictions.pq")
    assert predictions.column_names == ["record", "window_start", "lead", "fast", "slow"]
    assert predictions.num_rows == 12
    with ecgfounder.load("12lead", tuned, window=1) as model:
        assert model.labels == ("fast", "slow")
        probabilities = model.predict(demo_cohort / "ecg" / predictions["record"][0].as_py())
    assert [predictions[label][0].as_py() for label in model.labels] == probabilities.tolist()
    net = ecgfounder.BUNDLES["12lead"].load(tuned)
    assert net.dense.out_features == 2
    capsys.readouterr()
    main(["doctor", "--checkpoint", str(tuned)])
    assert "2 statements of its own (fast, slow): predictions work" in " ".join(capsys.readouterr().out.split())


@pytest.mark.services  # it takes half a minute
@pytest.mark.timeout(900)
def test_a_trained_checkpoint_goes_through_the_metrics_of_a_probe(checkpoint_steady: Path, tmp_path: Path) -> None:
    """Its head is a control of a probe of its own embeddings, on the test part of its training; for others it is refused."""
    table = write_signals(tmp_path / "ecg", 80)
    table["part"] = ["train"] * 44 + ["validation"] * 8 + ["test"] * 28
    table.to_csv(tmp_path / "labels.csv", index=False)
    cohort = ["--dataset", str(tmp_path / "labels.csv"), "--data_dir", str(tmp_path / "ecg"), "--num_workers", "0"]
    words = [*cohort, "--patient_column", "patient", "--label_columns", "fast", "--checkpoint", str(checkpoint_steady)]
    words += ["--window", "1.2", "--part_column", "part", "--epochs", "1", "--output_dir", str(tmp_path / "out")]
    program = [sys.executable, str(ROOT / "examples" / "finetune.py"), *words]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"}
    ended = subprocess.run(program, capture_output=True, text=True, timeout=800, env=environment, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    tuned = tmp_path / "out" / "finetuned.pth"
    embed = ["embed", *cohort, "--window", "1.2", "--pooling", "mean", "--format", "parquet"]
    embed += ["--keep_columns", "patient", "fast", "part"]
    probe = [
        "--label",
        "fast",
        "--group",
        "patient",
        "--split",
        "part",
        "--validation",
        "validation",
        "--n_draws",
        "50",
    ]
    probe += ["--controls", "none", "--head", str(tuned)]
    own = [*embed, "--checkpoint", str(tuned), "--predictions", "--output_dir", str(tmp_path / "run")]
    assert main(own) == 0
    assert main(["probe", str(tmp_path / "run"), *probe, "--output_dir", str(tmp_path / "results")]) == 0
    rows = pq.read_table(tmp_path / "results" / "results.pq").to_pylist()
    found = {row["metric"]: row for row in rows if row["control"] == "head: finetuned.pth"}
    predicted = (
        pq.read_table(tmp_path / "run" / "_run" / "predictions.pq").to_pandas().groupby("record")["fast"].first()
    )
    tested = table[table["part"] == "test"]
    probabilities = predicted[tested["ecg_paths"]].to_numpy()  # of one window each
    assert found["auroc"]["n_records"] == len(tested) == len(probabilities)
    assert found["auroc"]["estimate"] == pytest.approx(roc_auc_score(tested["fast"], probabilities), abs=1e-12)
    assert found["brier"]["estimate"] == pytest.approx(brier_score_loss(tested["fast"], probabilities), abs=1e-6)
    assert found["auroc difference"]["note"] == "embedding minus control, paired"
    assert main([*embed, "--checkpoint", str(checkpoint_steady), "--output_dir", str(tmp_path / "other")]) == 0
    assert main(["probe", str(tmp_path / "other"), *probe, "--output_dir", str(tmp_path / "refused")]) == 2
    assert not (tmp_path / "refused").exists()


@pytest.mark.services
@pytest.mark.timeout(900)  # a minute on a machine that does nothing else
def test_two_processes_of_a_launch_train_one_network(
    demo_cohort: Path, checkpoint_steady: Path, tmp_path: Path
) -> None:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launcher += ["--main_process_port", "0", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    ended = run(launcher, demo_cohort, checkpoint_steady, tmp_path, "--part_column", "part", "--epochs", "3")
    check_outcome(ended, tmp_path, 2)
    assert ended.stdout.count("written: ") == 1
    with ecgfounder.load("12lead", tmp_path / "out" / "finetuned.pth", window=1) as model:
        assert model.labels == ("fast", "slow")


@pytest.mark.parametrize("mode", ["12lead", "1lead"])
def test_every_parameter_that_requires_a_gradient_gets_one(
    mode: str, checkpoint_12lead: Path, checkpoint_1lead: Path
) -> None:
    if mode == "12lead":
        net = ecgfounder.ft_12lead_ECGFounder("cpu", checkpoint_12lead, n_classes=3)
    else:
        net = ecgfounder.ft_1lead_ECGFounder("cpu", checkpoint_1lead, n_classes=3)
    net(torch.randn(2, 12 if mode == "12lead" else 1, 300)).sum().backward()
    without = [name for name, each in net.named_parameters() if each.grad is None]
    idle = [name for name, each in net.named_parameters() if not each.requires_grad]
    assert without == idle
    assert len(idle) == 122
    assert all(".bn" in name or name.startswith("first_bn.") for name in idle)


def test_applied_batch_norms_are_trained() -> None:
    net = ecgfounder.Net1D(2, 16, 1, [16], [2], 4, 2, 16, 3, use_bn=True)
    net(torch.randn(3, 2, 64)).sum().backward()
    without = [name for name, each in net.named_parameters() if each.grad is None]
    assert without == ["stage_list.0.block_list.0.bn1.weight", "stage_list.0.block_list.0.bn1.bias"]
    assert without == [name for name, each in net.named_parameters() if not each.requires_grad]


def test_a_patient_is_in_one_part_and_rare_labels_are_in_all() -> None:
    patients = [f"p{number // 2}" for number in range(120)]  # two ECGs each
    labels = np.zeros((120, 2), bool)
    labels[:12, 0] = True  # six patients
    labels[1::20, 1] = True
    part_of = finetune.patient_parts(patients, labels, (0.6, 0.2, 0.2), seed=0)
    assert set(part_of) == set(patients)
    counts = [list(part_of.values()).count(part) for part in finetune.PARTS]
    assert sum(counts) == 60
    assert all(abs(count - wanted) <= 4 for count, wanted in zip(counts, (36, 12, 12), strict=True))
    with_rare = [part_of[f"p{number}"] for number in range(6)]
    assert set(with_rare) == set(finetune.PARTS)
    assert part_of == finetune.patient_parts(patients, labels, (0.6, 0.2, 0.2), seed=0)
    assert part_of != finetune.patient_parts(patients, labels, (0.6, 0.2, 0.2), seed=1)


def test_thresholds_come_from_the_validation_part_and_figures_from_the_test_part() -> None:
    random = np.random.default_rng(0)
    targets = (np.arange(200) % 4 == 0).astype(float)[:, None]
    logits = targets * 2 + random.standard_normal((200, 1))
    patients = [str(number // 2) for number in range(200)]
    told = finetune.argparse.Namespace(label_columns=["af"], seed=0)
    found = finetune.report({"validation": (logits, targets, patients), "test": (logits, targets, patients)}, told)
    turned = finetune.report({"validation": (logits, targets, patients), "test": (-logits, targets, patients)}, told)
    assert turned["thresholds"] == found["thresholds"]
    assert turned["test"]["af"]["auroc"] == pytest.approx(1 - found["test"]["af"]["auroc"], abs=1e-4)
    low, high = found["test"]["af"]["interval"]
    assert 0.8 < low < found["test"]["af"]["auroc"] < high <= 1
    other = finetune.report({"validation": (logits + 5, targets, patients), "test": (logits, targets, patients)}, told)
    assert other["thresholds"]["af"] > found["thresholds"]["af"]
    assert other["test"]["af"]["sensitivity"] < found["test"]["af"]["sensitivity"]


def test_the_area_counts_pairs_and_ties_by_half() -> None:
    logits, positive = np.array([0.0, 1.0, 1.0, 2.0]), np.array([False, True, False, True])
    pairs = [1.0, 0.5, 1.0, 1.0]  # each positive one against each negative one
    assert finetune.auroc(logits, positive) == sum(pairs) / 4
    assert finetune.auroc(logits, np.ones(4, bool)) is None
    assert finetune.best_threshold(np.array([0.0, 1.0, 4.0, 6.0]), np.array([0.0, 0.0, 1.0, 1.0])) == 2.5
    assert finetune.best_threshold(logits, np.ones(4)) == 0.0


def test_the_rare_class_weighs_more_and_a_label_without_one_is_refused() -> None:
    ecgs = ecgfounder.ECGDataset([f"{number}.xml" for number in range(8)], [[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 6)
    assert finetune.rare_class_weights(ecgs, ["a", "b"]).tolist() == pytest.approx([3.0, 1 / 3])
    nobody = ecgfounder.ECGDataset(["a.xml", "b.xml"], [[0.0], [0.0]])
    with pytest.raises(SystemExit, match="has 0 of 2 recordings with af"):
        finetune.rare_class_weights(nobody, ["af"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("3,1,0,validation", "3,1,0,train"), "a patient of part is in validation and in train"),
        (("1,0,0,train", "1,2,0,train"), "labels must be 0 or 1"),
        ((",test\n", ",train\n"), "no patient is in the part test"),
        ((",test\n", ",held out\n"), "part must hold train, validation, test; it holds held out"),
    ],
)
def test_a_table_that_cannot_be_divided_is_refused(tmp_path: Path, changed: tuple[str, str], message: str) -> None:
    (tmp_path / "labels.csv").write_text(TABLE.replace(*changed))
    told = finetune.argparse.Namespace(
        dataset=tmp_path / "labels.csv", data_dir=None, path_column="ecg_paths", label_columns=["fast", "slow"]
    )
    told.__dict__.update(patient_column="patient", part_column="part", mode="12lead", recipe="zscore", window=10.0)
    with pytest.raises(SystemExit, match=message):
        finetune.divided(told)
