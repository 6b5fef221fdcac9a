"""Why recordings failed, in a closed list of words: a reason in the manifest may name a file.

In: the class and the reason of each failure. Out: `Values`, whose names are all from this module.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.analysis.reporting.facts import Values

_BY_CLASS = {
    "UnsupportedFormatError": "a variant of a format that is not read",
    "OutOfMemoryError": "needs more memory than there is",
    "EmbeddingError": "the network's output is not finite, or could not be computed",
    "OutputError": "the output could not be written",
    "PrepareError": "cannot be prepared for the network",
    "ReadError": "content that is missing, or contradicts itself",
}

_BY_WORDS = (
    (
        "the file, or one that belongs to it, is not there",
        r"no such (?:file|key|object)|not a directory|does not exist",
    ),
    ("access to the file was denied", r"denied|forbidden|not permitted"),
    ("the file is empty, or has no samples", r"\bis empty\b|no samples|waveforms are empty"),
    ("the format is not known", r"not a known ECG format"),
    ("the process that read it ended", r"\bdied\b|was killed|process .*ended"),
    ("reading took too long", r"within .* s\b|time ?out|took (?:more|longer)"),
    ("needs more memory than there is", r"more memory|not enough memory"),
    ("leads that are needed are missing, or without a signal", r"missing leads?\b|lead \S+ is not stored"),
    ("no lead has a signal", r"no lead has a signal|only lead has no signal|signal is constant"),
    ("too short", r"too short\b|shorter than one window"),
    ("too large", r"at most [\d,]+ (?:are|is) (?:read|expected)|more than [\d,]+ bytes|unpacks to"),
    ("damaged or truncated", r"damaged|truncated|checksum|ends early|well-formed|base64|corrupt|invalid LZW"),
    ("the sampling rate is missing, or not possible", r"sampling rate|sampling interval|samplerate|sample rate"),
    ("the unit or resolution is missing, or not possible", r"\bunits?\b|resolution|sensitivity|\bgain\b|scale"),
    ("no name for the output can be made", r"output name|output's name|\bidentifier\b|the output would lie"),
    ("it is not stated which signals are the leads", r"'leads' parameter|lead names?\b|named after a lead|lead labels"),
)
_RULES = tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in _BY_WORDS)

KINDS = frozenset((*(name for name, _ in _BY_WORDS), *_BY_CLASS.values()))
"""All that a report says of failures."""


def kind_of(error: str | None, reason: str | None) -> str:
    """The kind of a failure, one of `KINDS`.

    >>> kind_of("ReadError", "No such file or directory: /data/ward 7/miller.xml")
    'the file, or one that belongs to it, is not there'
    >>> kind_of("PrepareError", "missing leads V1: absent, or without a signal; the recording has I II")
    'leads that are needed are missing, or without a signal'
    """
    for name, pattern in _RULES:
        if pattern.search(reason or ""):
            return name
    return _BY_CLASS.get(error or "", _BY_CLASS["ReadError"])


def kinds_of(failures: pa.Table) -> Values:
    """The kind of each row of a table of failures."""
    both = pc.binary_join_element_wise(
        *(pc.fill_null(failures[name].cast(pa.string()), "") for name in ("error", "reason")), "\n"
    )
    encoded = pc.dictionary_encode(both.combine_chunks())
    kinds = [kind_of(*text.split("\n", 1)) for text in encoded.dictionary.to_pylist()]
    names, which = np.unique(np.array(kinds or [""], dtype=object).astype(str), return_inverse=True)
    codes = which[encoded.indices.to_numpy()] if kinds else np.zeros(0, dtype=np.int64)
    return Values("Reason", tuple(map(str, names)), codes.astype(np.int64))
