"""Compare two runs: their settings, records and flags, and how far the embeddings of the same recordings agree.

In: two opened runs, `CompareSettings`. Out: a `Comparison`: tables, and lines that sum them up.

The recording is the unit, the patient the group. Windows, leads and tokens are averaged first. docs/compare.md describes the
method.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from ecgfounder._version import __version__
from ecgfounder.analysis.comparison.agreement import (
    Exchange,
    Figure,
    Kernels,
    Mask,
    cka_figure,
    cosines,
    distances,
    exchanged_overlaps,
    mean_figures,
    means_within,
    nearest,
    overlaps,
    quantile_figure,
    spread,
)
from ecgfounder.analysis.comparison.pairs import (
    SettingDifference,
    matched,
    mean_embeddings,
    numbered,
    setting_differences,
)
from ecgfounder.analysis.pages.tables import check_results_folder, write_table
from ecgfounder.analysis.statistics.solver import Doubles, Floats, Numbers
from ecgfounder.checks import check_least
from ecgfounder.errors import RunError, SettingsError, StorageError
from ecgfounder.escaping import counted, one_line
from ecgfounder.results import EmbeddingRun
from ecgfounder.storage import Location
from ecgfounder.storage.writing import write_whole

MARKER = "comparison.json"
"""The file by which a folder is known as that of a comparison."""

LEAST = 20
"""Recordings (for the overlap of neighbours: in the sample) below which there are no figures of a part; groups below which a
reader is warned."""

LEAST_FOR_CKA = 50
"""Recordings in the sample below which there is no CKA."""

MOST_VALUES = 50
"""Formats, sampling rates and flags, of each the most frequent, that are looked at separately."""

SHARES = (0.01, 0.1, 1.0)
"""Moves beyond which recordings are counted."""

MEANS = ("cosine", "centred_cosine", "move", "changed", *(f"moved_{share:g}" for share in SHARES))
"""Statistics that are means over recordings, in this order."""

WITH_REFERENCE = 3
"""How many of them have a reference distribution: for the others it would say nothing."""

AGREEMENT = pa.schema(
    [
        *((name, pa.string()) for name in ("by", "value", "statistic")),
        *((name, pa.float64()) for name in ("estimate", "low", "high", "reference", "reference_low", "reference_high")),
        *((name, pa.int64()) for name in ("n_recordings", "n_groups")),
        ("note", pa.string()),
    ]
)

PAIRS_AT_ONCE = 1 << 15
"""Recordings whose embeddings of both runs are in memory."""

_ROWS_AT_ONCE = 1 << 12
_LINES = 12

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """The settings of a comparison.

    Attributes
    ----------
    on : str or None
        A column of both runs that names each recording once; None for the names of the records.
    group : str or None
        A kept column of the first run with the patient; None if each recording is its own group.
    k : int
        The number of nearest neighbours.
    sample : int
        The number of recordings for centring, reference distributions, CKA and neighbours. The memory grows with its square.
    permutations, n_draws : int
        Permutations of the groups for the reference distributions, and draws of groups for the intervals.
    seed : int
        Seed of everything that is random.
    """

    on: str | None = None
    group: str | None = None
    k: int = 10
    sample: int = 3000
    permutations: int = 99
    n_draws: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("k", 1), ("sample", 2), ("permutations", 0), ("n_draws", 2), ("seed", 0)):
            check_least(name, getattr(self, name), least)


@dataclass(frozen=True)
class Agreement:
    """A statistic of the agreement of all recordings, or of a part of them.

    Attributes
    ----------
    by, value : str
        What the part is chosen by ("all", "format", "sampling_rate", "flag"), and its value.
    statistic : str
        One of `MEANS`, "move_median", "move_95", "cka", "overlap".
    figure : Figure
        The statistic.
    note : str
        Why there is no figure.
    """

    by: str
    value: str
    statistic: str
    figure: Figure
    note: str = ""


@dataclass(frozen=True, eq=False)
class Comparison:
    """The result of a comparison; `print` it for its summary.

    Attributes
    ----------
    settings : CompareSettings
        The settings of the comparison.
    a, b : str
        The folders of the runs.
    differences : tuple of SettingDifference
        The settings and versions in which the runs differ.
    counts : dict of str to int
        The number of recordings that are embedded in both, in one only, failed in one only, and so on.
    records : pyarrow.Table
        A row for each recording that is not embedded in both: key, outcome, status, error and reason in either run.
    flags : pyarrow.Table
        A row for each flag: the number of recordings that have it in a, in b, in one only.
    facts : dict of str to int
        The number of recordings, of those in both, in which a fact of the manifests differs.
    agreement : tuple of Agreement
        All statistics.
    moves : pyarrow.Table
        A row for each recording in both, those that move most first: record, cosine, centred_cosine, move, equal, overlap (of the
        sample), and what else changed.
    n_sample : int
        The number of recordings of the sample.
    notes : tuple of str
        What a reader must know.
    seconds : float
        The time that it took.
    """

    settings: CompareSettings
    a: str
    b: str
    differences: tuple[SettingDifference, ...]
    counts: dict[str, int]
    records: pa.Table
    flags: pa.Table
    facts: dict[str, int]
    agreement: tuple[Agreement, ...]
    moves: pa.Table
    n_sample: int
    notes: tuple[str, ...]
    seconds: float

    def figure(self, statistic: str, by: str = "all", value: str = "") -> Figure:
        """One statistic; raises `KeyError` if it is not there."""
        for each in self.agreement:
            if (each.statistic, each.by, each.value) == (statistic, by, value):
                return each.figure
        raise KeyError(statistic, by, value)

    @property
    def agreement_table(self) -> pa.Table:
        """All statistics as a table."""
        rows = []
        for each in self.agreement:
            told = {name: None if number != number else number for name, number in asdict(each.figure).items()}
            told["estimate"] = told.pop("value")
            rows.append({"by": each.by, "value": each.value, "statistic": each.statistic, **told, "note": each.note})
        return pa.Table.from_pylist(rows, schema=AGREEMENT)

    @property
    def settings_table(self) -> pa.Table:
        """The settings that differ, as a table: setting, a, b, decides."""
        schema = pa.schema([("setting", pa.string()), ("a", pa.string()), ("b", pa.string()), ("decides", pa.bool_())])
        return pa.Table.from_pylist([asdict(each) for each in self.differences], schema=schema)

    @property
    def facts_table(self) -> pa.Table:
        """The facts that differ, as a table: fact, n_recordings."""
        columns = {"fact": list(self.facts), "n_recordings": list(self.facts.values())}
        return pa.table(columns, schema=pa.schema([("fact", pa.string()), ("n_recordings", pa.int64())]))

    def __str__(self) -> str:
        return "\n".join(one_line(line) for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"a: {self.a}"
        yield f"b: {self.b}"
        yield from self._setting_lines()
        yield "Recordings: " + "; ".join(f"{name} {number:,}" for name, number in self.counts.items() if number)
        rows = [row for row in self.flags.to_pylist() if row["only_in_a"] or row["only_in_b"] or row["other_detail"]]
        rows.sort(key=lambda row: -(row["only_in_a"] + row["only_in_b"]))
        for row in islice(rows, _LINES):
            yield (
                f"Flag {row['flag']}: in a {row['in_a']:,}, in b {row['in_b']:,}; only in a {row['only_in_a']:,}, only in b "
                f"{row['only_in_b']:,}; another detail {row['other_detail']:,}"
            )
        if len(rows) > _LINES:
            yield f"and {len(rows) - _LINES:,} flags more"
        for fact, number in self.facts.items():
            yield f"{fact} differs in {counted(number, 'recording')}"
        for each in self.agreement:
            if each.by == "all":
                yield f"{each.statistic}: {_told(each)}"
        for by, value in dict.fromkeys((each.by, each.value) for each in self.agreement if each.by != "all"):
            part = [each for each in self.agreement if (each.by, each.value) == (by, value)]
            shown = [each for each in part if each.statistic in ("cosine", "move", "cka", "overlap") and not each.note]
            if shown:
                yield f"{by} {value}: " + "; ".join(f"{each.statistic} {_interval(each.figure)}" for each in shown)
        for note in self.notes:
            yield f"Note: {note}"

    def _setting_lines(self) -> Iterator[str]:
        for decides, title in ((True, "Setting that decides a vector"), (False, "Other setting")):
            those = [each for each in self.differences if each.decides is decides]
            for each in those[:_LINES]:
                yield f"{title}, {each.setting}: {each.a} in a, {each.b} in b"
            if len(those) > _LINES:
                yield f"and {len(those) - _LINES:,} more"
        if not any(each.decides for each in self.differences):
            yield "No setting that decides a vector differs"


def _told(each: Agreement) -> str:
    if each.note:
        return each.note
    figure = each.figure
    text = f"{_interval(figure)}; {counted(figure.n_recordings, 'recording')}"
    if figure.reference == figure.reference:
        text += (
            f"; with recordings of other groups instead {_rounded(figure.reference)} "
            f"({_rounded(figure.reference_low)} to {_rounded(figure.reference_high)})"
        )
    return text


def _interval(figure: Figure) -> str:
    if figure.low != figure.low:
        return _rounded(figure.value)
    return f"{_rounded(figure.value)} ({_rounded(figure.low)} to {_rounded(figure.high)})"


def _rounded(value: float) -> str:
    return "none" if value != value else f"{value:.4f}"


def compare(
    a: EmbeddingRun,
    b: EmbeddingRun,
    *,
    settings: CompareSettings | None = None,
    say: Say | None = None,
    **options: Any,
) -> Comparison:
    """Compare two runs: settings, records, flags, and the embeddings of the recordings that both have.

    Parameters
    ----------
    a, b : EmbeddingRun
        The runs, as `open_run` gives them; they may differ in format, pooling, windows and leads.
    settings : CompareSettings, optional
        The settings; None makes them of `options`.
    say : callable, optional
        Called with lines on the progress.
    **options : Any
        Attributes of `CompareSettings`.

    Returns
    -------
    Comparison
        Tables, and a summary.

    Raises
    ------
    SettingsError
        If a value is not valid, or a run has no such column.
    RunError
        If no recording is embedded in both runs, names are ambiguous, or the embeddings differ in length.

    Examples
    --------
    >>> comparison = compare(open_run(folder), open_run(other))
    >>> comparison.counts["embedded in both"]
    4
    """
    if settings is not None and options:
        raise SettingsError("give settings or options, not both")
    for run in (a, b):
        if not isinstance(run, EmbeddingRun):
            raise SettingsError(f"expected two opened runs, got a {type(run).__name__}: open each by itself")
    return _Compare(a, b, settings or CompareSettings(**options), say or (lambda line: None)).execute()


@dataclass(frozen=True, eq=False)
class _Part:
    """Some of the recordings: those with a value."""

    by: str
    value: str
    mask: Mask


class _Compare:
    def __init__(self, a: EmbeddingRun, b: EmbeddingRun, settings: CompareSettings, say: Say) -> None:
        self.a, self.b, self.settings, self.say = a, b, settings, say
        self.started = time.monotonic()
        self.notes: list[str] = []
        self.pairs = matched(a, b, settings.on)
        self.groups = self._groups()

    def execute(self) -> Comparison:
        pairs, settings = self.pairs, self.settings
        facts = pairs.facts_that_differ()
        rows = sample_of_groups(self.groups, settings.sample, settings.seed)
        self.say(f"{counted(len(pairs), 'recording')} in both runs; a sample of {len(rows):,} is read first")
        if len(np.unique(self.groups)) < LEAST:
            self.notes.append(f"fewer than {LEAST} groups: intervals may be too narrow")
        sample = self._sample(rows)
        values, equal = self._values(sample)
        agreement = [each for part in self._parts() for each in self._agreement(part, values, equal, sample)]
        if lost := int((~np.isfinite(values[:, 0])).sum()):
            self.notes.append(f"{counted(lost, 'recording')} without a cosine: an embedding is zero or not finite")
        return Comparison(
            settings,
            str(self.a.folder),
            str(self.b.folder),
            setting_differences(self.a, self.b),
            pairs.counts,
            pairs.others,
            pairs.flag_table(),
            {name: int(mask.sum()) for name, mask in facts.items()},
            tuple(agreement),
            self._moves(values, equal, sample, pairs.changes(facts)),
            len(sample.rows),
            tuple(self.notes),
            time.monotonic() - self.started,
        )

    def _groups(self) -> Numbers:
        """The number of each pair's group; a recording without a value is its own."""
        name = self.settings.group
        n = len(self.pairs)
        if name is None:
            self.notes.append(
                "without a group, recordings of one patient count as independent: intervals may be too narrow"
            )
            return np.arange(n)
        try:
            column = self.pairs.table_a[self.a.key_column(name)]
        except RunError as error:
            raise SettingsError(f"Invalid value for the 'group' parameter: {error}") from error
        texts = [None if value is None else str(value) for value in column.to_pylist()]
        known = np.array([text not in (None, "", "nan") for text in texts], dtype=bool)
        groups = np.arange(n)
        groups[known] = n + numbered(texts)[1][known]
        if not known.all():
            self.notes.append(
                f"{counted(int((~known).sum()), 'recording')} without a {name}: each counts as a group of its own"
            )
        return groups

    def _sample(self, rows: Numbers) -> _Sample:
        A, B = self._read(rows)
        finite = np.isfinite(A).all(axis=1) & np.isfinite(B).all(axis=1)
        return _Sample(rows[finite], A[finite], B[finite], self.groups[rows[finite]], self.settings)

    def _read(self, rows: Numbers) -> tuple[Floats, Floats]:
        """The mean embeddings of some pairs in both runs."""
        places = pa.array(rows)
        A = mean_embeddings(self.a, self.pairs.table_a.take(places))
        B = mean_embeddings(self.b, self.pairs.table_b.take(places))
        if A.shape != B.shape:
            raise RunError(
                f"the embeddings have {A.shape[1]:,} numbers in a and {B.shape[1]:,} in b: they are of different networks"
            )
        return A, B

    def _values(self, sample: _Sample) -> tuple[Doubles, Mask]:
        """cosine, centred cosine and move of each pair, float64 [n, 3], and whether its embeddings are equal."""
        n = len(self.pairs)
        values, equal = np.full((n, 3), np.nan), np.zeros(n, bool)
        if len(sample.rows) == n:
            values[sample.rows], equal[sample.rows] = sample.values(sample.A, sample.B)
            return values, equal
        for first in range(0, n, PAIRS_AT_ONCE):
            rows = np.arange(first, min(first + PAIRS_AT_ONCE, n))
            A, B = self._read(rows)
            for part in np.split(np.arange(len(rows)), range(_ROWS_AT_ONCE, len(rows), _ROWS_AT_ONCE)):
                values[rows[part]], equal[rows[part]] = sample.values(A[part], B[part])
            self.say(f"{rows[-1] + 1:,} of {n:,} recordings compared")
        return values, equal

    def _parts(self) -> Iterator[_Part]:
        """All recordings, and those of each format, sampling rate and flag."""
        n = len(self.pairs)
        yield _Part("all", "", np.ones(n, bool))
        for by in ("format", "sampling_rate"):
            values, numbers = numbered(self.pairs.kinds(by))
            if len(values) > 1:
                counts = dict(enumerate(np.bincount(numbers).tolist()))
                yield from (_Part(by, values[number], numbers == number) for number in self._most(by, counts))
        flags = [one | other or {"(none)"} for one, other in zip(*self.pairs.flag_names(), strict=True)]
        named = Counter(name for each in flags for name in each)
        if set(named) != {"(none)"}:
            for name in self._most("flag", named):
                yield _Part("flag", name, np.array([name in each for each in flags]))

    def _most(self, by: str, counts: Mapping[Any, int]) -> list[Any]:
        """The most frequent values."""
        if len(counts) > MOST_VALUES:
            self.notes.append(
                f"{by}: the {MOST_VALUES} most frequent of {len(counts):,} values are looked at separately"
            )
        return sorted(counts, key=lambda value: -counts[value])[:MOST_VALUES]

    def _agreement(self, part: _Part, values: Doubles, equal: Mask, sample: _Sample) -> Iterator[Agreement]:
        """The statistics of a part."""
        n = int(part.mask.sum())
        if part.by != "all" and n < LEAST:
            nothing = Figure(np.nan, n_recordings=n, n_groups=len(np.unique(self.groups[part.mask])))
            yield Agreement(part.by, part.value, "none", nothing, f"fewer than {LEAST} recordings")
            return
        draws, seed = self.settings.n_draws, self.settings.seed
        groups, those = self.groups[part.mask], values[part.mask]
        changed = np.where(np.isfinite(those[:, 2]), ~equal[part.mask], np.nan)
        moved = [np.where(np.isfinite(those[:, 2]), those[:, 2] > share, np.nan) for share in SHARES]
        figures = mean_figures(np.column_stack([those, changed, *moved]), groups, draws, seed)
        inside = part.mask[sample.rows]
        for number, (name, figure) in enumerate(zip(MEANS, figures, strict=True)):
            if number < WITH_REFERENCE:
                figure = figure.against(means_within(sample.permuted[number], inside))
            yield Agreement(part.by, part.value, name, figure)
        for name, share in (("move_median", 0.5), ("move_95", 0.95)):
            yield Agreement(part.by, part.value, name, quantile_figure(those[:, 2], share, groups, draws, seed))
        yield self._cka(part, sample, np.flatnonzero(inside))
        yield self._overlap(part, sample, inside)

    def _cka(self, part: _Part, sample: _Sample, rows: Numbers) -> Agreement:
        groups = sample.groups[rows]
        if len(rows) < LEAST_FOR_CKA:
            return _absent(part, "cka", groups, f"fewer than {LEAST_FOR_CKA} recordings in the sample")
        kernels = sample.kernels.part(rows)
        figure = cka_figure(kernels, groups, self.settings.n_draws, self.settings.seed)
        exchange = Exchange(groups)
        permuted = kernels.permuted(exchange, exchange.partners(self.settings.permutations, self.settings.seed))
        return Agreement(part.by, part.value, "cka", figure.against(permuted))

    def _overlap(self, part: _Part, sample: _Sample, inside: Mask) -> Agreement:
        groups = sample.groups[inside]
        if sample.overlap is None:
            least = f"fewer than {2 * self.settings.k} recordings of other groups in the sample, for {self.settings.k} neighbours"
            return _absent(part, "overlap", groups, least)
        if len(groups) < LEAST:
            return _absent(part, "overlap", groups, f"fewer than {LEAST} recordings in the sample")
        (figure,) = mean_figures(sample.overlap[inside, None], groups, self.settings.n_draws, self.settings.seed)
        return Agreement(part.by, part.value, "overlap", figure.against(means_within(sample.permuted[-1], inside)))

    def _moves(self, values: Doubles, equal: Mask, sample: _Sample, changes: Sequence[str]) -> pa.Table:
        order = np.argsort(-values[:, 2], kind="stable")
        pairs = self.pairs
        columns: dict[str, Any] = {"record": pairs.table_a["record"].take(pa.array(order))}
        if self.settings.on is not None:
            columns["record_b"] = pairs.table_b["record"].take(pa.array(order))
        for number, name in enumerate(MEANS[:WITH_REFERENCE]):
            columns[name] = pa.array(values[order, number], from_pandas=True)
        overlap = np.full(len(pairs), np.nan)
        if sample.overlap is not None:
            overlap[sample.rows] = sample.overlap
        columns["equal"] = pa.array(equal[order])
        columns["overlap"] = pa.array(overlap[order], from_pandas=True)
        columns["changes"] = pa.array([changes[row] for row in order], pa.string())
        return pa.table(columns)


def _absent(part: _Part, statistic: str, groups: Numbers, note: str) -> Agreement:
    nothing = Figure(np.nan, n_recordings=len(groups), n_groups=len(np.unique(groups)))
    return Agreement(part.by, part.value, statistic, nothing, note)


class _Sample:
    """The recordings for what needs all pairs of recordings.

    Attributes
    ----------
    rows : numpy.ndarray
        int64 [n]: their numbers among the pairs.
    A, B, groups : numpy.ndarray
        Their embeddings in both runs, float32 [n, d], and groups.
    kernels : Kernels
        For the CKA.
    overlap : numpy.ndarray or None
        float64 [n], of each one's neighbours; None where there are too few recordings.
    permuted : list of numpy.ndarray
        float64 [permutations, n] of cosine, centred cosine, move, and overlap, with recordings of other groups in b; NaN for
        groups that cannot be exchanged.
    """

    def __init__(self, rows: Numbers, A: Floats, B: Floats, groups: Numbers, settings: CompareSettings) -> None:
        self.rows, self.A, self.B, self.groups = rows, A, B, groups
        self._centres = [_centre(each) for each in (A, B)]
        self._scale = spread(A)
        self.kernels = Kernels.of(A, B)
        exchange = Exchange(groups)
        partners = list(exchange.partners(settings.permutations, settings.seed))
        self.permuted = [*self._exchanged(partners)]
        self.overlap: Doubles | None = None
        largest = int(np.unique(groups, return_counts=True)[1].max(initial=0))
        if len(rows) - largest >= 2 * settings.k:
            near = [nearest(each, groups, settings.k) for each in (A, B)]
            self.overlap = overlaps(near[0], near[1])
            exchanged = [exchanged_overlaps(near[0], near[1], partner) for partner in partners]
            self.permuted.append(np.array(exchanged).reshape(len(partners), len(rows)))

    def values(self, A: Floats, B: Floats) -> tuple[Doubles, Mask]:
        """cosine, centred cosine and move of the rows of A and B, float64 [m, 3], and whether they are equal."""
        centred = [each - centre for each, centre in zip((A, B), self._centres, strict=True)]
        move = distances(A, B)
        equal = np.asarray((A == B).all(axis=1))
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.column_stack([cosines(A, B), cosines(*centred), move / self._scale])
        values[~np.isfinite(move)] = np.nan
        return values, equal

    def _exchanged(self, partners: Sequence[Numbers]) -> Iterator[Doubles]:
        """cosine, centred cosine and move of each recording and its partners."""
        moves = np.full((len(partners), len(self.rows)), np.nan)
        for number, pair in enumerate(((self.A, self.B), self._centred())):
            A, B = (each.astype(np.float64) for each in pair)
            aa, bb, ab = (A * A).sum(axis=1), (B * B).sum(axis=1), A @ B.T
            found = np.full_like(moves, np.nan)
            for which, partner in enumerate(partners):
                rows = np.flatnonzero(partner >= 0)
                products, other = ab[rows, partner[rows]], bb[partner[rows]]
                with np.errstate(divide="ignore", invalid="ignore"):
                    found[which, rows] = products / np.sqrt(aa[rows] * other)
                    if number == 0:
                        moves[which, rows] = np.sqrt(np.maximum(aa[rows] + other - 2 * products, 0)) / self._scale
            yield found
        yield moves

    def _centred(self) -> tuple[Floats, Floats]:
        return self.A - self._centres[0], self.B - self._centres[1]


def _centre(X: Floats) -> Floats:
    return (
        np.asarray(X.mean(axis=0, dtype=np.float64).astype(np.float32)) if len(X) else np.zeros(X.shape[1], np.float32)
    )


def sample_of_groups(groups: Numbers, number: int, seed: int) -> Numbers:
    """So many recordings of whole groups, in random order of groups, as sorted row numbers; the last group may be cut off."""
    if len(groups) <= number:
        return np.arange(len(groups))
    _, numbers = np.unique(groups, return_inverse=True)
    rank = np.random.default_rng([seed, 0]).permutation(int(numbers.max()) + 1)[numbers]
    return np.sort(np.argsort(rank, kind="stable")[:number])


# --- files -------------------------------------------------------------------------------------------------------------


def write_comparison(comparison: Comparison, folder: Location) -> None:
    """Write all tables of a comparison, as Parquet and CSV, and `comparison.json`, which says what was compared.

    Raises
    ------
    RunError
        If the folder cannot be written, or holds other things.
    """
    check_results_folder(folder, MARKER)
    about = {
        "program": {"name": "ecgfounder", "version": __version__},
        "a": comparison.a,
        "b": comparison.b,
        "settings": asdict(comparison.settings),
        "counts": comparison.counts,
        "n_sample": comparison.n_sample,
        "notes": comparison.notes,
        "seconds": round(comparison.seconds, 1),
    }
    tables = {
        "settings": comparison.settings_table,
        "records": comparison.records,
        "flags": comparison.flags,
        "facts": comparison.facts_table,
        "agreement": comparison.agreement_table,
        "moves": comparison.moves,
    }
    try:
        if folder.is_local:
            folder.path.mkdir(parents=True, exist_ok=True)
        write_whole(folder / MARKER, orjson.dumps(about, option=orjson.OPT_INDENT_2))
        for name, table in tables.items():
            write_table(table, folder, name)
    except (OSError, StorageError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise RunError(f"{folder} could not be written: {reason}") from error
