"""Leads that were recorded in several pieces, put on one time axis.

In: the pieces of one recording (sequence sets of HL7 aECG, multiplex groups of DICOM), each with its leads and start.
Out: one array; where a lead was not recorded its samples are NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecgfounder.ecg.leads import KNOWN_LEADS, STANDARD_LEADS
from ecgfounder.ecg.recording import Samples
from ecgfounder.errors import ReadError

_SLACK_SECONDS = 1.0  # how far apart two pieces of one page may lie


@dataclass(frozen=True, eq=False)
class Piece:
    """Leads recorded at the same time.

    Attributes
    ----------
    samples : numpy.ndarray
        float32 array [n_leads, n_samples], in millivolt.
    sampling_rate : float
        In Hz.
    leads : tuple of str
        One canonical name for each row.
    start : float or None
        In seconds, from a moment that the pieces share; None where the file does not say.
    """

    samples: Samples
    sampling_rate: float
    leads: tuple[str, ...]
    start: float | None = None


def standard_leads_in(leads: Sequence[str]) -> int:
    """How many different ones of the twelve standard leads are among `leads`."""
    return len(set(leads).intersection(STANDARD_LEADS))


def in_words(lead: str) -> str:
    """A lead as an error names it; a name that is not known is free text of the file, and stays there."""
    return f"lead {lead}" if lead in KNOWN_LEADS else "a channel that is no known lead"


def join(pieces: Sequence[Piece]) -> Piece:
    """The piece with the most standard leads, completed by the others where they add leads.

    Of several with equally many, the longest is taken, then the first. A page of 3 x 4 leads is four pieces of 2.5 s
    that follow each other, often with a fifth for the rhythm strip: they become one recording of 10 s in which each
    lead is NaN where it was not recorded. Pieces that add no standard lead (a later stretch of the same leads) are left
    out, as are pieces of another rate and those that lie far apart.

    Raises
    ------
    ReadError
        If there are no pieces.
    """
    if not pieces:
        raise ReadError("the file holds no samples")
    best = max(pieces, key=lambda piece: (standard_leads_in(piece.leads), piece.samples.shape[1]))
    same_rate = [piece for piece in pieces if piece.sampling_rate == best.sampling_rate]
    every_lead = [lead for piece in same_rate for lead in piece.leads]
    if standard_leads_in(every_lead) == standard_leads_in(best.leads):
        return best
    starts = _first_samples(same_rate)
    if starts is None or any(len(set(piece.leads)) < len(piece.leads) for piece in same_rate):
        return best
    names = tuple(dict.fromkeys(every_lead))
    n_samples = max(first + piece.samples.shape[1] for first, piece in zip(starts, same_rate, strict=True))
    joined = np.full((len(names), n_samples), np.nan, dtype=np.float32)
    for first, piece in zip(starts, same_rate, strict=True):
        for lead, samples in zip(piece.leads, piece.samples, strict=True):
            stretch = joined[names.index(lead), first : first + len(samples)]
            np.copyto(stretch, samples, where=np.isnan(stretch))
    return Piece(joined, best.sampling_rate, names, best.start)


def _first_samples(pieces: Sequence[Piece]) -> list[int] | None:
    """The row position of each piece's first sample; None where the pieces cannot be put on one axis."""
    lengths = [piece.samples.shape[1] for piece in pieces]
    starts = [piece.start for piece in pieces if piece.start is not None]
    if len(starts) < len(pieces):
        # Nothing is said of time: equally long pieces can only be meant to be simultaneous.
        return [0] * len(pieces) if len(set(lengths)) == 1 else None
    rate = pieces[0].sampling_rate
    earliest = min(starts)
    span = max(start - earliest + length / rate for start, length in zip(starts, lengths, strict=True))
    if span > sum(lengths) / rate + _SLACK_SECONDS:
        return None
    return [round((start - earliest) * rate) for start in starts]
