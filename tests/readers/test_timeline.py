"""Pieces of one recording on one time axis: each sample where it was recorded, NaN where none was."""

from __future__ import annotations

import numpy as np
import pytest

from ecgfounder.errors import ReadError
from ecgfounder.readers.timeline import Piece, in_words, join, standard_leads_in

COLUMNS = (("I", "II", "III"), ("aVR", "aVL", "aVF"), ("V1", "V2", "V3"), ("V4", "V5", "V6"))


def piece(
    *leads: str, start: float | None = None, n_samples: int = 1250, rate: float = 500.0, value: float = 1.0
) -> Piece:
    samples = np.full((len(leads), n_samples), value, dtype=np.float32)
    samples += np.arange(len(leads), dtype=np.float32)[:, None]
    return Piece(samples, rate, leads, start)


def recorded(joined: Piece) -> dict[str, tuple[int, int]]:
    """First sample and end of each lead's stretch."""
    places = {}
    for lead, samples in zip(joined.leads, joined.samples, strict=True):
        there = np.flatnonzero(~np.isnan(samples))
        assert len(there) == there[-1] - there[0] + 1, "a gap"
        places[lead] = (int(there[0]), int(there[-1]) + 1)
    return places


def test_a_page_of_columns_with_a_rhythm_strip_is_one_recording() -> None:
    page = [piece(*leads, start=7.0 + 2.5 * number, value=number) for number, leads in enumerate(COLUMNS)]
    strip = piece("II", start=7.0, n_samples=5000, value=9.0)
    joined = join([*page, strip])
    assert joined.samples.shape == (12, 5000)
    assert joined.samples.dtype == np.float32
    assert (joined.leads, joined.sampling_rate) == (tuple(lead for leads in COLUMNS for lead in leads), 500.0)
    places = recorded(joined)
    for number, leads in enumerate(COLUMNS):
        for row, lead in enumerate(leads):
            if lead != "II":
                assert places[lead] == (1250 * number, 1250 * (number + 1))
                assert np.nanmax(joined.samples[joined.leads.index(lead)]) == number + row
    # What the column holds of a lead comes first, and the strip fills what it leaves open.
    assert places["II"] == (0, 5000)
    second = joined.samples[joined.leads.index("II")]
    assert set(second[:1250]) == {1.0}
    assert set(second[1250:]) == {9.0}


def test_the_piece_with_most_standard_leads_is_taken_then_the_longest_then_the_first() -> None:
    most = piece("I", "II", "V1", n_samples=100)
    long = piece("I", "II", n_samples=900)
    assert join([long, most]) is most
    assert join([piece("I", "II", n_samples=899), long, piece("I", "V7", "V8", n_samples=5000)]) is long
    first = piece("I", "II", n_samples=900)
    assert join([first, long]) is first


def test_a_piece_that_adds_no_standard_lead_is_left_out() -> None:
    first, later = piece("I", "II", start=0.0), piece("I", "II", start=2.5)
    assert join([first, later]) is first
    other = piece("V7", start=0.0)
    assert join([first, other]) is first


def test_a_piece_of_another_rate_is_left_out() -> None:
    first, other = piece("I", "II", start=0.0), piece("V1", start=0.0, rate=250.0)
    assert join([first, other]) is first
    third = piece("V2", start=0.0)
    assert join([first, other, third]).leads == ("I", "II", "V2")


@pytest.mark.parametrize(("gap", "joined"), [(0.0, True), (0.99, True), (1.0, True), (1.01, False), (1e9, False)])
def test_pieces_may_lie_a_second_apart_and_no_more(gap: float, joined: bool) -> None:
    first, second = piece("I", "II", start=0.0), piece("V1", start=2.5 + gap)
    found = join([first, second])
    assert (found.leads == ("I", "II", "V1")) == joined
    if joined:
        assert recorded(found)["V1"] == (round((2.5 + gap) * 500), round((2.5 + gap) * 500) + 1250)
    else:
        assert found is first


def test_a_piece_that_begins_before_the_one_with_most_leads_begins_the_recording() -> None:
    found = join([piece("I", "II", start=10.0), piece("V1", start=8.0)])
    assert recorded(found) == {"I": (1000, 2250), "II": (1000, 2250), "V1": (0, 1250)}
    assert found.samples.shape == (3, 2250)


@pytest.mark.parametrize(("start", "first"), [(0.0009, 0), (0.0011, 1), (0.0029, 1), (0.0031, 2)])
def test_a_start_between_samples_is_put_on_the_nearest(start: float, first: int) -> None:
    assert recorded(join([piece("I", "II", start=0.0), piece("V1", start=start)]))["V1"][0] == first


def test_pieces_of_equal_length_without_times_are_of_the_same_time_and_others_cannot_be_joined() -> None:
    first, same, other = piece("I", "II"), piece("V1"), piece("V1", n_samples=1249)
    assert recorded(join([first, same])) == {"I": (0, 1250), "II": (0, 1250), "V1": (0, 1250)}
    assert join([first, other]) is first
    timed = piece("V1", n_samples=1249, start=0.0)
    assert join([first, timed]) is first  # where one does not say when, none does


def test_a_piece_that_names_a_lead_twice_is_not_put_together() -> None:
    first, twice = piece("I", "II", start=0.0), piece("V1", "V1", start=0.0)
    assert join([first, twice]) is first


def test_without_pieces_there_are_no_samples() -> None:
    with pytest.raises(ReadError, match="no samples"):
        join([])


def test_leads_are_counted_once_and_free_text_is_not_repeated() -> None:
    assert standard_leads_in(("I", "I", "V1", "V7", "Jane Doe")) == 2
    assert (in_words("V7"), in_words("Jane Doe")) == ("lead V7", "a channel that is not a known lead")
