"""How far evidence lies where an event is: networks that are known to see it, or to see nothing, are measured as such."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from ecgfounder.cli import main
from ecgfounder.demo.planted import EVENT, planted_ecgs, write_planted_cohort
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.embedder import Embedder
from ecgfounder.errors import CheckpointError, SettingsError
from ecgfounder.evidence import Evidence, Occluded, Occlusion, times_of_tokens
from ecgfounder.localisation import PUBLISHED, Localisation, _without, known_of, measure, remember, require
from ecgfounder.readers import read_ecg

V1 = STANDARD_LEADS.index("V1")
STEP = 256


@dataclass
class Network:
    """A stand-in for an embedder, whose contributions are a function of each token's samples."""

    contribution: Callable[[npt.NDArray[np.float32]], float]
    labels: tuple[str, ...] = (EVENT,)
    stride: float | None = None
    recipe: str = "zscore"
    window: float | None = None
    checkpoint: Path = Path("none.pth")
    mode: str = "12lead"

    @property
    def preparation(self) -> Any:
        recipe = SimpleNamespace(name=self.recipe, version="1")
        settings = {"mode": self.mode, "recipe": self.recipe, "window": self.window}
        return SimpleNamespace(
            mode=self.mode, stride=self.stride, lead="I", recipe=recipe, fingerprint=lambda: settings
        )

    def evidence(self, x: Recording, labels: str) -> Evidence:
        assert labels in self.labels
        tokens = [x.samples[:, first : first + STEP] for first in range(0, x.n_samples, STEP)]
        contributions = np.array([[self.contribution(each)] for each in tokens], dtype=np.float32)
        return Evidence(contributions, times_of_tokens(len(tokens), 0.0, 500), (labels,), np.zeros(1, np.float32))

    def occlusion(self, x: Recording, labels: str, *, each_lead: bool) -> Occlusion:
        assert not each_lead
        before = self.evidence(x, labels).logits
        occluded = list(Occluded(x.samples, STEP, each_lead=False))
        after = [self.evidence(Recording(each, 500, x.leads, "changed"), labels).logits[0] for each in occluded[1:]]
        drops = (before[0] - np.array(after)).reshape(2, 1, -1, 1)
        starts = np.arange(drops.shape[2]) * STEP / 500
        return Occlusion(drops, ("all",), np.stack([starts, starts + STEP / 500], axis=1), (labels,), before)


def network(contribution: Callable[[npt.NDArray[np.float32]], float], **options: Any) -> Embedder:
    return cast(Embedder, Network(contribution, **options))


def seeing(token: npt.NDArray[np.float32]) -> float:
    """Of the premature beat alone, which is upright in V1."""
    return 10 * max(0.0, float(token[V1].max()) - 0.7)


SEEING, BLIND = network(seeing), network(lambda _token: 1.0)


@pytest.fixture(scope="module")
def measured() -> Localisation:
    return measure(SEEING, BLIND, n=40)


def test_a_network_that_sees_the_event_has_its_evidence_there(measured: Localisation) -> None:
    found = measured.network
    assert found.auroc == 1
    assert found.share.mean == 1
    assert found.highest.mean == found.occluded.mean == 1
    assert found.top_drop.low > found.random_drop.high
    assert found.share.low <= found.share.mean <= found.share.high


def test_a_network_that_sees_nothing_is_at_chance(measured: Localisation) -> None:
    found = measured.control
    assert found.auroc == 0.5
    assert found.share.mean == pytest.approx(measured.chance)
    assert 2 / 20 <= measured.chance <= 3 / 20
    assert found.top_drop.mean == found.random_drop.mean == 0


def test_the_caption_says_what_was_measured_good_or_bad(measured: Localisation) -> None:
    said = measured.caption
    for figure in ("Measured for premature_beat on 40", "AUROC 1.00", "100% of the positive", "in 100% of ECGs"):
        assert figure in said
    none = measure(network(lambda _token: -1.0), BLIND, n=20).caption
    assert "AUROC 0.50" in none
    assert "none of the positive" in none
    assert "nan" not in none


def test_what_is_deleted_is_a_straight_line_over_neighbouring_tokens() -> None:
    recording = Recording(
        np.random.default_rng(0).standard_normal((2, 2560)).astype(np.float32), 500.0, ("I", "II"), "x"
    )
    found = _without(recording, times_of_tokens(10, 0.0, 500)[[5, 2, 1, 9]], 0.256).samples
    for first, stop in ((256, 768), (1280, 1536)):
        assert np.abs(np.diff(found[:, first - 1 : stop + 1], n=2)).max() < 1e-5
    assert np.array_equal(found[:, :256], recording.samples[:, :256])
    assert np.array_equal(found[:, 768:1280], recording.samples[:, 768:1280])
    assert (found[:, 2304:] == found[:, 2303:2304]).all()


def test_evidence_against_counts_nothing_and_nothing_at_all_is_not_a_number() -> None:
    found = measure(network(lambda _token: -1.0), BLIND, n=20)
    assert np.isnan(found.network.share.mean)
    assert found.network.auroc == 0.5


def test_the_event_is_where_it_is_said_to_be_and_nowhere_else() -> None:
    planted = list(planted_ecgs(40, seed=3))
    assert [each.event is not None for each in planted] == [False, True] * 20
    for each in planted:
        above = np.flatnonzero(each.recording.samples[V1] > 0.7) / 500
        if each.event is None:
            assert not len(above)
            continue
        start, stop = each.event
        assert len(above)
        assert start < above.min() < above.max() < stop
        assert stop - start == pytest.approx(0.6)
        assert start >= 1.4
        assert stop <= 9.0
    again = list(planted_ecgs(2, seed=3))
    assert np.array_equal(again[1].recording.samples, planted[1].recording.samples)
    assert not np.array_equal(next(planted_ecgs(1, seed=4)).recording.samples, planted[0].recording.samples)


def test_a_cohort_of_events_is_what_the_recordings_are(tmp_path: Path) -> None:
    table = write_planted_cohort(tmp_path / "cohort", 4, seed=5)
    assert table.read_text().splitlines()[:3] == [f"ecg_paths,patient,{EVENT}", "000000.xml,0,0", "000001.xml,1,1"]
    for planted, path in zip(planted_ecgs(4, seed=5), sorted((tmp_path / "cohort" / "ecg").iterdir()), strict=True):
        np.testing.assert_allclose(read_ecg(path).samples, planted.recording.samples, atol=1e-6)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(SettingsError, match="'n'"):
        measure(SEEING, BLIND, n=5)
    with pytest.raises(SettingsError, match="no stride"):
        measure(network(seeing, stride=1.0), BLIND, n=20)
    with pytest.raises(SettingsError, match="none of the checkpoint's 1 statement"):
        measure(SEEING, BLIND, "af", n=20)
    with pytest.raises(SettingsError, match="name the one for premature beats"):
        measure(network(seeing, labels=("a", "b")), BLIND, n=20)


def test_what_was_measured_is_known_for_this_checkpoint_and_recipe_alone(
    measured: Localisation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECGFOUNDER_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "weights.pth"
    path.write_bytes(b"some weights")
    model, other = network(seeing, checkpoint=path), network(seeing, checkpoint=path, recipe="filtered")
    assert known_of(model) is None
    with pytest.raises(CheckpointError, match="ecgfounder localisation --mode 12lead --checkpoint"):
        require(model)
    place = remember(model, measured)
    assert known_of(model) == measured == require(model)
    assert known_of(other) is None
    assert known_of(network(seeing, checkpoint=path, window=5.0)) is None
    kept = place.read_text()
    for damaged in ("", "[]", "{}", json.dumps({"version": 2}), kept.replace('"version": 2', '"version": 1')):
        place.write_text(damaged)
        assert known_of(model) is None
    place.write_text(kept)
    path.write_bytes(b"other weights")
    assert known_of(model) is None


@pytest.mark.services  # the network runs some 160 times
def test_the_command_measures_says_and_remembers_and_inspect_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ECGFOUNDER_CACHE", str(tmp_path / "cache"))
    write_planted_cohort(tmp_path / "cohort", 2)
    ecg, drawing = str(tmp_path / "cohort" / "ecg" / "000001.xml"), tmp_path / "ecg.svg"
    network = ["--checkpoint", "random:1"]
    asked = ["inspect", ecg, *network, "--evidence", PUBLISHED]
    assert main([*asked, "--plot", str(drawing)]) == 2
    assert "ecgfounder localisation --mode 12lead" in capsys.readouterr().err
    assert not drawing.exists()
    assert main(asked) == 0
    assert "it was not measured how far" in " ".join(capsys.readouterr().out.split())

    assert main(["localisation", *network, "--recordings", "20"]) == 0
    said = capsys.readouterr().out
    assert f"{PUBLISHED}: 20 synthetic ECGs with one premature beat" in said
    [auroc] = [line.split() for line in said.splitlines() if line.startswith("AUROC")]
    assert auroc[-3] == auroc[-2]  # the control is the same network

    assert main([*asked, "--plot", str(drawing)]) == 0
    captured = " ".join(capsys.readouterr().out.split())
    assert f"Evidence is not when. Measured for {PUBLISHED} on 20 synthetic ECGs" in captured
    content = drawing.read_text()
    assert content.count('id="band-0-3"') == 20
    assert "Evidence is not when" in content

    assert main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["evidence"][PUBLISHED]
    assert np.mean(told["contributions"]) + told["bias"] == pytest.approx(told["logit"], abs=1e-5)
    assert len(told["token_times"]) == 20


def test_a_cohort_is_written_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["localisation", "--write_cohort", str(tmp_path / "new"), "--recordings", "20"]) == 0
    assert len(list((tmp_path / "new" / "ecg").iterdir())) == 40
    (tmp_path / "file").write_text("")
    assert main(["localisation", "--write_cohort", str(tmp_path / "file"), "--recordings", "20"]) == 2
    assert main(["localisation", "--write_cohort", str(tmp_path / "other"), "--recordings", "3"]) == 2
    assert "cannot be written" in capsys.readouterr().err
