"""Leads that were recorded in several pieces, on one time axis.

In: the pieces of one recording (sequence sets of HL7 aECG, multiplex groups of DICOM), each with its leads and start.
Out: one array, with NaN where a lead was not recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecgfounder.ecg.leads import KNOWN_LEADS, STANDARD_LEADS
from ecgfounder.ecg.recording import Samples
from ecgfounder.errors import ReadError

_SLACK_SECONDS = 1.0  # maximum total time between the pieces of one recording


@dataclass(frozen=True, eq=False)
class Piece:
    """Leads recorded at the same time.

    Attributes
    ----------
    samples : numpy.ndarray
        float32 array [n_leads, n_samples], in millivolts.
    sampling_rate : float
        In Hz.
    leads : tuple of str
        One canonical name for each row.
    start : float or None
        In seconds, from an origin that the pieces share; None if the file does not state it.
    """

    samples: Samples
    sampling_rate: float
    leads: tuple[str, ...]
    start: float | None = None


def standard_leads_in(leads: Sequence[str]) -> int:
    """The number of different standard leads among `leads`."""
    return len(set(leads).intersection(STANDARD_LEADS))


def in_words(lead: str) -> str:
    """A lead's name for an error message; an unknown name is free text of the file and is not shown."""
    return f"lead {lead}" if lead in KNOWN_LEADS else "a channel that is not a known lead"


def join(pieces: Sequence[Piece]) -> Piece:
    """The piece with the most standard leads, with the leads that the other pieces add.

    Among pieces with the same number of standard leads, the longest is taken, then the first. A page of 3 x 4 leads consists of
    four consecutive pieces of 2.5 s, often with a fifth for the rhythm strip: they become one recording of 10 s, in which each
    lead is NaN where it was not recorded. Pieces of another sampling rate are left out. The piece is returned alone if the others
    add no standard lead (a later part of the same leads) or are too far apart in time.

    Raises
    ------
    ReadError
        If there are no pieces.
    """
    if not pieces:
        raise ReadError("the file has no samples")
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
    """The position of each piece's first sample on the common axis; None if there is no common axis."""
    lengths = [piece.samples.shape[1] for piece in pieces]
    starts = [piece.start for piece in pieces if piece.start is not None]
    if len(starts) < len(pieces):
        # Without times, pieces of equal length are taken as simultaneous.
        return [0] * len(pieces) if len(set(lengths)) == 1 else None
    rate = pieces[0].sampling_rate
    earliest = min(starts)
    span = max(start - earliest + length / rate for start, length in zip(starts, lengths, strict=True))
    if span > sum(lengths) / rate + _SLACK_SECONDS:
        return None
    return [round((start - earliest) * rate) for start in starts]
