"""Texts as recorders and programs export them: rdsamp, OpenSignals, Apple Watch, GE MUSE."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tests.builders.arrays import Table


def millivolts(n: int = 720, leads: int = 2, seed: int = 3) -> Table:
    """Samples in mV with three decimals, [n_samples, n_leads]."""
    return np.round(np.cumsum(np.random.default_rng(seed).normal(0, 0.05, (n, leads)), axis=0), 3)


def lines_of(
    times: Iterable[object], samples: Table, head: Sequence[str] = (), delimiter: str = ",", digits: int = 3
) -> str:
    """Lines of `head`, then one for each sample: its time and its values."""
    rows = (
        delimiter.join([str(time), *(f"{value:.{digits}f}" for value in row)])
        for time, row in zip(times, samples, strict=True)
    )
    return "\n".join([*head, *rows]) + "\n"


def elapsed(seconds: float) -> str:
    """As WFDB programs print it: '0:00.133', '1:00:00.000'."""
    hours, minutes = int(seconds // 3600), int(seconds % 3600 // 60)
    return f"{hours}:{minutes:02d}:{seconds % 60:06.3f}" if hours else f"{minutes}:{seconds % 60:06.3f}"


def rdsamp(
    rate: float,
    samples: Table,
    name: str = "   Elapsed time",
    unit: str | None = "      (seconds)",
    shown: Callable[[float], str] = "{:15.3f}".format,
    begin: float = 10.0,
) -> str:
    """What `rdsamp -p -v` prints for MLII and V5; `shown` makes the text of a time in seconds."""
    head = [f"{name}\t   MLII\t     V5", *([] if unit is None else [f"{unit}\t   (mV)\t   (mV)"])]
    times = (shown(begin + number / rate) for number in range(len(samples)))
    return lines_of(times, samples, head, "\t")


def atm_csv(rate: float, samples: Table, name: str, unit: str | None, shown: Callable[[float], str]) -> str:
    """What PhysioBank ATM writes to samples.csv."""
    head = [f"'{name}','MLII','V5'", *([] if unit is None else [f"'{unit}','mV','mV'"])]
    return lines_of((shown(number / rate) for number in range(len(samples))), samples, head)


def device(**changed: Any) -> dict[str, Any]:
    """The settings of a device in the head of a file by OpenSignals."""
    settings = {"sensor": ["EMG", "ECG"], "label": ["A1", "A2"], "channels": [1, 2], "sampling rate": 1000}
    settings |= {"device": "bitalino_rev", "column": ["nSeq", "I1", "I2", "O1", "O2", "A1", "A2"], "comments": ""}
    settings |= {"resolution": [4, 1, 1, 1, 1, 10, 10], "digital IO": [0, 0, 1, 1], "special": [{}, {}]}
    return {name: value for name, value in (settings | changed).items() if value is not None}


def opensignals(devices: dict[str, dict[str, Any]], rows: Iterable[Sequence[int]]) -> str:
    """A text file by OpenSignals: every row ends in a tab."""
    head = ["# OpenSignals Text File Format. Version 1", f"# {json.dumps(devices)}", "# EndOfHeader"]
    return "\n".join([*head, *("\t".join(map(str, row)) + "\t" for row in rows)]) + "\n"


def watch(
    rate: str = "Sample Rate,512 hertz",
    lead: str = "Lead,Lead I",
    unit: str = "Unit,µV",
    *,
    written: str = "{}",
    mark: str = ".",
    above: Sequence[str] = (),
) -> str:
    """An export of an Apple Watch with four samples: 0, 4.998, 9.983 and -78.111; `written` adds quotes."""
    samples = [written.format(f"{value:g}".replace(".", mark)) for value in (0.0, 4.998, 9.983, -78.111)]
    patient = ["Name", 'Date of Birth,"Jan 8, 2002"', "Recorded Date,2020-01-01 12:00:00 +0100", *above]
    device_lines = ["Symptoms,", "Software Version,1.90", 'Device,"Watch7,12"', rate, "", ""]
    return "\n".join([*patient, *device_lines, lead, unit, "", *samples]) + "\n"


def muse_text(*tables: tuple[str, Table], above: str = "\r\n\r\n\r\n") -> str:
    """GE MUSE's export: each table below a line with its name, rows and columns."""
    parts = [above]
    for name, table in tables:
        rows = "".join(" ".join(f"{value:.0f}" for value in row) + " \r\n" for row in table)
        parts.append(f"{name}: {len(table)} X {table.shape[1]} \r\n\r\n{rows}\r\n")
    return "".join(parts)
