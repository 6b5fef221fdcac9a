"""Schiller SEMA XML, written as its exports are, with whatever a test wants to be wrong in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ecgfounder.ecg.leads import STANDARD_LEADS

ROOT = "com.xiriuz.sema.xml.schillerEDI.SchillerEDI"
QT = {"QRS_ON": "261", "T_OFF": "490", "QT": "458"}  # 229 samples take 458 ms: 500 Hz


def counts_of(leads: tuple[str, ...] = STANDARD_LEADS, n_samples: int = 50, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {lead: rng.integers(-2000, 2000, n_samples) for lead in leads}


def channel(lead: str, counts: np.ndarray, **changes: Any) -> str:
    fields: dict[str, Any] = {
        "name": lead.upper(),
        "data": ",".join(map(str, counts.tolist())),
        "datastype": "COMMASEPARATE",
        "samplecount": len(counts),
    } | changes
    inner = "".join(f"<{tag}>{value}</{tag}>\n" for tag, value in fields.items() if value is not None)
    return f"<channel><annotation_lead><name>R_AMPL</name><value>0.77</value></annotation_lead>{inner}</channel>"


def wave(
    counts: dict[str, np.ndarray],
    kind: str = "ECG_RHYTHMS",
    *,
    rate: Any = 500,
    exponent: Any = 1,
    per_bit: Any = "2.5",
    units: str = "UV",
    **changes: Any,
) -> str:
    power = "" if exponent is None else f"<exponent>{exponent}</exponent>"
    return (
        f"<wavedata><type>{kind}</type><resolution><samplerate>{power}<value>{rate}</value></samplerate>"
        f"<yres><unitperbit>{per_bit}</unitperbit><units>{units}</units></yres></resolution>"
        + "".join(channel(lead, samples, **changes) for lead, samples in counts.items())
        + "<channelconfiguration>ECG_STANDARD</channelconfiguration></wavedata>"
    )


def event(*waves: str, measured: dict[str, str] | None = None) -> str:
    pairs = {"HR": "59", "BP_D": " -"} | (QT if measured is None else measured)
    annotations = "".join(
        f"<annotation_global><name>{name}</name><value>{value}</value></annotation_global>"
        for name, value in pairs.items()
    )
    filters = "".join(
        f"<filter><name>{name}</name><value>{value}</value></filter>"
        for name, value in {"MAINS": "-", "HIGHPASS_CUTOFF_FREQ": "0.05", "LOWPASS_CUTOFF_FREQ": "150"}.items()
    )
    return f"<event>{''.join(waves)}{annotations}<filters_data>{filters}</filters_data></event>"


def document(*events: str, root: str = ROOT, doctype: str = "") -> bytes:
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n{doctype}<{root}><patdata><lastname>M\u00fcller</lastname></patdata>'
        "<examdescript><user_id>ADMIN</user_id><aquiringdevice>"
        "<hardware><vendor>Schiller</vendor><type>AT-110</type><model>AT-110</model></hardware>"
        "<software><vendor>Schiller</vendor><model>SEMA</model><version>2.64.0</version></software>"
        f"</aquiringdevice></examdescript><eventdata>{''.join(events)}</eventdata></{root}>"
    )
    return b"\xef\xbb\xbf" + text.encode()
