"""How far evidence lies where the event is: measured on synthetic ECGs with one premature beat at a known time.

In: an `Embedder`, and one with random weights as a control. Out: a `Localisation`, which is kept for the checkpoint and its
settings in the cache, so that evidence is drawn only where this is known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgfounder.checks import check_least
from ecgfounder.demo.planted import SECONDS, Planted, planted_ecgs
from ecgfounder.ecg.recording import Recording
from ecgfounder.embedder import Embedder
from ecgfounder.errors import CheckpointError, RunError, SettingsError
from ecgfounder.escaping import one_line
from ecgfounder.evidence import FILLS, columns_of, replace_part
from ecgfounder.machine import cache_folder
from ecgfounder.network.checkpoint import sha256_of
from ecgfounder.storage.replace import replacing

PUBLISHED = "PREMATURE VENTRICULAR COMPLEXES"
"""The statement of the published checkpoints that is about the event."""

DELETED = 0.2
"""The share of the time that is deleted."""

FEWEST = 20
OCCLUDED = 25
"""Recordings in which parts are replaced."""
_NOT_OF_COHORTS = (
    1_000_000  # seeds of recordings on which no network was trained that `write_planted_cohort` gave its cohort
)
_N_DRAWS = 1000
_VERSION = 2

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Figure:
    """A mean over recordings, with its 95 % interval (recordings drawn again)."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Floats) -> Figure:
        rng = np.random.default_rng(0)
        draws = rng.integers(len(values), size=(_N_DRAWS, len(values)))
        low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
        return cls(float(values.mean()), float(low), float(high))

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Localised:
    """What was measured of one network.

    Attributes
    ----------
    auroc : float
        Of the statement's logit, for recordings with and without the event: without it, there is nothing to locate.
    share : Figure
        The share of the positive contributions of tokens that touch the event; `Localisation.chance` if they lay anywhere.
    highest : Figure
        How often the token with the highest contribution touches the event.
    occluded : Figure
        How often the half second that lowers the logit most when it is replaced by zeros in all leads (`Embedder.occlusion`)
        touches the event; of at most `OCCLUDED` recordings.
    top_drop, random_drop : Figure
        How much the logit falls when the fifth of the time with the highest contributions is replaced by straight lines, and
        when the same pattern of tokens is, moved around by a random number of tokens.
    """

    auroc: float
    share: Figure
    highest: Figure
    occluded: Figure
    top_drop: Figure
    random_drop: Figure


@dataclass(frozen=True)
class Localisation:
    """How far evidence lies where the event is.

    Attributes
    ----------
    label : str
        The statement.
    n_recordings : int
        Synthetic recordings with the event, and as many without.
    chance : float
        The share of the tokens that touch the event.
    network, control : Localised
        Of the checkpoint, and of a network with random weights.
    settings : str
        Mode, lead and recipe.
    preparation : str
        A hash of all settings of the preparation.
    """

    label: str
    n_recordings: int
    chance: float
    network: Localised
    control: Localised
    settings: str
    preparation: str

    @property
    def caption(self) -> str:
        """What is to stand below a drawing of evidence."""
        of, random = self.network, self.control
        return (
            f"Evidence is not when. Measured for {self.label} on {self.n_recordings} synthetic ECGs with one premature beat and "
            f"as many without (AUROC {of.auroc:.2f}): {_share(of.share.mean)} of the positive evidence lay at the beat (random "
            f"weights {_share(random.share.mean)}, chance {self.chance:.0%}), the highest in {of.highest.mean:.0%} of ECGs "
            f"({random.highest.mean:.0%}). Without the fifth of the time with the highest evidence the logit fell by "
            f"{of.top_drop.mean:.2g} ({random.top_drop.mean:.2g}), without another fifth by {of.random_drop.mean:.2g} "
            f"({random.random_drop.mean:.2g})."
        )


def _share(share: float) -> str:
    return "none" if np.isnan(share) else f"{share:.0%}"


def measure(
    model: Embedder,
    control: Embedder,
    label: str | None = None,
    *,
    n: int = 200,
    seed: int = 0,
    say: Callable[[str], object] = lambda _text: None,
) -> Localisation:
    """Measure how far the evidence of a statement lies where the event is.

    Parameters
    ----------
    model, control : Embedder
        The network, and one with random weights and the same preparation.
    label : str, optional
        The statement; None for "PREMATURE VENTRICULAR COMPLEXES", or the only one that the checkpoint has.
    n : int, default: 200
        Recordings with the event; as many without.
    seed : int, default: 0
        Of the recordings, and of what is deleted at random.
    say : callable, optional
        Called with lines on the progress.

    Raises
    ------
    SettingsError
        If the preparation makes several inputs of a recording, there is no such statement, or fewer than 20 recordings are asked
        for.
    CheckpointError
        If the checkpoint has no head with names.
    """
    check_least("n", n, FEWEST)
    if model.preparation.stride is not None or model.preparation.lead == "all":
        raise SettingsError("localisation is measured on one input of a recording: use no stride and one lead")
    statement = _statement(model, label)
    planted = list(planted_ecgs(2 * n, _NOT_OF_COHORTS + seed))
    found = []
    for name, network in (("the checkpoint", model), ("random weights", control)):
        say(f"{name}: evidence and deletions on {2 * n} synthetic ECGs")
        measured = statement if statement in network.labels else network.labels[0]
        found.append(_localised(network, measured, planted, seed))
    (of_model, chance), (of_control, _) = found
    return Localisation(statement, n, chance, of_model, of_control, settings_of(model), _preparation_of(model))


def _statement(model: Embedder, label: str | None) -> str:
    if label is not None:
        columns_of([label], model.labels)
        return label
    if PUBLISHED in model.labels:
        return PUBLISHED
    if len(model.labels) == 1:
        return model.labels[0]
    raise SettingsError(
        f"the checkpoint has {len(model.labels)} labels, none of them {PUBLISHED!r}: name the one for premature beats as 'label'."
    )


def _localised(model: Embedder, label: str, planted: list[Planted], seed: int) -> tuple[Localised, float]:
    """What is measured of a network, and the share of tokens that touch the event."""
    rng = np.random.default_rng([seed, 1])
    with_event = [each for each in planted if each.event is not None]
    logits, shares, highest, chances, deleted = [], [], [], [], []
    for each in with_event:
        found = model.evidence(each.recording, label)
        contributions = found.of(label).astype(np.float64)
        logits.append(float(found.logits[0]))
        inside = _touching(each, found.token_times)
        positive = np.maximum(contributions, 0)
        shares.append(positive[inside].sum() / positive.sum() if positive.any() else np.nan)
        highest.append(inside[np.argmax(contributions)])
        chances.append(inside.mean())
        highest_fifth = np.argsort(-contributions)[: max(1, round(DELETED * len(contributions)))]
        moved = (highest_fifth + rng.integers(1, max(2, len(contributions)))) % len(contributions)
        for tokens in (highest_fifth, moved):
            deleted.append(_without(each.recording, found.token_times[tokens], _half_token(found.token_times)))
    dropped = [_dropped_at_event(model, label, each) for each in with_event[:OCCLUDED]]
    after = np.array([model.evidence(each, label).logits[0] for each in deleted]).reshape(-1, 2)
    drops = np.array(logits)[:, None] - after
    others = [float(model.evidence(each.recording, label).logits[0]) for each in planted if each.event is None]
    known = np.array(shares)[~np.isnan(shares)]
    figures = Localised(
        _auroc(np.array(logits), np.array(others)),
        Figure.of(known) if len(known) else Figure(np.nan, np.nan, np.nan),
        Figure.of(np.array(highest, dtype=np.float64)),
        Figure.of(np.array(dropped, dtype=np.float64)),
        Figure.of(drops[:, 0]),
        Figure.of(drops[:, 1]),
    )
    return figures, float(np.mean(chances))


def _dropped_at_event(model: Embedder, label: str, planted: Planted) -> bool:
    found = model.occlusion(planted.recording, label, each_lead=False)
    start, stop = found.spans[np.argmax(found.drops[FILLS.index("zero"), 0, :, 0])]
    assert planted.event is not None
    return bool(stop > planted.event[0] and start < planted.event[1])


def _touching(planted: Planted, token_times: Floats) -> npt.NDArray[np.bool_]:
    """Whether some of each token's own samples lie inside the event."""
    assert planted.event is not None
    half = _half_token(token_times)
    start, stop = planted.event
    return np.asarray((token_times + half > start) & (token_times - half < stop))


def _half_token(token_times: Floats) -> float:
    return float(token_times[1] - token_times[0]) / 2 if len(token_times) > 1 else SECONDS / 2


def _without(recording: Recording, times: Floats, half: float) -> Recording:
    """The recording with the samples of tokens replaced by straight lines, before it is prepared."""
    samples = recording.samples.copy()
    ordered = np.sort(times)
    together = np.split(
        ordered, np.flatnonzero(np.diff(ordered) > 2.5 * half) + 1
    )  # a line for neighbours, not one for each
    for group in together:
        first, stop = (round(float(time) * recording.sampling_rate) for time in (group[0] - half, group[-1] + half))
        replace_part(samples, max(0, first), min(stop, samples.shape[1]), "line")
    return Recording(samples, recording.sampling_rate, recording.leads, recording.source_format)


def _auroc(positive: Floats, negative: Floats) -> float:
    higher = (positive[:, None] > negative[None, :]).mean()
    return float(higher + (positive[:, None] == negative[None, :]).mean() / 2)


# --- what is known of a checkpoint -------------------------------------------------------------------------------------


def settings_of(model: Embedder) -> str:
    """Mode, lead and recipe, of which a measurement is."""
    each = model.preparation
    lead = f", lead {each.lead}" if each.mode == "1lead" else ""
    return f"{each.mode}{lead}, recipe {each.recipe.name} v{each.recipe.version}"


def _preparation_of(model: Embedder) -> str:
    settings = json.dumps(model.preparation.fingerprint(), sort_keys=True, default=str)
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def _place(model: Embedder) -> Path:
    key = hashlib.sha256(f"{sha256_of(model.checkpoint)} {_preparation_of(model)}".encode()).hexdigest()[:32]
    return cache_folder() / "localisation" / f"{key}.json"


def remember(model: Embedder, measured: Localisation) -> Path:
    """Keep a measurement for the checkpoint and its settings, in `localisation/` in $ECGFOUNDER_CACHE.

    Raises
    ------
    RunError
        If it cannot be written.
    """
    place = _place(model)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as file:
            file.write(json.dumps({"version": _VERSION, **asdict(measured)}, indent=2).encode())
    except OSError as error:
        raise RunError(f"{place} cannot be written: {error.strerror or error}") from error
    return place


def known_of(model: Embedder) -> Localisation | None:
    """What was measured of the checkpoint with these settings; None if nothing was, or by another version."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        content: dict[str, Any] = json.loads(_place(model).read_text(encoding="utf-8"))
        if content.pop("version") == _VERSION:
            for name in ("network", "control"):
                content[name] = _localised_from(content[name])
            return Localisation(**content)
    return None


def _localised_from(content: dict[str, Any]) -> Localised:
    auroc = content.pop("auroc")
    return Localised(auroc, **{name: Figure(**figure) for name, figure in content.items()})


def require(model: Embedder) -> Localisation:
    """What was measured of the checkpoint, which a drawing needs.

    Raises
    ------
    CheckpointError
        If nothing was measured.
    """
    known = known_of(model)
    if known is None:
        raise CheckpointError(
            f"evidence is drawn only where it is known how far it lies where the event is. Measure that once for this checkpoint "
            f"with the same flags for the signal: ecgfounder localisation --mode {model.mode} --checkpoint "
            f"{one_line(str(model.checkpoint))}"
        )
    return known
