"""Evidence for statements of a checkpoint, as lines, JSON and bands of a drawing: a part of `ecgfounder inspect`.

In: the network, statements, a recording. Out: what is said and drawn about it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ecgfounder.errors import SettingsError

if TYPE_CHECKING:
    import argparse

    from ecgfounder.ecg.plot import Band
    from ecgfounder.ecg.recording import Recording
    from ecgfounder.embedder import Embedder
    from ecgfounder.evidence import Evidence, Occlusion
    from ecgfounder.localisation import Localisation

MOST_TIMES = 3
NOT_MEASURED = "it was not measured how far this checkpoint's evidence lies where an event is: ecgfounder localisation"
OF_OCCLUSION = (
    "Occlusion: how much the logit falls when all leads are zeros for that time, after filters and normalisation. Such "
    "inputs are unlike all that the network has seen: this is no cause."
)


def add_evidence_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of evidence; the network's flags are `add_network_arguments`."""
    add = parser.add_argument_group("evidence (loads the network)").add_argument
    add(
        "--evidence",
        action="append",
        metavar="LABEL",
        help="show what each half second contributes to this statement; may be repeated",
    )
    add(
        "--occlusion",
        action="store_true",
        help="show too how the statement changes when parts are replaced (some 500 passes of the network for a recording)",
    )


@dataclass(frozen=True)
class Shown:
    """What is said and drawn about a recording's evidence."""

    lines: tuple[tuple[str, str], ...]
    as_json: dict[str, Any]
    bands: tuple[Band, ...]


@dataclass(frozen=True)
class Explainer:
    """Shows the evidence of recordings.

    Attributes
    ----------
    model : Embedder
        The network.
    labels : tuple of str
        The statements.
    occlusion : bool
        Whether parts are replaced too.
    known : Localisation or None
        What was measured of the checkpoint.
    """

    model: Embedder
    labels: tuple[str, ...]
    occlusion: bool
    known: Localisation | None

    @classmethod
    def of(cls, model: Embedder, labels: Sequence[str], *, occlusion: bool, draws: bool) -> Explainer:
        """For some statements; a drawing needs to know what was measured of the checkpoint.

        Raises
        ------
        SettingsError, CheckpointError
            If a statement does not exist, the preparation makes several inputs of a recording, or nothing was measured of a
            checkpoint whose evidence is to be drawn.
        """
        from ecgfounder.evidence import columns_of
        from ecgfounder.localisation import known_of, require

        columns_of(labels, model.labels)
        if model.preparation.stride is not None or model.preparation.lead == "all":
            raise SettingsError("evidence is shown of one input of a recording: use no stride and one lead")
        known = require(model) if draws else known_of(model)
        return cls(model, tuple(dict.fromkeys(labels)), occlusion, known)

    def bands(self, recording: Recording) -> tuple[Band, ...]:
        """What is drawn below a recording."""
        return self.show(recording).bands

    def show(self, recording: Recording) -> Shown:
        """The evidence of a recording that can be embedded."""
        found = self.model.evidence(recording, self.labels)
        replaced = self.model.occlusion(recording, self.labels) if self.occlusion else None
        told: dict[str, Any] = {
            label: {
                "logit": float(found.logits[place]),
                "probability": _probability(found.logits[place]),
                "bias": float(found.bias[place]),
                "token_times": found.token_times.tolist(),
                "contributions": found.contributions[:, place].tolist(),
                **({} if replaced is None else {"occlusion": _occlusion_as_json(replaced, place)}),
            }
            for place, label in enumerate(found.labels)
        }
        return Shown(tuple(self._lines(found, replaced)), told, tuple(self._bands(found, replaced)))

    def _lines(self, found: Evidence, replaced: Occlusion | None) -> Iterator[tuple[str, str]]:
        for place, label in enumerate(found.labels):
            logit = found.logits[place]
            yield "evidence", f"{label}: logit {logit:.2f}, probability {_probability(logit):.3f}"
            yield "", _extremes(found.contributions[:, place], found.token_times)
            if replaced is not None:
                yield "", _most_dropped(replaced, place)
        yield "", NOT_MEASURED if self.known is None else self.known.caption
        if replaced is not None:
            yield "", OF_OCCLUSION

    def _bands(self, found: Evidence, replaced: Occlusion | None) -> Iterator[Band]:
        import numpy as np

        from ecgfounder.ecg.plot import Band

        step = float(found.token_times[1] - found.token_times[0]) if len(found.token_times) > 1 else 0.512
        spans = np.stack([found.token_times - step / 2, found.token_times + step / 2], axis=1)
        measured = () if self.known is None else (self.known.caption,)
        for place, label in enumerate(found.labels):
            last = place == len(found.labels) - 1
            told = f"Evidence (blue for, grey against): {label}, probability {_probability(found.logits[place]):.3f}"
            yield Band("evidence", spans, found.contributions[:, place], (told, *(measured if last else ())))
            if replaced is not None:
                heading = f"Occlusion (blue: the logit falls, grey: it rises): {label}"
                yield Band(
                    "occlusion",
                    replaced.spans,
                    replaced.drops[0, 0, :, place],
                    (heading, *((OF_OCCLUSION,) if last else ())),
                )


def _probability(logit: float) -> float:
    return 0.5 * (1 + math.tanh(float(logit) / 2))


def _extremes(contributions: Any, times: Any) -> str:
    import numpy as np

    order = np.argsort(-contributions)
    most = [f"{times[token]:.1f} s ({contributions[token]:+.2f})" for token in order[:MOST_TIMES]]
    least = [f"{times[token]:.1f} s ({contributions[token]:+.2f})" for token in order[::-1][:MOST_TIMES]]
    return f"most at {', '.join(most)}; least at {', '.join(least)}"


def _most_dropped(replaced: Occlusion, place: int) -> str:
    import numpy as np

    drops = replaced.drops[0, :, :, place]
    span = int(np.argmax(drops[0]))
    start, stop = replaced.spans[span]
    text = f"without {start:.1f} to {stop:.1f} s the logit falls most, by {drops[0, span]:.2f}"
    if len(replaced.rows) > 1:
        lead, at = np.unravel_index(int(np.argmax(drops[1:])), drops[1:].shape)
        text += f"; of single leads, without {replaced.rows[1 + int(lead)]} at {replaced.spans[int(at), 0]:.1f} s, by "
        text += f"{drops[1 + int(lead), int(at)]:.2f}"
    return f"{text}; correlation of both fills {replaced.agreement()[place]:.2f}"


def _occlusion_as_json(replaced: Occlusion, place: int) -> dict[str, Any]:
    from ecgfounder.evidence import FILLS

    return {
        "rows": list(replaced.rows),
        "spans": replaced.spans.tolist(),
        **{f"drops_{fill}": replaced.drops[number, :, :, place].tolist() for number, fill in enumerate(FILLS)},
    }
