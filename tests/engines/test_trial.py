"""A checkpoint whose network overflows is refused before any recording is blamed for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ecgfounder import cli
from ecgfounder.engines import create_engine
from ecgfounder.engines.trial import refuse_overflow, synthetic_ecg
from ecgfounder.errors import CheckpointError
from tests.builders.weights import drawn_state


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of which each is finite, and whose products are not."""
    path = tmp_path_factory.mktemp("weights") / "12_lead_ECGFounder.pth"
    torch.save({name: t * 1e30 if ".conv3.conv." in name else t for name, t in drawn_state("12lead").items()}, path)
    return path


@pytest.mark.parametrize("n_leads", [12, 1])
def test_the_synthetic_ecg_is_like_an_input_of_the_network(n_leads: int) -> None:
    signal = synthetic_ecg(n_leads)
    assert (signal.shape, signal.dtype) == ((n_leads, 5000), np.float32)
    assert abs(float(signal.mean())) < 1e-5
    assert abs(float(signal.std()) - 1) < 1e-5
    assert np.array_equal(signal, synthetic_ecg(n_leads))


def test_weights_that_work_are_accepted(checkpoint_12lead: Path) -> None:
    refuse_overflow(create_engine(mode="12lead", checkpoint=checkpoint_12lead, device="cpu"), "x.pth")


def test_a_network_that_overflows_is_refused_by_the_name_of_its_checkpoint(overflowing: Path) -> None:
    engine = create_engine("torch", mode="12lead", checkpoint=overflowing, device="cpu")
    with pytest.raises(CheckpointError, match=r"12_lead_ECGFounder.pth gives values that are not finite .* in float32"):
        refuse_overflow(engine, overflowing.name)


def test_a_run_with_it_ends_with_2_and_fails_no_recording(
    overflowing: Path, demo_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["embed", "--dataset", str(demo_cohort), "--checkpoint", str(overflowing)]
    assert cli.main([*command, "--output_dir", str(tmp_path / "out")]) == 2
    assert "gives values that are not finite for a normal ECG in float32" in capsys.readouterr().err
    assert not (tmp_path / "out" / "_run" / "failures.csv").exists()
    assert not list((tmp_path / "out").glob("*.json"))
