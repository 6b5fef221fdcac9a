"""Counts of few recordings or patients, which may identify someone, put together with others.

In: counts by value. Out: counts without any below `FEWEST`, and without one that the others would tell; rounded counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

FEWEST = 11
"""The smallest number that is shown: of patients, or of recordings if the patients are not known."""

OTHERS = "other"

Value = TypeVar("Value")


def rounded_count(number: int | None) -> str:
    """A count beside others, exact or not, whose difference from it could be small.

    >>> rounded_count(7), rounded_count(23), rounded_count(1234), rounded_count(987_654), rounded_count(None)
    ('under 11', 'about 20', 'about 1,200', 'about 990,000', '')
    """
    if number is None:
        return ""
    if number == 0:
        return "0"
    if number < FEWEST:
        return f"under {FEWEST}"
    unit = max(10, 10 ** (len(str(number)) - 2))
    return f"about {round(number / unit) * unit:,}"


def rare_values(
    ordered: Sequence[Value], size_of: Callable[[Sequence[Value]], int], fewest: int = FEWEST
) -> list[Value]:
    """The values of which only the sum may be shown: all that are too few alone, and further ones if that is not enough.

    Parameters
    ----------
    ordered : sequence
        The values, the largest first.
    size_of : callable
        The number of patients (or recordings) that have one of some values.
    fewest : int, default: 11
        The smallest number that may be shown.

    Returns
    -------
    list
        None or at least two of the values, the smallest first. The next larger one joins them if they are fewer than `fewest`
        together, or if there is a single one, whose number the total would tell. If all values are not enough, it is all.
    """
    alone = [value for value in ordered if size_of([value]) >= fewest]
    enough = set(alone)
    rare = [value for value in reversed(ordered) if value not in enough]
    while rare and alone and (len(rare) == 1 or size_of(rare) < fewest):
        rare.append(alone.pop())
    return rare


def with_rare_together(counts: Mapping[str, int], fewest: int = FEWEST) -> list[tuple[str, int]]:
    """Counts by value, the largest first, without any below `fewest`.

    Rare values are counted together, with the next rarest ones if they are fewer than that together, or if there is a single one,
    whose number the total would tell.

    >>> with_rare_together({"wfdb": 400, "edf": 50, "dicom": 3})
    [('wfdb', 400), ('other', 53)]
    >>> with_rare_together({"wfdb": 400, "edf": 12, "dicom": 8, "scp": 7})
    [('wfdb', 400), ('other', 15), ('edf', 12)]
    >>> with_rare_together({"wfdb": 9})
    []
    """

    def size_of(values: Sequence[str]) -> int:
        return sum(counts[value] for value in values)

    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    rare = rare_values(ordered, size_of, fewest)
    if rare and size_of(rare) < fewest:
        return []
    shown = [(value, counts[value]) for value in ordered if value not in rare]
    return sorted([*shown, *([(OTHERS, size_of(rare))] if rare else [])], key=lambda each: -each[1])
