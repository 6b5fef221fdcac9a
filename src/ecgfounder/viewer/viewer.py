"""What the page asks for, and the answers; nothing of HTTP.

In: an atlas, parameters of a question. Out: dictionaries, arrays and pieces of files.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from ecgfounder._version import __version__
from ecgfounder.ecg.plot import Band
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ECGFounderError, SettingsError
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.status import run_status
from ecgfounder.results.several import RUN_COLUMN
from ecgfounder.viewer.atlas import Atlas
from ecgfounder.viewer.composition import composition
from ecgfounder.viewer.details import ecg_of, evidence_of, facts_of, neighbours_of
from ecgfounder.viewer.saving import FORMATS, saved

Mask = npt.NDArray[np.bool_]
BandsOf = Callable[[Recording], Sequence[Band]]

MOST_SELECTIONS = 8
"""Selections that are kept, to be saved and leafed through."""
PER_PAGE = 100
LONGEST_TEXT = 2000
STATUS_SECONDS = 5.0
"""How long the status of a run that is not complete is kept."""


class Viewer:
    """Opens the run for the page, and opens it again.

    Parameters
    ----------
    opened : callable
        Opens the atlas; called again when the page asks for what there is by now.
    bands_of : callable, optional
        The bands of evidence of a recording, to be drawn below its ECG.

    Attributes
    ----------
    opening : Opening
        The run as it was read last; it answers the page's questions.
    """

    def __init__(self, opened: Callable[[], Atlas], bands_of: BandsOf | None = None) -> None:
        self._opened = opened
        self._bands_of = bands_of
        self.opening = Opening(opened(), bands_of)
        self._reopening = threading.Lock()
        self._asking = threading.Lock()
        self._status: list[dict[str, Any]] = []
        self._status_at = float("-inf")

    @property
    def atlas(self) -> Atlas:
        """The recordings of the present opening."""
        return self.opening.atlas

    def close(self) -> None:
        """End what is done in the background."""
        self.atlas.close()

    def reopen(self) -> dict[str, Any]:
        """Read the run again: a run that is not complete has more recordings by now.

        Rows are other recordings then: the former opening's answers and selections are not this one's.

        Raises
        ------
        SettingsError
            If it is being read again already.
        """
        if not self._reopening.acquire(blocking=False):
            raise SettingsError("the run is being read again already")
        try:
            before, self.opening = self.atlas, Opening(self._opened(), self._bands_of)
        finally:
            self._reopening.release()
        before.close()
        return self.opening.about()

    def status(self) -> dict[str, Any]:
        """Progress and rate of the runs that are not complete, as `ecgfounder status` has them."""
        with self._asking:
            if time.monotonic() - self._status_at > STATUS_SECONDS:
                self._status = [self._status_of(name, run) for name, run in self.atlas.runs if not run.is_complete]
                self._status_at = time.monotonic()
            return {"runs": self._status}

    @staticmethod
    def _status_of(name: str, run: Any) -> dict[str, Any]:
        try:
            found = run_status(RunFolder(run.folder))
        except ECGFounderError as error:
            return {"name": name, "state": "unknown", "reason": str(error)}
        return {
            "name": name,
            "state": found.state,
            "done": found.done,
            "failed": found.failed,
            "pending": found.pending,
            "rate": found.rate,
        }


class Opening:
    """Answers the page's questions about the run as it was read once.

    Parameters
    ----------
    atlas : Atlas
        The recordings.
    bands_of : callable, optional
        The bands of evidence of a recording.

    Attributes
    ----------
    name : str
        Random; a question that names another opening is not answered, because its rows are other recordings.
    """

    def __init__(self, atlas: Atlas, bands_of: BandsOf | None = None) -> None:
        self.name = secrets.token_hex(8)
        self.atlas = atlas
        self._bands_of = bands_of
        self._selections: OrderedDict[int, Mask] = OrderedDict()
        self._n_selections = 0
        self._lock = threading.Lock()
        self._reading = threading.Lock()

    # --- the whole ---------------------------------------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """What the page must know first."""
        atlas = self.atlas
        return {
            "opening": self.name,
            "version": __version__,
            "runs": [name for name, _ in atlas.runs],
            "is_complete": all(run.is_complete for _, run in atlas.runs),
            "n": len(atlas),
            "n_failed": atlas.failures.num_rows,
            "left_out": {
                reason: count for reason, count in atlas.selection.left_out.items() if count and reason != "failed"
            },
            "group": atlas.group,
            "has_evidence": self._bands_of is not None,
            "columns": [{"name": name, "group": group} for name, group in atlas.columns.shown.items()],
            "places": self.places(),
        }

    def places(self) -> dict[str, Any]:
        """How far the maps are."""
        places = self.atlas.places
        return {"pca": places.pca.as_dict(), "umap": places.umap.as_dict(), "explained": places.explained}

    def start_umap(self) -> dict[str, Any]:
        """Begin to make the map by UMAP."""
        self.atlas.places.start_umap()
        return self.places()

    # --- the map -----------------------------------------------------------------------------------------------------

    def map(self, kind: str) -> npt.NDArray[np.uint16]:
        """uint16 [n, 2], the places of all recordings."""
        return self.atlas.places.coordinates(kind)

    def column(self, name: str) -> tuple[dict[str, Any], npt.NDArray[Any]]:
        """A column for the page: what it is, and its values."""
        if name not in self.atlas.columns.shown:
            raise SettingsError("there is no such column")
        found = self.atlas.columns.encoded(name)
        return found.about(), found.values

    def filter(self, expression: str) -> Mask:
        """The recordings for which a condition is true."""
        return self.atlas.where(expression)

    def search(self, text: str) -> dict[str, Any]:
        """Recordings by name or identifier."""
        if not 0 < len(text) <= LONGEST_TEXT:
            raise SettingsError(f"expected a text of at most {LONGEST_TEXT:,} characters")
        found = self.atlas.find(text)
        names = self.atlas.names(found.rows)
        rows = [{**name, "by": by, "text": what} for name, (by, what) in zip(names, found.by, strict=True)]
        return {"found": rows, "total": found.total}

    # --- selections --------------------------------------------------------------------------------------------------

    def select(self, mask: Mask) -> dict[str, Any]:
        """Keep a selection; its composition beside the rest's."""
        with self._lock:
            self._n_selections += 1
            number = self._n_selections
            self._selections[number] = mask
            while len(self._selections) > MOST_SELECTIONS:
                self._selections.popitem(last=False)
        return {"selection": number, "n": int(mask.sum()), "columns": self._composition(mask, predicted=False)}

    def composition(self, selection: int) -> dict[str, Any]:
        """What the network predicts for a selection, beside the rest."""
        return {"columns": self._composition(self._mask(selection), predicted=True)}

    def _composition(self, mask: Mask, *, predicted: bool) -> list[dict[str, Any]]:
        return [asdict(each) for each in composition(self.atlas.columns, mask, predicted=predicted)]

    def rows(self, selection: int, first: int) -> dict[str, Any]:
        """Some recordings of a selection, from the first on."""
        rows = np.flatnonzero(self._mask(selection))
        return {"rows": self.atlas.names(rows[max(0, first) : max(0, first) + PER_PAGE]), "total": len(rows)}

    def save(self, selection: int, form: str) -> Iterator[bytes]:
        """A selection as a file."""
        if form not in FORMATS:
            raise SettingsError(f"expected one of the formats {', '.join(FORMATS)}")
        return saved(self.atlas, self._mask(selection), form)

    def _mask(self, selection: int) -> Mask:
        with self._lock:
            mask = self._selections.get(selection)
        if mask is None:
            raise SettingsError("this selection is not kept any more; select again")
        return mask

    # --- recordings --------------------------------------------------------------------------------------------------

    def names(self, row: int) -> dict[str, Any]:
        """The name of a recording."""
        return self.atlas.names([self._row(row)])[0]

    def recording(self, row: int) -> dict[str, Any]:
        """What is known of a recording."""
        return facts_of(self.atlas, self._row(row))

    def neighbours(self, row: int) -> dict[str, Any]:
        """Its nearest recordings."""
        return neighbours_of(self.atlas, self._row(row))

    def ecg(self, row: int) -> dict[str, Any]:
        """Its ECG on paper; one file is read at a time."""
        with self._reading:
            return ecg_of(self.atlas, self._row(row))

    def evidence(self, row: int) -> dict[str, Any]:
        """Bands of evidence below its ECG; one recording is computed at a time."""
        if self._bands_of is None:
            raise SettingsError("no statement was named whose evidence is to be shown")
        with self._reading:
            return evidence_of(self.atlas, self._row(row), self._bands_of)

    def _row(self, row: int) -> int:
        if not 0 <= row < len(self.atlas):
            raise SettingsError("there is no such recording")
        return row

    def failures(self, text: str, first: int) -> dict[str, Any]:
        """Failed recordings whose name or reason contains a text, from the first on, and all reasons with their counts."""
        table = self.atlas.failures
        if text:
            masks = [
                pc.match_substring(table[name], text[:LONGEST_TEXT], ignore_case=True) for name in ("record", "reason")
            ]
            table = table.filter(pc.fill_null(pc.or_(*masks), False))
        rows = table.slice(max(0, first), PER_PAGE).to_pylist()
        reasons = [{"error": error, "reason": reason, "n": n} for error, reason, n in self.atlas.reasons[:PER_PAGE]]
        several = RUN_COLUMN in table.column_names
        return {
            "rows": rows,
            "total": table.num_rows,
            "reasons": reasons,
            "n_reasons": len(self.atlas.reasons),
            "several": several,
        }
