"""The map for others: as columns for other viewers, or as one page that opens from disk.

In: an atlas whose map is ready, which columns may go out. Out: a Parquet file, or an HTML page that needs no server and no
network. By default neither has names, labels or ECGs: only places, neighbours, and reasons of failures with their counts.
Without names, recordings are in random order.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from ecgfounder._version import __version__
from ecgfounder.analysis.pages.page import rounded_count
from ecgfounder.analysis.pages.tables import make_folder
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.results.several import RUN_COLUMN
from ecgfounder.storage import Location
from ecgfounder.storage.writing import write_whole, writing
from ecgfounder.viewer.atlas import Atlas
from ecgfounder.viewer.details import ecg_of
from ecgfounder.viewer.files import INDEX, page_files
from ecgfounder.viewer.places import LARGEST, NEAREST

MAP_FILE, PAGE_FILE = "map.parquet", "index.html"

MOST_DRAWN = 500
"""Recordings whose ECGs a page may have."""
MOST_NEAR = 100_000
"""Recordings of a page that has the neighbours of each."""

NAME = "record"
_OF_MAP = ("x", "y", "umap_x", "umap_y", "neighbors")

_IMPORT = re.compile(r'^import \{ ([\w, ]+) \} from "\./(\w+\.js)";\n', re.MULTILINE)
_CSP = (
    "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


def write_map(atlas: Atlas, folder: Location, columns: Sequence[str] = (), *, k: int = NEAREST) -> None:
    """Write the map as a table: `x`, `y`, `umap_x`, `umap_y` if there is one, `neighbors`, and columns that are named.

    Parameters
    ----------
    atlas : Atlas
        The recordings; their map is waited for.
    folder : Location
        Where `map.parquet` is written.
    columns : sequence of str
        Columns to copy, "record" for the names.
    k : int, default: 10
        Neighbours of each, rows of this table from 0, with distances: 1 minus the similarity. 0 for none.

    Raises
    ------
    SettingsError, RunError
        If there is no such column, or it has a name of the map's own, or there is no map.
    """
    if own := [name for name in columns if name in _OF_MAP]:
        raise SettingsError(
            f"Invalid value for the 'columns' parameter. The map has a column {own[0]!r} of its own: rename the other one."
        )
    _check(atlas, columns)
    order = _order(atlas, columns)
    found: dict[str, Any] = {}
    for kind, prefix in (("pca", ""), ("umap", "umap_")):
        if getattr(atlas.places, kind).state == "ready":
            for axis, values in zip("xy", atlas.places.coordinates(kind)[order].T, strict=True):
                found[f"{prefix}{axis}"] = pa.array(values.astype(np.float32) / LARGEST)
    if k and atlas.places.has_index:
        rows, similarity = _near(atlas, order, k)
        lists = [_as_lists(rows), _as_lists(1 - similarity)]
        found["neighbors"] = pa.StructArray.from_arrays(lists, names=["ids", "distances"])
    found |= {name: atlas.columns[name].take(pa.array(order)) for name in columns}
    make_folder(folder)
    with writing(folder / MAP_FILE) as file:
        pq.write_table(pa.table(found), file, compression="zstd")


def _order(atlas: Atlas, columns: Sequence[str]) -> npt.NDArray[np.int64]:
    """The order of recordings: as in the run with names, else at random, because the place in a run is a name, too."""
    return np.arange(len(atlas)) if NAME in columns else np.random.default_rng().permutation(len(atlas))


def _near(atlas: Atlas, order: npt.NDArray[np.int64], k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The nearest recordings of each and their similarities, all in an order."""
    rows, similarity = atlas.places.nearest_of_all(k)
    place = np.empty(len(order) + 1, np.int64)
    place[order], place[-1] = np.arange(len(order)), -1  # row -1 is none
    return place[rows[order]], similarity[order]


def _as_lists(values: Any) -> pa.ListArray:
    """The rows of an array [n, k] as lists."""
    offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(values).ravel()))


def write_page(atlas: Atlas, folder: Location, columns: Sequence[str] = (), *, drawings: bool = False) -> None:
    """Write the map as `index.html`, which opens from disk.

    Parameters
    ----------
    atlas : Atlas
        The recordings; their map is waited for.
    folder : Location
        Where it is written.
    columns : sequence of str
        Columns to colour and to compare by, "record" for the names of recordings.
    drawings : bool, default: False
        Whether the page has the ECGs.

    Raises
    ------
    SettingsError, RunError
        If there is no such column, no map, or there are too many recordings to draw.
    """
    _check(atlas, columns)
    if drawings and len(atlas) > MOST_DRAWN:
        raise SettingsError(
            f"Invalid value for the 'drawings' parameter. A page has the ECGs of at most {MOST_DRAWN} recordings, got "
            f"{len(atlas):,}: choose some with 'where'."
        )
    make_folder(folder)
    write_whole(folder / PAGE_FILE, _page(list(_blocks(atlas, columns, drawings=drawings))))


def _check(atlas: Atlas, columns: Sequence[str]) -> None:
    for name in columns:
        if name != NAME and name not in atlas.columns.shown:
            raise SettingsError(
                f"Invalid value for the 'columns' parameter. There is no column {name!r}; the columns are: "
                f"{', '.join([NAME, *atlas.columns.shown])}."
            )
    atlas.places.wait()
    if atlas.places.pca.state != "ready":
        raise RunError(f"there is no map: {atlas.places.pca.phase}")


def _blocks(atlas: Atlas, columns: Sequence[str], *, drawings: bool) -> Iterator[tuple[str, bytes]]:
    """The name and content of each block of data of a page."""
    shown = [name for name in columns if name != NAME]
    kinds = [kind for kind in ("pca", "umap") if getattr(atlas.places, kind).state == "ready"]
    order = _order(atlas, columns)
    has_near = atlas.places.has_index and len(atlas) <= MOST_NEAR
    about = {
        "version": __version__,
        "runs": [name for name, _ in atlas.runs] if RUN_COLUMN in columns else ["A map of ECG recordings"],
        "is_complete": all(run.is_complete for _, run in atlas.runs),
        "n": len(atlas),
        "n_failed": rounded_count(atlas.failures.num_rows),
        "left_out": _left_out(atlas),
        "group": None,
        "columns": [{"name": name, "group": atlas.columns.shown[name]} for name in shown],
        "maps": kinds,
        "explained": atlas.places.explained,
        "has_names": NAME in columns,
        "reasons": [
            {"error": error, "reason": reason, "n": rounded_count(n)} for error, reason, n in atlas.reasons[:100]
        ],
    }
    yield "about", orjson.dumps(about)
    for kind in kinds:
        yield f"map-{kind}", atlas.places.coordinates(kind)[order].astype("<u2").tobytes()
    for number, name in enumerate(shown):
        encoded = atlas.columns.encoded(name)
        yield f"column-{number}", orjson.dumps(encoded.about())
        yield f"values-{number}", encoded.values[order].tobytes()
    if NAME in columns:
        yield "names", orjson.dumps(atlas.selection.table[NAME].to_pylist())
    if has_near:
        rows, similarity = _near(atlas, order, NEAREST)
        yield "near", rows.astype("<i4").tobytes()
        yield "similarity", similarity.astype("<f4").tobytes()
    if drawings:
        for number, row in enumerate(order.tolist()):
            yield f"ecg-{number}", orjson.dumps(ecg_of(atlas, row), option=orjson.OPT_SERIALIZE_NUMPY)


def _left_out(atlas: Atlas) -> dict[str, str]:
    """How many recordings were left out by what; without the condition, which may name a patient."""
    found: dict[str, int] = {}
    for reason, n in atlas.selection.left_out.items():
        if n and reason != "failed":
            kind = "condition" if reason.startswith("where:") else reason
            found[kind] = found.get(kind, 0) + n
    return {reason: rounded_count(n) for reason, n in found.items()}


def _page(blocks: Sequence[tuple[str, bytes]]) -> bytes:
    """The page with its style, script and data in one file; data is base64, so that no text of a run is ever markup."""
    files = {name: content.decode() for name, (content, _) in page_files().items()}
    style, script = files["/style.css"], _bundled(files, "app.js")
    policy = _CSP.format(script=_hash(script), style=_hash(style))
    data = "".join(
        f'<script type="application/octet-stream" id="data-{name}">{base64.b64encode(content).decode()}</script>\n'
        for name, content in blocks
    )
    html = files[INDEX]
    for before, after in (
        ('<link rel="icon" href="icon.svg" type="image/svg+xml">\n', ""),
        ('<link rel="stylesheet" href="style.css">', f"<style>{style}</style>"),
        ('<script type="module" src="app.js"></script>\n', ""),
        (
            '<meta charset="utf-8">\n',
            f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
        ),
        ("</body>", f"{data}<script>{script}</script>\n</body>"),
    ):
        html = html.replace(before, after)
    return html.encode()


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _bundled(files: dict[str, str], first: str) -> str:
    """The modules of the page as one script, each after those that it imports: a page on disk may load none."""
    order: list[str] = []

    def visit(name: str) -> None:
        for _, imported in _IMPORT.findall(files[f"/{name}"]):
            visit(imported)
        if name not in order:
            order.append(name)

    visit(first)
    parts = [re.sub(r"^export ", "", _IMPORT.sub("", files[f"/{name}"]), flags=re.MULTILINE) for name in order]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"
