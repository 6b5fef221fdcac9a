"""No count of few patients is shown, and none can be computed from what is shown: an attacker tries all sums and differences."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
import pytest

from ecgfounder.analysis.reporting.cells import Cells, Partition
from ecgfounder.results.small_cells import FEWEST, OTHERS

NAMES = [f"v{number}" for number in range(6)]


def alone(n: int) -> Cells:
    """Recordings of different patients."""
    return Cells(np.arange(n))


def coded(*counts: int) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


def unions(partition: Partition) -> Iterator[np.ndarray]:
    """All sets of recordings whose number is a sum of a table's rows."""
    n = len(partition.names)
    for size in range(1, n):
        for chosen in combinations(range(n), size):
            yield np.isin(partition.codes, chosen)


def test_small_values_are_put_together_with_the_next_larger_ones() -> None:
    assert alone(153).by_name(("a", "b", "c"), coded(100, 50, 3)).counts == (100, 53)
    found = alone(118).by_name(("a", "b", "c", "d"), coded(90, 12, 9, 7))
    assert (found.names, found.counts) == (("a", "b", OTHERS), (90, 12, 16))
    assert [int((found.codes == each).sum()) for each in range(3)] == [90, 12, 16]
    assert not alone(19).by_name(("a", "b"), coded(10, 9))
    assert not alone(10).by_name(("a",), coded(10))
    assert alone(11).by_name(("a",), coded(11)).counts == (11,)


def test_many_values_are_listed_up_to_a_number() -> None:
    found = alone(600).by_name([str(number) for number in range(30)], np.repeat(np.arange(30), 20), most=5)
    assert found.counts == (20,) * 5 + (500,)
    assert found.names == ("0", "1", "10", "11", "12", OTHERS)


def test_neighbours_are_put_together_in_order() -> None:
    names = ("0 to 1", "1 to 2", "2 to 3", "3 to 4", "4 to 5")
    found = alone(76).by_order(names, coded(3, 9, 40, 4, 20))
    assert found.names == ("… to 2", "2 to 3", "3 to …")
    assert found.counts == (12, 40, 24)
    assert not alone(10).by_order(names, coded(10))


def test_the_extreme_value_of_few_patients_is_not_the_name_of_a_group() -> None:
    years = ("1931", "1970", "1971", "1972", "2004", "not stated")
    found = alone(161).by_order(years, coded(1, 50, 50, 50, 1, 9), "not stated")
    assert (found.names, found.counts) == (("under 1971", "1971", "over 1971 or not stated"), (51, 50, 60))
    found = alone(172).by_order(years, coded(1, 50, 50, 50, 1, 20), "not stated")
    assert found.names == ("under 1971", "1971", "1972", "over 1972 or not stated")
    assert not alone(21).by_order(("1931", "not stated"), coded(1, 20), "not stated")
    assert not alone(31).by_order(("1931", "1970"), coded(1, 30))
    assert alone(30).by_order(("1931", "1970"), coded(0, 30)).names == ("1970",)
    found = alone(51).by_order(("1931", "1970", "not stated"), coded(1, 30, 20), "not stated")
    assert found.names == ("any value", "not stated")


def test_the_unit_is_the_patient() -> None:
    patients = np.repeat(np.arange(40), 5)
    codes = np.r_[np.zeros(50), np.ones(150)].astype(np.int64)  # 10 patients with 50 recordings
    assert not Cells(patients).by_name(("a", "b"), codes)
    assert Cells(np.arange(200)).by_name(("a", "b"), codes).counts == (150, 50)
    assert Cells(patients).of(codes == 0) is None
    assert Cells(patients).of(np.arange(200) < 55) == 55


@pytest.mark.parametrize(("n", "shown"), [(1, None), (10, None), (11, 11), (89, 89), (90, None), (99, None)])
def test_a_share_is_not_shown_if_it_or_its_rest_is_small(n: int, shown: int | None) -> None:
    assert alone(100).of(np.arange(100) < n) == shown


def test_none_and_all_are_shown() -> None:
    cells = alone(50)
    assert cells.of(np.zeros(50, bool)) == 0
    assert cells.of(np.ones(50, bool)) == 50


def test_a_table_that_with_another_one_would_tell_a_small_number_is_coarser() -> None:
    formats = coded(100, 100)
    devices = np.r_[coded(60, 35), np.full(5, 3), np.full(100, 2)]  # 5 of the first format have no device of it
    cells = alone(200)
    assert cells.by_name(("philips", "muse"), formats).counts == (100, 100)
    found = cells.by_name(("tc70", "tc50", "mac", "unknown"), devices)
    assert found.counts == (100, 60, 40)
    assert found.names == ("mac", "tc70", OTHERS)


@pytest.mark.parametrize("n", [8, 14, 20])
@pytest.mark.parametrize("units_first", [False, True])
def test_all_but_one_row_of_a_table_with_many_rows_tells_no_small_number(n: int, units_first: bool) -> None:
    machines = np.repeat(np.arange(n), 24)
    units = np.where(np.arange(24 * n) % 24 < 5, n, machines)  # a few of each machine are in one further unit
    names = [f"v{number:02d}" for number in range(n + 1)]
    cells = alone(24 * n)
    tables = (units, machines) if units_first else (machines, units)
    shown = [cells.by_name(names[: codes.max() + 1], codes) for codes in tables]
    assert shown[0].counts[-1] >= 19
    assert told_by_rows(cells, *shown) == []


def test_tables_with_many_rows_tell_no_small_number_by_a_row_of_each() -> None:
    rng = np.random.default_rng(0)
    for _ in range(12):
        n = int(rng.integers(400, 2000))
        base, names = rng.integers(0, 16, n), [f"v{number:02d}" for number in range(17)]
        cells, shown = alone(n), []
        for _ in range(4):
            codes, changed = base.copy(), rng.random(n) < rng.choice([0.01, 0.03])
            codes[changed] = rng.integers(0, 17, int(changed.sum())) if rng.random() < 0.5 else 16
            shown.append(cells.by_name(names, codes))
        for one, other in combinations([each for each in shown if each], 2):
            assert told_by_rows(cells, one, other) == []


def told_by_rows(cells: Cells, one: Partition, other: Partition) -> list[int]:
    """The small numbers that two tables tell if all rows but at most one, or a single row, of each are added up."""
    found = []
    for ours in sums(one):
        for theirs in sums(other):
            more, less = ours & ~theirs, theirs & ~ours
            if more.any() != less.any() and cells.size(more | less) < FEWEST:
                found.append(cells.size(more | less))
    return found


def sums(partition: Partition) -> list[np.ndarray]:
    rows = [partition.codes == each for each in range(len(partition.names))]
    return [*rows, *(~row for row in rows)]


def test_two_flags_of_which_one_contains_the_other_need_a_large_difference() -> None:
    cells = alone(200)
    numbers = np.arange(200)
    assert cells.of(numbers < 50) == 50
    assert cells.of(numbers < 45) is None
    assert cells.of(numbers < 39) == 39
    assert cells.of(numbers >= 55) is None  # with the first flag, 5 have neither


def test_sets_that_exclude_each_other_do_not_tell_the_rest() -> None:
    statements = coded(600, 295, 100, 5)  # normal, abnormal, borderline, otherwise normal
    cells = alone(1000)
    assert [cells.of(statements == each) for each in range(4)] == [600, 295, None, None]
    cells = alone(1000)
    tables = [cells.by_name(("no", "yes"), (statements == each).astype(np.int64)) for each in range(4)]
    assert [sorted(each.counts) for each in tables] == [[400, 600], [295, 705], [], []]


def test_sets_that_exclude_each_other_do_not_tell_the_rest_of_a_set_that_is_shown() -> None:
    texts = coded(300, 200, 100, 4, 396)  # the last ones have no text
    cells = alone(1000)
    assert cells.of(texts < 4) == 604
    assert [cells.of(texts == each) for each in range(3)] == [300, 200, None]
    assert cells.of(texts == 1) == 200
    many = alone(1100)
    assert [many.of(coded(*[55] * 20) == each) for each in range(20)] == [55] * 20  # all of them leave none
    overlapping = alone(1000)
    assert [overlapping.of(np.arange(1000) % each == 0) for each in range(2, 9)] == [500, 334, 250, 200, 167, 143, 125]


def test_numbers_of_patients_that_tell_of_few_are_left_out() -> None:
    patients = np.r_[np.arange(100), np.arange(100)]
    sites = np.where(np.arange(200) % 100 < 60, 0, 1)
    cells = Cells(patients)
    assert cells.patients_by(cells.by_name(("a", "b"), sites)) == (60, 40)
    sites[100:103] = 1  # three patients are at both sites
    cells = Cells(patients)
    both = cells.by_name(("a", "b"), sites)
    assert both.counts == (117, 83)
    assert cells.patients_by(both) is None


def test_numbers_of_patients_of_two_tables_tell_no_small_number() -> None:
    patients = np.r_[np.repeat(np.arange(60), 2), np.arange(20, 40), np.arange(60, 65), np.arange(65, 185)]
    regions = np.r_[np.zeros(145), np.ones(120)].astype(np.int64)
    sites = np.r_[np.zeros(120), np.ones(25), np.full(120, 2)].astype(np.int64)  # the second one: five more patients
    cells = Cells(patients)
    assert cells.patients_by(cells.by_name(("R", "S"), regions)) == (65, 120)
    by_site = cells.by_name(("A", "B", "C"), sites)
    assert by_site.counts == (120, 120, 25)
    assert cells.patients_by(by_site) is None  # 60 of the 65 are at A
    halves = np.where(patients < 65, patients % 2, 2)
    assert cells.patients_by(cells.by_name(("odd", "even", "C"), halves)) == (120, 33, 32)


def test_an_attacker_who_knows_what_contains_what_computes_no_small_number() -> None:
    rng = np.random.default_rng(0)
    n_shown = 0
    for _ in range(30):
        n = int(rng.integers(30, 400))
        _, patients = np.unique(rng.integers(0, max(2, int(n * rng.choice([0.3, 1, 3]))), n), return_inverse=True)
        cells, shown = Cells(patients), []
        base = rng.integers(0, 6, n)
        for _ in range(5):
            codes = (base if rng.random() < 0.6 else rng.integers(0, 5, n)) // rng.integers(1, 3)
            changed = rng.random(n) < rng.choice([0, 0.01, 0.03, 0.2])
            codes[changed] = rng.integers(0, 5, int(changed.sum()))
            kind = rng.integers(3)
            if kind == 2:
                count = cells.of(codes == 1)
                found = Partition(("", ""), (count or 0, n - (count or 0)), 1 - (codes == 1).astype(np.int64))
                if count in (None, 0, n):
                    continue
            else:
                found = (cells.by_name if kind else cells.by_order)(NAMES, codes)
            if found:
                assert sum(found.counts) == n
                shown.append(found)
        n_shown += len(shown)
        for partition in shown:
            assert all(cells.size(each) >= FEWEST for each in unions(partition))
        for one, other in combinations(shown, 2):
            for ours in unions(one):
                for theirs in unions(other):
                    more, less = ours & ~theirs, theirs & ~ours
                    if more.any() != less.any():
                        assert cells.size(more | less) >= FEWEST
    assert n_shown > 100


def test_cells_of_a_large_cohort_keep_their_order() -> None:
    codes = np.random.default_rng(1).integers(0, 40, 20_000)
    found = alone(20_000).by_order([str(number) for number in range(40)], codes)
    assert len(found.names) == 40
    assert all(int(one) < int(other) for one, other in pairwise(found.names))
