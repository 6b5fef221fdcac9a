"""Which diagnostic statements recordings have: those that the network's head predicts, and those that the device printed.

In: a selection of recordings. Out: `Findings`, with the names of the head's classes only: other texts of devices are not shown,
because a hospital may have written them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.analysis.reporting.facts import lists_of, short_name
from ecgfounder.analysis.reporting.sides import Mask
from ecgfounder.analysis.rows.selection import Selection
from ecgfounder.analysis.statistics.solver import Numbers
from ecgfounder.network.bundles import published_labels
from ecgfounder.network.head import LIKELY, PLACE_COLUMNS

_BLANKS = re.compile(r"[\s*.,;:_-]+")


@dataclass(frozen=True, eq=False)
class Findings:
    """Statements of recordings.

    Attributes
    ----------
    names : tuple of str
        The statements.
    there : numpy.ndarray
        bool [n, len(names)]: which recordings have which.
    known : numpy.ndarray
        bool [n]: the recordings that have any prediction, or any text of the device.
    """

    names: tuple[str, ...]
    there: Mask
    known: Mask


def predicted(selection: Selection) -> Findings | None:
    """Statements with a probability of at least one half in any window or lead; None without predictions.

    Of several runs, those that the first one with predictions has.
    """
    n = selection.table.num_rows
    found: Findings | None = None
    for run, rows in selection.by_run():
        names = selection.table["record"].take(pa.array(rows)).combine_chunks()
        for batch in run.batches("predictions"):
            columns = [name for name in batch.column_names if name not in PLACE_COLUMNS]
            if found is None:
                found = Findings(tuple(columns), np.zeros((n, len(columns)), bool), np.zeros(n, bool))
            at, places = _places(batch, names, rows)
            found.known[at] = True
            for number, name in enumerate(found.names):
                if name in columns:
                    likely = pc.fill_null(pc.greater_equal(batch[name], LIKELY), False).to_numpy()[places]
                    found.there[at[likely], number] = True
    if found is None:
        return None
    return Findings(tuple(short_name(name) for name in found.names), found.there, found.known)


def stated(selection: Selection) -> Findings | None:
    """The device's statements that have the words of one of the head's classes; None without statements."""
    n, classes = selection.table.num_rows, published_labels()
    found: Findings | None = None
    for run, rows in selection.by_run():
        names = selection.table["record"].take(pa.array(rows)).combine_chunks()
        for batch in run.batches("statements"):
            if found is None:
                found = Findings(classes, np.zeros((n, len(classes)), bool), np.zeros(n, bool))
            at, places = _places(batch, names, rows)
            lists = batch["statements"].combine_chunks().take(pa.array(places))
            found.known[at] = pc.fill_null(pc.greater(pc.list_value_length(lists), 0), False).to_numpy(
                zero_copy_only=False
            )
            found.there[at] |= lists_of(pa.chunked_array([lists]), [_plain(name) for name in classes], of=_plain)
    return found


def _places(batch: pa.Table, names: pa.Array, rows: Numbers) -> tuple[Numbers, Numbers]:
    """The recordings that a table's rows are of, and these rows."""
    found = pc.index_in(batch["record"].combine_chunks(), value_set=names)
    places = np.flatnonzero(pc.is_valid(found).to_numpy(zero_copy_only=False))
    return rows[found.take(pa.array(places)).to_numpy()], places


def _plain(text: str) -> str:
    """
    >>> _plain("** Normal sinus rhythm. **")
    'NORMAL SINUS RHYTHM'
    """
    return _BLANKS.sub(" ", text).strip().upper()
