"""Recordings that are there more than once: the same file, the same signal, perhaps the same patient.

In: an opened run or several, `DuplicateSettings`. Out: a `Duplicates`: tables of pairs, of recordings (with which to keep) and of
leakage between splits, and lines that sum them up. docs/duplicates.md describes the method.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ecgfounder.analysis.duplication.leakage import leakage
from ecgfounder.analysis.duplication.reread import Files
from ecgfounder.analysis.duplication.same_signal import DIFFERENT, Alignment, align
from ecgfounder.analysis.duplication.strangers import WIDE_OF_DUPLICATES, WINDOW, Strangers, fit
from ecgfounder.analysis.pages.page import shown_count
from ecgfounder.analysis.rows.selection import Selection, select
from ecgfounder.analysis.similarity.near import NearPairs, near_pairs
from ecgfounder.analysis.similarity.neighbours import index_folder, index_key, vectors_of
from ecgfounder.analysis.similarity.search import Index, Queries, Rows, open_index, search_all
from ecgfounder.analysis.similarity.space import SAMPLE, Floats, Space
from ecgfounder.checks import check_least
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.escaping import counted, one_line
from ecgfounder.results import EmbeddingRun, EmbeddingRuns
from ecgfounder.results.several import RUN_COLUMN
from ecgfounder.results.small_cells import FEWEST
from ecgfounder.storage import storage_options as make_options

SAME_FILE, SAME_SIGNAL, SAME_PATIENT, CANDIDATE = "same_file", "same_signal", "same_patient", "candidate"
CLASSES = (SAME_FILE, SAME_SIGNAL, SAME_PATIENT, CANDIDATE)
"""What a pair may be, the most certain first."""

FLOOR = 0.5
"""Similarity below which no pair is looked at; in large cohorts, it is the median of the nearest one of another patient."""

NEAREST_SAMPLE = 2_000
"""Recordings, spread over the search, whose nearest one of another patient is looked for among all."""

NOT_COMPARED, TOO_MANY = "the signals were not compared", "more pairs than signals may be compared"
"""Further reasons why a pair is not confirmed."""

LARGE_GROUP = 100
"""Different files with equal embeddings above which a few are looked at first."""

_TRIED = 20  # of a large group
_OTHERS = 10  # nearest ones of another patient, of which known duplicates are left out
_A_SHIFT, _A_GAIN = 0.02, 0.02  # seconds, and logarithm, from which on they are told
_OTHER_SIGNAL = ""
_AT_ONCE = 200  # pairs whose signals are compared before it is asked whether to go on
_WORTH_IT = 0.02  # share of them that must be the same signal

PAIRS = pa.schema(
    [
        *((name, pa.string()) for name in ("class", "record_a", "run_a", "record_b", "run_b")),
        ("similarity", pa.float32()),
        ("expected_false", pa.float64()),
        ("correlation", pa.float64()),
        ("shift", pa.float64()),
        ("gain", pa.float64()),
        ("seconds", pa.float64()),
        ("n_leads", pa.int64()),
        ("differs", pa.string()),
        ("same_group", pa.bool_()),
        ("cluster", pa.int64()),
        ("reason", pa.string()),
    ]
)

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class DuplicateSettings:
    """The settings of a search for duplicates.

    Attributes
    ----------
    group : str or None
        Column with the patient.
    split : tuple of str
        Columns between whose values leakage is counted.
    false_pairs : float
        The number of pairs of different patients that is expected above the threshold, in the whole search.
    compared : float
        The number of such pairs above the similarity down to which signals are compared in any case.
    k : int
        Pairs of a recording that are looked at.
    signals : bool
        Whether the cohort's files are read again, to compare signals.
    most_signals : int
        Pairs whose signals may be compared.
    data_dir : str or None
        Folder that the paths are relative to; None for that of the run.
    """

    group: str | None = None
    split: tuple[str, ...] = ()
    false_pairs: float = 1.0
    compared: float = 1000.0
    k: int = 10
    signals: bool = True
    most_signals: int = 20_000
    data_dir: str | None = None

    def __post_init__(self) -> None:
        check_least("k", self.k, 1)
        check_least("most_signals", self.most_signals, 0)
        for name in ("false_pairs", "compared"):
            if not 0 < getattr(self, name) < float("inf"):
                raise SettingsError(
                    f"Invalid value for the '{name}' parameter. It must be a number above 0, got {getattr(self, name)}."
                )


@dataclass(frozen=True)
class Remark:
    """What a reader must know: a text, and the number that stands for "{n}" in it."""

    text: str
    n: int | None = None
    noun: str = "recording"

    def __str__(self) -> str:
        return self.text if self.n is None else self.text.replace("{n}", counted(self.n, self.noun))

    def for_page(self) -> str:
        """The text for a page, on which small numbers are not shown."""
        hidden = self.n is not None and 0 < self.n < FEWEST
        return self.text.replace("{n}", f"{shown_count(self.n)} {self.noun}s") if hidden else str(self)


@dataclass(frozen=True, eq=False)
class Duplicates:
    """The result of a search for duplicates; `print` it for its summary.

    Attributes
    ----------
    settings : DuplicateSettings
        The settings of the search.
    counts : dict of str to int
        Recordings, those that were left out and searched, pairs of each class, clusters, recordings that may go.
    pairs : pyarrow.Table
        A row for each pair (`PAIRS`). Copies of one file, and embeddings that are equal, are each paired with the first alone.
    recordings : pyarrow.Table
        A row for each recording: record, run, cluster, n_in_cluster, keep, same_patient, candidate.
    leakage : pyarrow.Table
        A row for each two values of a split (or runs) and each class (`ecgfounder.analysis.duplication.leakage`).
    strangers : Strangers or None
        How similar different patients are; None if it cannot be said.
    threshold : float
        The similarity from which on pairs are named; infinite if none is.
    nearest : numpy.ndarray
        float32: similarity of each sampled recording's nearest one of another patient, duplicates that are known left out.
    sizes : tuple of int
        Recordings of each cluster, the largest first.
    notes : tuple of Remark
        What a reader must know; `str` gives the text.
    seconds : float
        The time that it took.
    """

    settings: DuplicateSettings
    counts: dict[str, int]
    pairs: pa.Table
    recordings: pa.Table
    leakage: pa.Table
    strangers: Strangers | None
    threshold: float
    nearest: Floats
    sizes: tuple[int, ...]
    notes: tuple[Remark, ...]
    seconds: float

    @cached_property
    def n_of(self) -> dict[str, int]:
        """The number of pairs of each class."""
        found = Counter(self.pairs["class"].to_pylist())
        return {name: found[name] for name in CLASSES}

    def __str__(self) -> str:
        return "\n".join(one_line(line) for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield "Recordings: " + "; ".join(f"{name} {number:,}" for name, number in self.counts.items() if number)
        yield self.how
        yield "Pairs: " + "; ".join(f"{name} {number:,}" for name, number in self.n_of.items())
        if self.sizes:
            yield (
                f"{counted(len(self.sizes), 'cluster')} of the same file or signal, the largest with {self.sizes[0]:,} "
                f"recordings; keeping one of each leaves out {sum(self.sizes) - len(self.sizes):,}"
            )
        for by in dict.fromkeys(self.leakage["by"].to_pylist()):
            rows = [row for row in self.leakage.to_pylist() if row["by"] == by and row["n"]]
            yield from map(_leakage_line, rows)
            if not rows:
                yield f"{by}: its parts have nothing in common that was found"
        for note in self.notes:
            yield f"Note: {note}"

    @property
    def how(self) -> str:
        """The threshold in words."""
        if self.strangers is None:
            return "Threshold: none, because there is no distribution of different patients to set it by"
        if not np.isfinite(self.threshold):
            return (
                "Threshold: none, because different patients are so alike here that no similarity tells them apart "
                f"(dimensions {self.strangers.dimensions:.1f})"
            )
        return (
            f"Threshold: similarity {self.threshold:.4f}, above which {self.settings.false_pairs:g} false "
            f"{'pair is' if self.settings.false_pairs == 1 else 'pairs are'} expected in the whole search "
            f"(dimensions {self.strangers.dimensions:.1f})"
        )


def _leakage_line(row: Mapping[str, Any]) -> str:
    what = {"cluster": "cluster", "same_group": "patient"}.get(row["class"], "pair")
    a, b = (counted(row[f"n_recordings_{which}"], "recording") for which in "ab")
    return f"{row['by']}: {row['a']} and {row['b']} share {counted(row['n'], what)} ({row['class']}), with {a} and {b}"


def duplicates(
    run: EmbeddingRun | EmbeddingRuns,
    *,
    labels: Any = None,
    on: str | None = None,
    where: str | None = None,
    exclude_flags: Collection[str] = (),
    settings: DuplicateSettings | None = None,
    storage_options: Mapping[str, object] | None = None,
    say: Say | None = None,
    **options: Any,
) -> Duplicates:
    """Find recordings that are there more than once, in a run or in several.

    Parameters
    ----------
    run : EmbeddingRun or EmbeddingRuns
        The opened run, or several as one.
    labels, on : Any, optional, and str, optional
        A table with further columns, and the column that it has in common with the run.
    where, exclude_flags : str, optional, and collection of str
        Which recordings are used, as in all analyses.
    settings : DuplicateSettings, optional
        The settings; None makes them of `options`.
    storage_options : mapping, optional
        Options of object stores, to read the cohort's files.
    say : callable, optional
        Called with lines on the progress.
    **options : Any
        Attributes of `DuplicateSettings`.

    Returns
    -------
    Duplicates
        Tables, and a summary.

    Raises
    ------
    SettingsError
        If a value is not valid, or there is no such column.
    RunError
        If there are fewer than two recordings, or the index cannot be written.

    Examples
    --------
    >>> found = duplicates(open_run(folder), signals=False)
    >>> found.n_of["same_file"]
    0
    """
    if settings is not None and options:
        raise SettingsError("give settings or options, not both")
    selection = select(run, labels, on, where=where, exclude_flags=exclude_flags, repeated=True)
    files_options = make_options(storage_options)
    chosen = settings or DuplicateSettings(**options)
    files = Files(selection.run, selection.table, chosen.data_dir, files_options) if chosen.signals else None
    return _Search(selection, chosen, files, say or (lambda line: None)).execute()


@dataclass(frozen=True)
class _Pair:
    """A pair that is listed: rows, class, similarity, and what was compared."""

    a: int
    b: int
    kind: str
    similarity: float = float("nan")
    alignment: Alignment | None = None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class _Near:
    """Some rows int64 [q], the nearest ones of other patients [q, k] (-1 where there are fewer), and their similarity."""

    rows: Rows
    others: Rows
    similarity: Floats
    size: int

    def without(self, clusters: _Clusters) -> Floats:
        """The similarity of each one's nearest that is not known to be the same; -inf if there is none."""
        own = [clusters.of(row) for row in self.rows.tolist()]
        known = np.array(
            [
                [other >= 0 and clusters.of(other) == first for other in others]
                for first, others in zip(own, self.others.tolist(), strict=True)
            ]
        )
        return np.asarray(np.where(known, -np.inf, self.similarity).max(axis=1), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class _Stored:
    """The embeddings of some rows of an index, as `Vectors`."""

    index: Index
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self, rows_at_once: int = 1 << 12) -> Iterator[tuple[Rows, Floats]]:
        for first in range(0, len(self.rows), rows_at_once):
            at = np.arange(first, min(first + rows_at_once, len(self.rows)))
            yield at, self.index.vectors(self.rows[at])

    def sample(self, size: int) -> tuple[Rows, Floats]:
        at = np.unique(np.linspace(0, len(self.rows) - 1, min(size, len(self.rows))).astype(np.int64))
        return at, self.index.vectors(self.rows[at])


class _Clusters:
    """Which recordings are the same, by pairs that are."""

    def __init__(self, n: int) -> None:
        self._parent = np.arange(n)

    def of(self, row: int) -> int:
        parent = self._parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = int(parent[row])
        return row

    def join(self, a: int, b: int) -> None:
        one, other = sorted((self.of(a), self.of(b)))
        self._parent[other] = one

    def all(self) -> Rows:
        """int64 [n]: the first row of each one's cluster."""
        return np.array([self.of(row) for row in range(len(self._parent))], dtype=np.int64)


class _Search:
    def __init__(self, selection: Selection, settings: DuplicateSettings, files: Files | None, say: Say) -> None:
        self.selection, self.settings, self.files, self.say = selection, settings, files, say
        self.started = time.monotonic()
        self.n = selection.table.num_rows
        if self.n < 2:
            raise RunError("expected at least two recordings, found one")
        self.notes: list[Remark] = []
        self.pairs: list[_Pair] = []
        self.clusters = _Clusters(self.n)
        self.groups, self.group_known = self._groups()
        self.splits = {name: selection.texts(name, "split") for name in settings.split}
        if isinstance(selection.run, EmbeddingRuns):
            self.splits = {RUN_COLUMN: selection.texts(RUN_COLUMN, "split"), **self.splits}
        self.strangers: Strangers | None = None
        self.nearest = np.empty(0, np.float32)
        self.n_compared = 0
        self.n_other = 0
        self.unconfirmed: Counter[str] = Counter()

    def execute(self) -> Duplicates:
        first = self._same_files()
        rows, members, n_lost = self._different_embeddings(first)
        if n_lost:
            self.notes.append(Remark("{n} with an embedding that is not finite: compared by file alone", n_lost))
        found = self._searched(rows)
        self._equal_embeddings(members)
        if found is not None:
            self._alike(*found)
        return self._result(len(rows))

    def _groups(self) -> tuple[Rows, npt.NDArray[np.bool_]]:
        """The number of each recording's patient, which is its own where it is not known, and whether it is known."""
        name, own = self.settings.group, np.arange(self.n)
        if name is None:
            self.notes.append(
                Remark(
                    "without a group, other recordings of a patient count as those of other patients: the threshold is "
                    "higher than it need be, and what looks like one patient cannot be told from one patient's recordings"
                )
            )
            return own, np.zeros(self.n, bool)
        texts = self.selection.texts(name, "group")
        known = np.array([text not in (None, "", "nan") for text in texts])
        _, numbers = np.unique(np.array(texts, dtype=object).astype(str), return_inverse=True)
        if not known.all():
            n_unknown = int((~known).sum())
            self.notes.append(Remark(f"{{n}} without a {name}: each counts as a patient of its own", n_unknown))
        return np.where(known, self.n + numbers, own).astype(np.int64), known

    # --- the same file --------------------------------------------------------------------------------------------------

    def _same_files(self) -> Rows:
        """Pair copies of a file with the first; returns the first row of each file."""
        table = self.selection.table
        runs = table[RUN_COLUMN].to_pylist() if RUN_COLUMN in table.column_names else [""] * self.n
        keys: dict[Any, int] = {}
        firsts = []
        for row, (sha, record, run) in enumerate(
            zip(table["input_sha256"].to_pylist(), table["record"].to_pylist(), runs, strict=True)
        ):
            first = keys.setdefault(sha if sha is not None else (run, record), row)
            if first == row:
                firsts.append(row)
            else:
                self.clusters.join(first, row)
                self.pairs.append(_Pair(first, row, SAME_FILE))
        return np.array(firsts, dtype=np.int64)

    # --- equal embeddings -----------------------------------------------------------------------------------------------

    def _part(self, rows: Rows) -> Selection:
        return Selection(self.selection.run, self.selection.table.take(pa.array(rows)), {})

    def _different_embeddings(self, rows: Rows) -> tuple[Rows, list[Rows], int]:
        """Of some rows: the first with each embedding; the rows of embeddings that several have; how many are not finite."""
        self.say(f"{counted(len(rows), 'different file')}; reading embeddings")
        vectors = vectors_of(self._part(rows))
        digests, finite = np.zeros(len(rows), np.uint64), np.zeros(len(rows), bool)
        for at, block in vectors.blocks():
            finite[at] = np.isfinite(block).all(axis=1)
            told = b"".join(hashlib.blake2b(vector, digest_size=8).digest() for vector in np.ascontiguousarray(block))
            digests[at] = np.frombuffer(told, np.uint64)
        usable = rows[finite]
        _, number, counts = np.unique(digests[finite], return_inverse=True, return_counts=True)
        order = np.lexsort((usable, number))
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
        members = [
            usable[order[start : start + count]] for start, count in zip(starts, counts, strict=True) if count > 1
        ]
        return np.sort(usable[order[starts]]), members, int((~finite).sum())

    def _equal_embeddings(self, groups: Sequence[Rows]) -> None:
        """Compare each recording with the first that has the same embedding."""
        for rows in groups:
            first, others = int(rows[0]), rows[1:].tolist()
            if len(rows) > LARGE_GROUP:
                tried = [self._compared(first, row) for row in others[:_TRIED]]
                if sum(isinstance(each, Alignment) and each.is_same for each in tried) < _TRIED / 2:
                    told = (
                        "{n} have one and the same embedding, and most that were looked at are not confirmed as one signal "
                        "(flat, different, or not to be read): no pairs are made of them"
                    )
                    self.notes.append(Remark(told, len(rows), "different file"))
                    continue
            for row in others:
                judged = self._judged(first, row, 1.0)
                if judged.kind not in (SAME_SIGNAL, CANDIDATE):
                    judged = replace(judged, kind=CANDIDATE, reason=f"equal embeddings, but {DIFFERENT}")
                self.pairs.append(judged)

    # --- embeddings that are alike --------------------------------------------------------------------------------------

    def _searched(self, rows: Rows) -> tuple[Rows, Index, list[_Near]] | None:
        """An index of some rows, and the nearest ones of other patients for a sample; None if there is nothing to search."""
        if len(rows) < 2:
            return None
        part = self._part(rows)
        vectors = vectors_of(part)
        space = Space.of(vectors.sample(SAMPLE)[1])
        self.say(f"an index of {counted(len(rows), 'different embedding')}")
        index = open_index(index_folder(), index_key(part, whitened=False), vectors, space)
        self.say("the nearest recordings of other patients, for a sample")
        found = []
        for own in self._runs_of(rows):
            sample = np.unique(np.linspace(0, len(own) - 1, min(NEAREST_SAMPLE, len(own))).astype(np.int64))
            groups = self.groups[rows[own]]
            queries = Queries(space.units(index.vectors(own[sample])), sample, groups[sample])
            near = search_all(_Stored(index, own), space, queries, _OTHERS, groups)
            others = np.where(near.rows >= 0, rows[own][near.rows], -1)
            found.append(_Near(rows[own][sample], others, near.similarity, len(own)))
        return rows, index, found

    def _runs_of(self, rows: Rows) -> list[Rows]:
        """Places of the rows of each run: what is in two runs may be the same in all of them."""
        if RUN_COLUMN not in self.splits:
            return [np.arange(len(rows))]
        names = np.array(self.splits[RUN_COLUMN], dtype=object)[rows]
        parts = [np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())]
        return [each for each in parts if len(each) > 1]

    def _fit(self, found: Sequence[_Near], n: int) -> None:
        """The distribution of strangers, without pairs that are known to be the same."""
        nearest = [each.without(self.clusters) for each in found]
        self.nearest = np.concatenate([np.empty(0, np.float32), *nearest])
        window = WIDE_OF_DUPLICATES if self.files is None else WINDOW
        self.strangers = fit(nearest, [each.size for each in found], n, window)

    @property
    def _threshold(self) -> float:
        return float("inf") if self.strangers is None else self.strangers.threshold(self.settings.false_pairs)

    def _alike(self, rows: Rows, index: Index, found: Sequence[_Near]) -> None:
        """Compare the signals of pairs in the order of their similarity; name those above the threshold all the same."""
        self._fit(found, len(rows))
        self.say("pairs that are alike")
        floor = FLOOR
        if self.strangers is not None:
            floor = max(floor, self.strangers.threshold(max(2 * self.settings.compared, len(rows) / 4)))
        near = near_pairs(index, min(floor, 1.0), self.settings.k)
        self.say(f"{counted(len(near), 'pair')} with a similarity of {floor:.2f} or more; comparing signals")
        judged: list[_Pair] = []
        for start in range(0, len(near), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            pairs = zip(rows[near.rows[part]].tolist(), near.similarity[part].tolist(), strict=True)
            new = [
                self._judged(a, b, similarity)
                for (a, b), similarity in pairs
                if self.clusters.of(a) != self.clusters.of(b)
            ]
            judged += new
            confirmed = sum(each.kind == SAME_SIGNAL for each in new)
            if confirmed:
                self._fit(found, len(rows))
            lowest = float(near.similarity[part][-1])
            if lowest < self._threshold and not self._goes_on(lowest, confirmed):
                break
        self._note_full_lists(near)
        self.pairs += [each for each in judged if self._is_named(each)]
        self.n_other = sum(each.kind == _OTHER_SIGNAL and each.similarity >= self._threshold for each in judged)

    def _goes_on(self, similarity: float, confirmed: int) -> bool:
        """Whether the signals of less similar pairs are compared, too."""
        if self.files is None or self.n_compared >= self.settings.most_signals:
            return False
        if confirmed >= _WORTH_IT * _AT_ONCE:
            return True
        expected = self.n_compared if self.strangers is None else float(self.strangers.expected(np.array(similarity)))
        return expected < self.settings.compared

    def _note_full_lists(self, near: NearPairs) -> None:
        named = near.rows[near.similarity >= self._threshold]
        full = int((np.bincount(named.reshape(-1)) >= self.settings.k).sum()) if len(named) else 0
        if full:
            told = f"{{n}} with {self.settings.k} or more others above the threshold: not all of their pairs are looked at (k)"
            self.notes.append(Remark(told, full))

    def _is_named(self, pair: _Pair) -> bool:
        if pair.kind == SAME_SIGNAL:
            return True
        linked = self.clusters.of(pair.a) == self.clusters.of(pair.b)
        return pair.similarity >= self._threshold and pair.kind != _OTHER_SIGNAL and not linked

    # --- signals ----------------------------------------------------------------------------------------------------------

    def _compared(self, a: int, b: int) -> Alignment | str:
        """Two recordings' signals compared, or why they cannot be."""
        if self.files is None:
            return NOT_COMPARED
        if self.n_compared >= self.settings.most_signals:
            return TOO_MANY
        self.n_compared += 1
        traces = []
        for row in (a, b):
            trace = self.files.trace(row)
            if isinstance(trace, str):
                return trace
            traces.append(trace)
        return align(*traces)

    def _judged(self, a: int, b: int, similarity: float) -> _Pair:
        """A pair with its class, were it named; recordings with the same signal are joined."""
        outcome = self._compared(a, b)
        if isinstance(outcome, str):
            self.unconfirmed[outcome] += 1
            return _Pair(a, b, CANDIDATE, similarity, None, outcome)
        if outcome.is_same:
            self.clusters.join(a, b)
            return _Pair(a, b, SAME_SIGNAL, similarity, outcome)
        if outcome.reason != DIFFERENT:
            return _Pair(a, b, CANDIDATE, similarity, outcome, outcome.reason)
        others = self.settings.group is not None and self.groups[a] != self.groups[b]
        return _Pair(a, b, SAME_PATIENT if others else _OTHER_SIGNAL, similarity, outcome)

    # --- tables -----------------------------------------------------------------------------------------------------------

    def _result(self, n_searched: int) -> Duplicates:
        first = self.clusters.all()
        sizes = np.bincount(first, minlength=self.n)
        clusters = np.full(self.n, -1)
        several = np.flatnonzero(sizes > 1)
        several = several[np.argsort(-sizes[several], kind="stable")]
        number = np.full(self.n, -1)
        number[several] = np.arange(len(several))
        clusters = number[first]
        recordings = self._recordings(clusters, sizes[first])
        if self.n_other:
            told = "{n} above the threshold with other signals, of one patient or of unknown ones: not listed"
            self.notes.append(Remark(told, self.n_other, "pair"))
        for reason, count in self.unconfirmed.most_common():
            self.notes.append(Remark(f"signals of {{n}} not compared: {reason}", count, "pair"))
        once = int(sizes[several].sum())
        counts = {
            "used": self.n,
            **{f"left out ({reason})": each for reason, each in self.selection.left_out.items() if each},
            "different embeddings searched": n_searched,
            "pairs whose signals were compared": self.n_compared,
            "clusters": len(several),
            "in clusters": once,
            "more than needed": once - len(several),
        }
        return Duplicates(
            self.settings,
            counts,
            self._pair_table(clusters),
            recordings,
            self._leakage(clusters),
            self.strangers,
            self._threshold,
            self.nearest,
            tuple(sizes[several].tolist()),
            tuple(self.notes),
            time.monotonic() - self.started,
        )

    def _pair_table(self, clusters: Rows) -> pa.Table:
        order = sorted(
            self.pairs,
            key=lambda each: (CLASSES.index(each.kind), -np.nan_to_num(each.similarity, nan=2), each.a, each.b),
        )
        a, b = (np.array([getattr(each, name) for each in order], dtype=np.int64) for name in "ab")
        similarity = np.array([each.similarity for each in order])
        expected = np.full(len(order), np.nan)
        if self.strangers is not None:
            expected = np.where(np.isnan(similarity), np.nan, self.strangers.expected(np.nan_to_num(similarity)))
        aligned = [each.alignment for each in order]
        table = self.selection.table
        columns: dict[str, Any] = {"class": [each.kind for each in order]}
        for which, rows in (("a", a), ("b", b)):
            columns[f"record_{which}"] = table["record"].take(pa.array(rows))
            columns[f"run_{which}"] = self._run_names(rows)
        columns["similarity"] = pa.array(similarity.astype(np.float32), from_pandas=True)
        columns["expected_false"] = pa.array(expected, from_pandas=True)
        for name in ("correlation", "shift", "gain", "seconds"):
            values = np.array([np.nan if each is None else getattr(each, name) for each in aligned], dtype=np.float64)
            columns[name] = pa.array(values, from_pandas=True)
        columns["n_leads"] = pa.array([None if each is None else each.n_leads for each in aligned], pa.int64())
        columns["differs"] = self._differences(order, a, b)
        known = self.group_known[a] & self.group_known[b]
        same = self.groups[a] == self.groups[b]
        columns["same_group"] = pa.array(same, mask=~known)
        columns["cluster"] = pa.array(clusters[a], mask=(clusters[a] < 0) | (clusters[a] != clusters[b]))
        columns["reason"] = [each.reason for each in order]
        return pa.table({name: _typed(columns[name], PAIRS.field(name).type) for name in PAIRS.names}, schema=PAIRS)

    def _run_names(self, rows: Rows) -> pa.Array:
        if RUN_COLUMN not in self.splits:
            return pa.nulls(len(rows), pa.string())
        return self.selection.table[RUN_COLUMN].take(pa.array(rows)).combine_chunks()

    def _differences(self, pairs: Sequence[_Pair], a: Rows, b: Rows) -> list[str]:
        """In what the files and signals of each pair differ, in words."""
        names = ("format", "sampling_rate", "n_samples")
        columns = [[self.selection.table[name].take(pa.array(rows)).to_pylist() for rows in (a, b)] for name in names]
        texts = []
        for at, pair in enumerate(pairs):
            told = [
                f"{name} {_number(one[at])} and {_number(other[at])}"
                for name, (one, other) in zip(names, columns, strict=True)
                if one[at] != other[at]
            ]
            if pair.alignment is not None and pair.kind == SAME_SIGNAL:
                if abs(pair.alignment.shift) >= _A_SHIFT:
                    told.append(f"shift {pair.alignment.shift:.2f} s")
                if abs(np.log(pair.alignment.gain)) >= _A_GAIN:
                    told.append(f"gain {pair.alignment.gain:.3g}")
                if pair.alignment.lost:
                    told.append(f"leads in one only: {' '.join(pair.alignment.lost)}")
            texts.append("; ".join(told))
        return texts

    def _leakage(self, clusters: Rows) -> pa.Table:
        units = {"cluster": clusters}
        if self.settings.group is not None:
            units["same_group"] = np.where(self.group_known, self.groups, -1)
        pairs = {
            kind: [(each.a, each.b) for each in self.pairs if each.kind == kind] for kind in (SAME_PATIENT, CANDIDATE)
        }
        return leakage(self.splits, units, pairs)

    def _recordings(self, clusters: Rows, sizes: Rows) -> pa.Table:
        """A row for each recording of a run; of those that several rows name, the one that is kept, if it is."""
        table = self.selection.table
        keep = np.ones(self.n, bool)
        inside = np.flatnonzero(clusters >= 0)
        keep[inside] = False
        keep[inside[self._best_first(inside, clusters)]] = True
        in_pair = {kind: np.zeros(self.n, bool) for kind in (SAME_PATIENT, CANDIDATE)}
        for pair in self.pairs:
            if pair.kind in in_pair:
                in_pair[pair.kind][[pair.a, pair.b]] = True
        columns = {
            "record": table["record"],
            **({RUN_COLUMN: table[RUN_COLUMN]} if RUN_COLUMN in self.splits else {}),
            "cluster": pa.array(clusters, mask=clusters < 0),
            "n_in_cluster": pa.array(sizes),
            "keep": pa.array(keep),
            **{name: pa.array(mask) for name, mask in in_pair.items()},
        }
        found = pa.table(columns)
        names = [found[name].to_pylist() for name in (RUN_COLUMN, "record") if name in columns]
        row_of: dict[Any, int] = {}
        for row, key in enumerate(zip(*names, strict=True)):
            if key not in row_of or keep[row]:
                row_of[key] = row
        if len(row_of) == self.n:
            return found
        told = "{n} of the dataset that name a recording again: the table of recordings has it once"
        self.notes.append(Remark(told, self.n - len(row_of), "row"))
        return found.take(pa.array(sorted(row_of.values())))

    def _best_first(self, inside: Rows, clusters: Rows) -> Rows:
        """Places in `inside` of the recording of each cluster that is kept."""
        table = self.selection.table.select(["leads", "n_samples", "sampling_rate", "flags"]).take(pa.array(inside))
        n_leads, n_flags = (
            np.array([len(each or ()) for each in table[name].to_pylist()], dtype=np.int64)
            for name in ("leads", "flags")
        )
        rate = np.array([each or 0.0 for each in table["sampling_rate"].to_pylist()])
        samples = np.array([each or 0 for each in table["n_samples"].to_pylist()])
        seconds = np.round(np.divide(samples, rate, out=np.zeros(len(rate)), where=rate > 0), 1)
        order = np.lexsort((inside, n_flags, -rate, -seconds, -n_leads, clusters[inside]))
        first = np.r_[True, np.diff(clusters[inside][order]) != 0] if len(order) else np.empty(0, bool)
        return np.asarray(order[first])


def _typed(values: Any, kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind) if isinstance(values, list) else values.cast(kind)


def _number(value: Any) -> str:
    return str(value).removesuffix(".0")
