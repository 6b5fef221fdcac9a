"""One recording: its facts, its ECG on paper, what is near to it.

In: an atlas and the row of a recording. Out: dictionaries for the page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ecgfounder.ecg.plot import (
    BAND_HEIGHT,
    BAR_GAP,
    LONGEST_BAR,
    MM_PER_MILLIVOLT,
    MM_PER_SECOND,
    Band,
    Row,
    bars_of,
    footer_of,
    heading_of,
    last_rows,
    rows_of,
)
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ECGFounderError, RunError
from ecgfounder.preprocess.beats import heart_rate
from ecgfounder.preprocess.quality import FLAGS
from ecgfounder.viewer.atlas import Atlas
from ecgfounder.viewer.columns import LARGEST_WHOLE

GAP = -(2**31)
"""In place of a missing sample."""

LIKELIEST = 10
"""Predicted statements that are shown."""
MOST_OTHERS = 100
"""Other recordings of a patient that are listed."""

_NOT_SHOWN = ("record", "status", "error", "reason", "flags", "shape", "window_starts")


def facts_of(atlas: Atlas, row: int) -> dict[str, Any]:
    """What is known of a recording: columns, flags with their meaning, statements, the patient's other recordings."""
    (name,) = atlas.names([row])
    values = atlas.selection.table.slice(row, 1).to_pylist()[0]
    others = atlas.of_same_patient(row)
    flags = []
    for flag in values.get("flags") or ():
        kind, _, detail = flag.partition(":")
        flags.append({"name": kind, "detail": detail, "meaning": FLAGS.get(kind, "")})
    return {
        **name,
        "facts": [
            [key, _shown(value, atlas.selection.table[key].type)]
            for key, value in values.items()
            if key not in _NOT_SHOWN and value is not None
        ],
        "flags": flags,
        "statements": atlas.columns.statements_of(row),
        "probabilities": atlas.columns.probabilities_of(row)[:LIKELIEST],
        "others": atlas.names(others[:MOST_OTHERS]),
        "n_others": len(others),
    }


def _shown(value: Any, kind: pa.DataType) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if not isinstance(value, float):
        return value.hex() if isinstance(value, bytes) else str(value)
    if value.is_integer() and abs(value) < LARGEST_WHOLE:
        return str(int(value))  # an identifier, perhaps
    return str(np.float32(value) if pa.types.is_float32(kind) else value)


def neighbours_of(atlas: Atlas, row: int) -> dict[str, Any]:
    """The nearest recordings, and whether they are of the same patient; or the reason why they are not known."""
    try:
        rows, similarity, exact = atlas.places.nearest(row)
    except RunError as error:
        return {"reason": str(error)}
    same = set(atlas.of_same_patient(row).tolist())
    found = [
        {**name, "similarity": float(value), "same_patient": name["row"] in same}
        for name, value in zip(atlas.names(rows), similarity, strict=True)
    ]
    return {"neighbours": found, "exact": exact}


def ecg_of(atlas: Atlas, row: int) -> dict[str, Any]:
    """The recording as it is drawn on paper, or the reason why it cannot be drawn.

    Rows have their extent in millimetres, traces whole microvolts; positions are in seconds.
    """
    recording = atlas.files.recording(row)
    if isinstance(recording, str):
        return {"reason": recording}
    rows = rows_of(recording)
    return {
        "mm_per_second": MM_PER_SECOND,
        "mm_per_millivolt": MM_PER_MILLIVOLT,
        "gap": GAP,
        "sampling_rate": recording.sampling_rate,
        "heading": heading_of(recording, heart_rate(recording)),
        "footer": footer_of(recording, rows),
        "rows": [_drawn(each, recording.sampling_rate) for each in rows],
    }


def evidence_of(atlas: Atlas, row: int, bands_of: Callable[[Recording], Sequence[Band]]) -> dict[str, Any]:
    """Bands below the rows of the ECG, or the reason why there are none; extents in millimetres, times in seconds of the row."""
    recording = atlas.files.recording(row)
    if isinstance(recording, str):
        return {"reason": recording}
    try:
        bands = bands_of(recording)
    except ECGFounderError as error:
        return {"reason": str(error)}
    rows, rate = rows_of(recording), recording.sampling_rate
    return {
        "height": BAND_HEIGHT,
        "longest": LONGEST_BAR,
        "gap": BAR_GAP,
        "bands": [{"name": band.name, "caption": band.caption} for band in bands],
        "bars": {str(number): [bars_of(band, rows[number], rate) for band in bands] for number in last_rows(rows)},
    }


def _drawn(row: Row, sampling_rate: float) -> dict[str, Any]:
    traces = []
    for trace in row.traces:
        microvolts = np.rint(trace.millivolts * 1000)
        whole = np.where(np.isfinite(microvolts), np.clip(microvolts, -1e9, 1e9), GAP).astype(np.int32)
        height = row.label_height(trace, sampling_rate)
        traces.append(
            {"label": trace.label, "start": trace.start, "place": trace.place, "height": height, "microvolts": whole}
        )
    return {"up": row.up, "down": row.down, "traces": traces}
