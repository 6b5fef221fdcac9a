"""Evidence adds up to the logits; an occlusion is what the network says of inputs that were changed by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.embedder import Embedder, load, recording_from_array
from ecgfounder.errors import CheckpointError, SettingsError
from ecgfounder.evidence import FILLS, Occluded, Occlusion, columns_of
from ecgfounder.network.head import Head
from ecgfounder.preprocess.preparation import Preparation


@pytest.fixture(scope="module")
def model(checkpoint_12lead: Path) -> Iterator[Embedder]:
    with load("12lead", checkpoint_12lead, threads=2) as made:
        yield made


@pytest.fixture(scope="module")
def one_lead(checkpoint_1lead: Path) -> Iterator[Embedder]:
    with load("1lead", checkpoint_1lead) as made:
        yield made


def prepared(model: Embedder, **choices: Any) -> Embedder:
    return Embedder(model.engine, Preparation(mode=model.mode, **choices), checkpoint=model.checkpoint)


def noise(n_samples: int, n_leads: int = 12) -> npt.NDArray[np.float32]:
    return np.random.default_rng(n_samples).standard_normal((n_leads, n_samples)).astype(np.float32)


def logit(probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    p = probabilities.astype(np.float64)
    return np.log(p / (1 - p))


# --- evidence --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_samples", [200, 256, 257, 1000, 2700])
def test_contributions_and_bias_add_up_to_every_logit(model: Embedder, n_samples: int) -> None:
    recording = recording_from_array(noise(n_samples), 500, STANDARD_LEADS)
    found = model.evidence(recording)
    n_tokens = -(-n_samples // 256)
    assert found.contributions.shape == (n_tokens, 150)
    assert found.contributions.dtype == np.float32
    assert found.labels == model.labels
    exact = _exact(model, model.prepare(recording).inputs[0])
    means = found.contributions.astype(np.float64).mean(axis=0)
    assert np.abs(means + found.bias - exact).max() <= 1e-5
    assert np.abs(found.logits - exact).max() <= 1e-5
    tame = np.abs(exact) < 8
    assert tame.any()
    assert np.abs(logit(model.predict(recording)[tame]) - exact[tame]).max() <= 1e-3  # of probabilities near 0 and 1


def test_windows_and_leads_have_dimensions_of_their_own(model: Embedder, one_lead: Embedder) -> None:
    recording = recording_from_array(noise(2000), 500, STANDARD_LEADS)
    windows = prepared(model, window=1.5, stride=1.0)
    found = windows.evidence(recording)
    assert found.contributions.shape == (3, 3, 150)
    assert found.logits.shape == (3, 150)
    for logits, inputs in zip(found.logits, windows.prepare(recording).inputs, strict=True):
        assert np.abs(logits - _exact(windows, inputs)).max() <= 1e-5
    np.testing.assert_allclose(found.token_times[:, 0], [0.256, 1.256, 2.256])
    leads = prepared(one_lead, lead="all").evidence(recording)
    assert leads.contributions.shape == (12, 8, 150)
    np.testing.assert_allclose(leads.token_times, (np.arange(8) + 0.5) * 0.512)


def _exact(model: Embedder, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    head = model.engine.head
    assert head is not None
    features = model.engine.embed(array[None])[0].astype(np.float64).mean(axis=0)
    return head.weight.astype(np.float64) @ features + head.bias


def _logits(model: Embedder, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    head = model.engine.head
    assert head is not None
    return head.logits(model.engine.embed(array[None]))[0]


def test_times_are_those_of_the_recording_whatever_its_rate(model: Embedder) -> None:
    slow = recording_from_array(noise(500), 250, STANDARD_LEADS)
    np.testing.assert_allclose(model.evidence(slow).token_times, [0.256, 0.768, 1.28, 1.792])


def test_some_statements_are_chosen_by_name(model: Embedder) -> None:
    recording = recording_from_array(noise(600), 500, STANDARD_LEADS)
    every = model.evidence(recording)
    chosen = [model.labels[140], model.labels[3]]
    found = model.evidence(recording, chosen)
    assert found.labels == tuple(chosen)
    assert np.array_equal(found.contributions, every.contributions[:, [140, 3]])
    assert np.array_equal(found.bias, every.bias[[140, 3]])
    assert np.array_equal(model.evidence(recording, chosen[0]).of(chosen[0]), every.of(chosen[0]))
    with pytest.raises(SettingsError, match="similar ones are 'ATRIAL FIBRILLATION'"):
        model.evidence(recording, "atrial fibrilation")
    with pytest.raises(SettingsError, match="'labels'"):
        found.of(model.labels[4])


def test_what_has_no_evidence_is_refused(model: Embedder) -> None:
    with pytest.raises(SettingsError, match="remainder 'keep'"):
        prepared(model, window=1.0, stride=1.0, remainder="keep").evidence(
            noise(700), sampling_rate=500, leads=STANDARD_LEADS
        )
    engine = model.engine
    head = engine.head
    engine.head = Head(np.zeros((4, 1024), np.float32), np.zeros(4, np.float32))
    try:
        with pytest.raises(CheckpointError, match="4 classes without names"):
            model.evidence(noise(700), sampling_rate=500, leads=STANDARD_LEADS)
    finally:
        engine.head = head


# --- occlusion -------------------------------------------------------------------------------------------------------


def test_an_occlusion_is_the_drop_for_inputs_changed_by_hand(model: Embedder) -> None:
    recording = recording_from_array(noise(700), 500, STANDARD_LEADS)
    label = model.labels[7]
    found = model.occlusion(recording, label, seconds=0.6)
    assert found.rows == ("all", *STANDARD_LEADS)
    np.testing.assert_allclose(found.spans, [[0, 0.6], [0.6, 1.2], [1.2, 1.4]])
    assert found.drops.shape == (len(FILLS), 13, 3, 1)
    [original] = model.prepare(recording).inputs
    before = _logits(model, original)[7]
    assert found.logits == pytest.approx([before])
    by_hand = original.copy()
    by_hand[:, 300:600] = 0
    assert found.drops[0, 0, 1, 0] == pytest.approx(before - _logits(model, by_hand)[7], abs=1e-6)
    by_hand = original.copy()
    by_hand[4, 300:600] = np.interp(np.arange(300, 600), [299, 600], original[4, [299, 600]])
    assert found.drops[1, 5, 1, 0] == pytest.approx(before - _logits(model, by_hand)[7], abs=1e-4)
    by_hand = original.copy()
    by_hand[11, 600:] = original[11, 599]
    assert found.drops[1, 12, 2, 0] == pytest.approx(before - _logits(model, by_hand)[7], abs=1e-6)
    assert found.drops.std() > 0
    together = model.occlusion(recording, label, seconds=0.6, each_lead=False)
    assert together.rows == ("all",)
    assert np.array_equal(together.drops, found.drops[:, :1])


def test_the_original_is_not_changed_and_every_part_is_replaced_once() -> None:
    original = noise(1000)
    kept = original.copy()
    occluded = Occluded(original, 256)
    assert occluded.shape == (2, 13, 4)
    assert len(occluded) == 105
    assert occluded[0] is original
    with pytest.raises(IndexError):
        occluded[105]
    changed = np.stack([each != original for each in list(occluded)[1:]]).reshape(2, 13, 4, 12, 1000)
    assert np.array_equal(original, kept)
    zeros = changed[0]
    assert zeros[0].sum(axis=0).all()
    assert (zeros[0].sum(axis=0) == 1).all()
    for lead in range(12):
        assert (zeros[1 + lead].sum(axis=0)[lead] == 1).all()
        assert not np.delete(zeros[1 + lead], lead, axis=1).any()


def test_fills_that_agree_are_told_from_fills_that_do_not() -> None:
    drops = np.random.default_rng(0).standard_normal((2, 13, 20, 3)).astype(np.float32)
    drops[1, ..., 0] = drops[0, ..., 0] * 2 + 1
    drops[..., 2] = 0
    found = Occlusion(
        drops, ("all", *STANDARD_LEADS), np.zeros((20, 2)), ("a", "b", "c"), np.zeros(3, np.float32)
    ).agreement()
    assert found[0] == pytest.approx(1)
    assert abs(found[1]) < 0.3
    assert np.isnan(found[2])


def test_an_occlusion_of_several_inputs_or_of_no_time_is_refused(model: Embedder, one_lead: Embedder) -> None:
    recording = recording_from_array(noise(700), 500, STANDARD_LEADS)
    with pytest.raises(SettingsError, match="one input"):
        prepared(model, window=0.5, stride=0.5).occlusion(recording)
    for seconds in (0, -1, float("nan"), 100):
        with pytest.raises(SettingsError, match="'seconds'"):
            model.occlusion(recording, seconds=seconds)
    assert one_lead.occlusion(recording, one_lead.labels[:2], seconds=1.0).drops.shape == (2, 1, 2, 2)


def test_names_of_statements_are_texts() -> None:
    assert columns_of(None, ("a", "b")) == [0, 1]
    assert columns_of(["b"], ("a", "b")) == [1]
    with pytest.raises(SettingsError, match="none of the checkpoint's 2 statements"):
        columns_of(["\x1b[31mc"], ("a", "b"))
