"""The recordings that two runs have in common, and all in which the runs differ but the embeddings.

In: two opened runs, and the column by which their recordings are matched. Out: `Pairs`, tables of differences, mean embeddings.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.analysis.comparison.agreement import Mask
from ecgfounder.analysis.statistics.solver import Floats, Numbers
from ecgfounder.errors import RunError
from ecgfounder.escaping import counted
from ecgfounder.results import EmbeddingRun
from ecgfounder.results.several import NOT_DECIDING
from ecgfounder.results.store import storage_order

LONGEST_VALUE = 200
"""Characters of a setting's value that are shown."""

NOT_FACTS = (
    *(
        "row_index",
        "path_index",
        "record",
        "status",
        "output",
        "error",
        "reason",
        "flags",
        "input_bytes",
        "input_mtime",
    ),
    *("seconds_read", "seconds_prepare", "seconds_embed", "seconds_write"),
)
"""Columns of a manifest that say nothing about a recording, and the flags, which have a table of their own."""

BOTH, PENDING = "embedded in both", "not finished in a or b"
OUTCOMES = (
    BOTH,
    "only in a",
    "only in b",
    "failed in a only",
    "failed in b only",
    "failed in both",
    PENDING,
)
"""What may have become of a recording that either run names."""

_NUMBER = "__recording"


@dataclass(frozen=True)
class SettingDifference:
    """A setting, or a version of software, in which two runs differ.

    Attributes
    ----------
    setting : str
        The name, "fingerprint." in front of those that must agree for a run to be resumed.
    a, b : str
        The values.
    decides : bool
        Whether it decides a recording's vector, as checkpoint, recipe, precision and engine do.
    """

    setting: str
    a: str
    b: str
    decides: bool


def setting_differences(a: EmbeddingRun, b: EmbeddingRun) -> tuple[SettingDifference, ...]:
    """The settings in which two runs differ, those that decide a vector first."""
    told = [dict(_settings(run)) for run in (a, b)]
    found = [
        SettingDifference(name, _shown(told[0].get(name)), _shown(told[1].get(name)), _decides(name))
        for name in dict.fromkeys([*told[0], *told[1]])
        if told[0].get(name) != told[1].get(name)
    ]
    return tuple(sorted(found, key=lambda each: not each.decides))


def _settings(run: EmbeddingRun) -> Iterator[tuple[str, Any]]:
    record = run.record
    yield from _leaves(record.fingerprint, "fingerprint.")
    yield "checkpoint.name", record.checkpoint.name
    yield from _leaves(asdict(record.engine), "engine.")
    yield "program.version", record.program.version
    yield from _leaves(record.versions, "versions.")
    for name in ("dataset", "split", "data_dir", "path_column", "id_column"):
        yield f"cohort.{name}", getattr(record.settings, name)


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _decides(name: str) -> bool:
    kind, _, rest = name.partition(".")
    return kind == "fingerprint" and rest.partition(".")[0] not in NOT_DECIDING


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


@dataclass(frozen=True, eq=False)
class Pairs:
    """The recordings of two runs, matched.

    Attributes
    ----------
    a, b : EmbeddingRun
        The runs.
    table_a, table_b : pyarrow.Table
        The manifests' rows of the recordings that are embedded in both, row by row the same ones, in the order of a.
    others : pyarrow.Table
        All other recordings: key, outcome, and status, error and reason in either run.
    counts : dict of str to int
        The number of recordings by outcome (`OUTCOMES`), and of those without a key.
    """

    a: EmbeddingRun
    b: EmbeddingRun
    table_a: pa.Table
    table_b: pa.Table
    others: pa.Table
    counts: dict[str, int]

    def __len__(self) -> int:
        return int(self.table_a.num_rows)

    def flag_names(self) -> tuple[list[set[str]], list[set[str]]]:
        """The names of each recording's flags in a and in b."""
        a, b = (
            [{_name(flag) for flag in flags} for flags in self._flags(table)] for table in (self.table_a, self.table_b)
        )
        return a, b

    def _flags(self, table: pa.Table) -> list[list[str]]:
        return [flags or [] for flags in table["flags"].to_pylist()]

    def flag_table(self) -> pa.Table:
        """The number of recordings with each flag: in a, in b, in one only, and in both with another detail."""
        a, b = self._flags(self.table_a), self._flags(self.table_b)
        names = sorted({_name(flag) for flags in (*a, *b) for flag in flags})
        counts = {name: dict.fromkeys(("in_a", "in_b", "only_in_a", "only_in_b", "other_detail"), 0) for name in names}
        for one, other in zip(a, b, strict=True):
            by_name = [_by_name(flags) for flags in (one, other)]
            for name in by_name[0].keys() | by_name[1].keys():
                in_a, in_b = (name in each for each in by_name)
                count = counts[name]
                count["in_a"] += in_a
                count["in_b"] += in_b
                count["only_in_a"] += in_a and not in_b
                count["only_in_b"] += in_b and not in_a
                count["other_detail"] += in_a and in_b and by_name[0][name] != by_name[1][name]
        columns = {"flag": names} | {
            column: [counts[name][column] for name in names]
            for column in ("in_a", "in_b", "only_in_a", "only_in_b", "other_detail")
        }
        schema = pa.schema([("flag", pa.string()), *((name, pa.int64()) for name in list(columns)[1:])])
        return pa.table(columns, schema=schema)

    def facts_that_differ(self) -> dict[str, Mask]:
        """For each fact of the manifests in which any recording differs: whether each recording does.

        Facts are the columns that both manifests have: format, sampling rate, length, leads, SHA-256 of the file, form of the
        embedding, device settings, kept columns.
        """
        names = [
            name for name in self.table_a.column_names if name in self.table_b.column_names and name not in NOT_FACTS
        ]
        found = {name: _differ(self.table_a[name], self.table_b[name]) for name in names}
        return {name: mask for name, mask in found.items() if mask.any()}

    def changes(self, facts: Mapping[str, Mask]) -> list[str]:
        """What changed from a to b about each recording, apart from the embedding, in words."""
        texts: list[list[str]] = [[] for _ in range(len(self))]
        for at, (one, other) in enumerate(zip(self._flags(self.table_a), self._flags(self.table_b), strict=True)):
            if one != other:
                gone, new = sorted(set(one) - set(other)), sorted(set(other) - set(one))
                texts[at] += [*(f"-{flag}" for flag in gone), *(f"+{flag}" for flag in new)]
        for name, mask in facts.items():
            rows = np.flatnonzero(mask)
            if name in ("format", "sampling_rate", "n_samples"):
                values = (table[name].take(pa.array(rows)).to_pylist() for table in (self.table_a, self.table_b))
                for at, one, other in zip(rows.tolist(), *values, strict=True):
                    texts[at].append(f"{name} {_number(one)} -> {_number(other)}")
            else:
                for at in rows.tolist():
                    texts[at].append(name)
        return ["; ".join(each) for each in texts]

    def kinds(self, name: str) -> list[str]:
        """A fact of each recording; "A -> B" where the runs differ."""
        values = zip(*(map(_number, table[name].to_pylist()) for table in (self.table_a, self.table_b)), strict=True)
        return [one if one == other else f"{one} -> {other}" for one, other in values]


def numbered(values: Sequence[Hashable]) -> tuple[list[Any], Numbers]:
    """The different values, and the number of each value among them."""
    codes: dict[Hashable, int] = {}
    numbers = np.array([codes.setdefault(value, len(codes)) for value in values], dtype=np.int64)
    return list(codes), numbers


def _name(flag: str) -> str:
    return flag.partition(":")[0]


def _by_name(flags: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for flag in sorted(flags):
        found.setdefault(_name(flag), []).append(flag)
    return found


def _number(value: Any) -> str:
    return str(value).removesuffix(".0")


def _differ(one: pa.ChunkedArray, other: pa.ChunkedArray) -> Mask:
    """Where two columns differ; two nulls, and two NaN, are equal."""
    if one.type == other.type and not pa.types.is_nested(one.type) and not pa.types.is_null(one.type):
        different = pc.fill_null(pc.not_equal(one, other), False)
        if pa.types.is_floating(one.type):
            different = pc.and_not(different, pc.fill_null(pc.and_(pc.is_nan(one), pc.is_nan(other)), False))
        mask = pc.or_(different, pc.xor(pc.is_null(one), pc.is_null(other)))
        return np.asarray(mask.to_numpy())
    texts = ([None if each is None else str(each) for each in column.to_pylist()] for column in (one, other))
    return np.array([a != b for a, b in zip(*texts, strict=True)], dtype=bool)


def matched(a: EmbeddingRun, b: EmbeddingRun, on: str | None = None) -> Pairs:
    """Match the recordings of two runs.

    Parameters
    ----------
    a, b : EmbeddingRun
        The runs.
    on : str, optional
        A column that both have and that names each recording once, such as a kept column or `input_sha256`; None for the names
        of the records: identifiers, or paths relative to `data_dir`.

    Raises
    ------
    RunError
        If a run lacks the column, several recordings of a run have the same value, or no recording is embedded in both.
    """
    tables = [_one_row_each(run.manifest) for run in (a, b)]
    named = "record" if on is None else on
    keys = [_keys(table, run.key_column(named), named) for table, run in zip(tables, (a, b), strict=True)]
    without = sum(each.null_count for each in keys)
    for which, run_keys in zip("ab", keys, strict=True):
        values = pc.value_counts(run_keys.drop_null())
        often = pc.sum(pc.greater(values.field("counts"), 1)).as_py() or 0
        if often:
            raise RunError(
                f"{counted(often, 'value')} of {named!r} in run {which} belong to several recordings each, so that it is not "
                "known which to compare: give a column that names each recording once."
            )
    at = pc.index_in(keys[0], value_set=keys[1], skip_nulls=True).to_numpy(zero_copy_only=False)
    other = np.where(np.isnan(at), -1, at).astype(np.int64) if at.dtype.kind == "f" else at.astype(np.int64)
    status_a, status_b = (_codes(table["status"]) for table in tables)
    valid_a, valid_b = (np.asarray(each.is_valid().to_numpy(zero_copy_only=False)) for each in keys)
    here = np.flatnonzero(valid_a & (other >= 0))
    done = (status_a[here] == _DONE) & (status_b[other[here]] == _DONE)
    rows = here[done]
    counts = dict.fromkeys(OUTCOMES, 0) | {BOTH: len(rows)}
    rest = here[~done]
    only_a = np.flatnonzero(valid_a & (other < 0))
    only_b = np.setdiff1d(np.flatnonzero(valid_b), other[here])
    left = np.concatenate([rest, only_a, np.full(len(only_b), -1)])
    right = np.concatenate([other[rest], np.full(len(only_a), -1), only_b])
    outcomes = _outcomes(left, right, status_a, status_b)
    for number, name in enumerate(OUTCOMES):
        counts[name] += int((outcomes == number).sum())
    if without:
        counts[f"without a value of {named}"] = without
    if not len(rows):
        told = "; ".join(f"{name}: {number:,}" for name, number in counts.items() if number)
        hint = (
            ""
            if counts["only in a"] == 0
            else (
                " If the runs name the same recordings differently, match them by a column with the 'on' parameter, for example "
                "input_sha256."
            )
        )
        raise RunError(f"no recording is embedded in both runs ({told or 'both are empty'}).{hint}")
    return Pairs(
        a,
        b,
        tables[0].take(pa.array(rows)),
        tables[1].take(pa.array(other[rows])),
        _others(tables, keys, left, right, outcomes),
        counts,
    )


_DONE, _FAILED, _PENDING = 0, 1, 2


def _codes(status: pa.ChunkedArray) -> Numbers:
    codes = np.full(len(status), _PENDING)
    for value, code in (("done", _DONE), ("failed", _FAILED)):
        codes[pc.equal(status, value).to_numpy()] = code
    return codes


def _outcomes(left: Numbers, right: Numbers, status_a: Numbers, status_b: Numbers) -> Numbers:
    """The outcome, by its number in `OUTCOMES`, of recordings by their rows, -1 where a run does not name one."""
    if not len(left):
        return np.empty(0, np.int64)
    a = np.where(left < 0, -1, np.append(status_a, -1)[left])
    b = np.where(right < 0, -1, np.append(status_b, -1)[right])
    name = OUTCOMES.index
    choices = [
        (b == -1, "only in a"),
        (a == -1, "only in b"),
        ((a == _FAILED) & (b == _DONE), "failed in a only"),
        ((a == _DONE) & (b == _FAILED), "failed in b only"),
        ((a == _FAILED) & (b == _FAILED), "failed in both"),
    ]
    return np.select([mask for mask, _ in choices], [name(each) for _, each in choices], name(PENDING))


def _others(tables: list[pa.Table], keys: list[pa.Array], left: Numbers, right: Numbers, outcomes: Numbers) -> pa.Table:
    places = [pa.array(np.maximum(each, 0), mask=each < 0) for each in (left, right)]
    columns = {
        "key": pc.coalesce(keys[0].take(places[0]), keys[1].take(places[1])),
        "outcome": pa.array([OUTCOMES[each] for each in outcomes], pa.string()),
    }
    for name in ("status", "error", "reason"):
        for which, table, place in zip("ab", tables, places, strict=True):
            columns[f"{name}_{which}"] = table[name].take(place)
    return pa.table(columns)


def _one_row_each(manifest: pa.Table) -> pa.Table:
    """A manifest with the first row of each record."""
    rows = pa.table({"record": manifest["record"], "row": np.arange(manifest.num_rows)})
    first = rows.group_by("record", use_threads=False).aggregate([("row", "min")])["row_min"].to_numpy()
    return manifest if len(first) == manifest.num_rows else manifest.take(pa.array(np.sort(first)))


def _keys(table: pa.Table, column: str, named: str) -> pa.Array:
    keys = table[column].combine_chunks()
    if pa.types.is_nested(keys.type):
        raise RunError(f"the column {named!r} holds lists: recordings are matched by texts or whole numbers")
    if pa.types.is_floating(keys.type):
        try:
            keys = pc.if_else(pc.is_nan(keys), pa.scalar(None, keys.type), keys).cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise RunError(f"{named!r} holds numbers that are not whole; keys are text or whole numbers") from error
    return keys.cast(pa.string())


def mean_embeddings(run: EmbeddingRun, records: pa.Table) -> Floats:
    """The mean embedding of some records of a run, float32 [n, d]: over tokens, then over windows and leads.

    Each shard is read once.
    """
    order = np.array(storage_order(records["output"].to_pylist()), dtype=np.int64)
    numbered = records.append_column(_NUMBER, pa.array(np.arange(records.num_rows))).take(pa.array(order))
    X, meta = run.arrays_of(numbered, "mean")
    owner = meta[_NUMBER].to_numpy()
    if len(X) == records.num_rows:
        found = np.empty((len(owner), X.shape[-1]), np.float32)
        for rows, block in X.blocks():
            found[owner[rows]] = block
        return found
    sums = np.zeros((records.num_rows, X.shape[-1]))
    for rows, block in X.blocks():
        np.add.at(sums, owner[rows], block.astype(np.float64))
    return (sums / np.bincount(owner, minlength=len(sums))[:, None]).astype(np.float32)
