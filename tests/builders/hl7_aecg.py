"""HL7 aECG documents, element by element."""

from __future__ import annotations

import numpy as np

ABSOLUTE = ("TIME_ABSOLUTE", "20021122091000.000")


def counts_of(leads: tuple[str, ...], n_samples: int = 50, seed: int = 0) -> dict[str, list[int]]:
    rng = np.random.default_rng(seed)
    return {lead: rng.integers(-2000, 2000, n_samples).tolist() for lead in leads}


def sequence(code: str, value: str) -> str:
    return f'<component><sequence><code code="{code}"/>{value}</sequence></component>'


def time_sequence(
    increment: str = "0.002", unit: str = "s", kind: tuple[str, str] = ABSOLUTE, head_unit: str = ""
) -> str:
    head = f'<head value="{kind[1]}"' + (f' unit="{head_unit}"' if head_unit else "") + "/>"
    return sequence(kind[0], f'<value xsi:type="GLIST_TS">{head}<increment value="{increment}" unit="{unit}"/></value>')


def lead_sequence(
    lead: str, values: list[int], scale: str = "5", unit: str = "uV", origin: str = '<origin value="0" unit="uV"/>'
) -> str:
    return sequence(
        f"MDC_ECG_LEAD_{lead.upper()}",
        f'<value xsi:type="SLIST_PQ">{origin}<scale value="{scale}" unit="{unit}"/>'
        f"<digits>\n   {'  '.join(map(str, values))}\n</digits></value>",
    )


def sequence_set(leads: dict[str, list[int]], time: str | None = None, **scale: str) -> str:
    inner = (time_sequence() if time is None else time) + "".join(
        lead_sequence(lead, values, **scale) for lead, values in leads.items()
    )
    return f"<component><sequenceSet>{inner}</sequenceSet></component>"


def series(*sets: str, code: str = "RHYTHM", derivation: str = "") -> str:
    author = (
        "<author><seriesAuthor><manufacturedSeriesDevice><manufacturerModelName>Model</manufacturerModelName>"
        "<softwareName>1.2</softwareName></manufacturedSeriesDevice></seriesAuthor></author>"
    )
    low_pass = (
        '<controlVariable><controlVariable><code code="MDC_ECG_CTL_VBL_ATTR_FILTER_LOW_PASS"/><component>'
        '<controlVariable><code code="MDC_ECG_CTL_VBL_ATTR_FILTER_CUTOFF_FREQ"/><value value="150" unit="Hz"/>'
        "</controlVariable></component></controlVariable></controlVariable>"
    )
    return f'<component><series><code code="{code}"/>{author}{low_pass}{"".join(sets)}{derivation}</series></component>'


def document(*parts: str, namespace: str = 'xmlns="urn:hl7-org:v3"') -> bytes:
    return (
        f'<?xml version="1.0" encoding="utf-8"?><AnnotatedECG {namespace} '
        f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">{"".join(parts)}</AnnotatedECG>'
    ).encode()
