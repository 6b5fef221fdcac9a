"""EDF and BDF files of any channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


@dataclass
class Channel:
    label: str
    counts: Counts  # [n_records, samples of a record]
    unit: str = "mV"
    low: str = "-5"
    high: str = "5"
    digital: tuple[int, int] = (-32768, 32767)
    filters: str = "HP:0.05Hz LP:150Hz N:50Hz"

    @property
    def millivolts(self) -> npt.NDArray[np.float64]:
        low, high = float(self.low), float(self.high)
        scale = {"mV": 1, "V": 1e3, "nV": 1e-6}.get(self.unit, 1e-3)
        first, last = self.digital
        return ((self.counts.reshape(-1) - first) * (high - low) / (last - first) + low) * scale


def edf(
    channels: list[Channel],
    kind: str = "",
    duration: str = "1",
    bdf: bool = False,
    n_records: int | None = None,
    encoding: str = "latin-1",
) -> bytes:
    """An EDF or BDF file of these channels."""
    records = len(channels[0].counts)

    def column(values: list[str], width: int) -> str:
        return "".join(value.encode(encoding).ljust(width)[:width].decode("latin-1") for value in values)

    head = "X X X X".ljust(80) + "Startdate X X X X".ljust(80) + "01.01.2501.01.01"
    head += str(256 * (len(channels) + 1)).ljust(8) + kind.ljust(44)
    head += str(records if n_records is None else n_records).ljust(8) + duration.ljust(8) + str(len(channels)).ljust(4)
    head += column([c.label for c in channels], 16) + column([""] * len(channels), 80)
    head += column([c.unit for c in channels], 8) + column([c.low for c in channels], 8)
    head += column([c.high for c in channels], 8) + column([str(c.digital[0]) for c in channels], 8)
    head += column([str(c.digital[1]) for c in channels], 8) + column([c.filters for c in channels], 80)
    head += column([str(c.counts.shape[1]) for c in channels], 8) + column([""] * len(channels), 32)
    data = b""
    for record in range(records):
        for channel in channels:
            for count in channel.counts[record].tolist():
                data += int(count).to_bytes(3 if bdf else 2, "little", signed=True)
    return (b"\xffBIOSEMI" if bdf else b"0       ") + head.encode("latin-1") + data


def counts(n: int = 20, records: int = 3, limit: int = 32767, seed: int = 9) -> Counts:
    return np.random.default_rng(seed).integers(-limit, limit, (records, n))


def annotations(texts: list[bytes], width: int = 20, bdf: bool = False) -> Channel:
    """The channel of annotations, a text for each data record, in samples of 2 or 3 bytes."""
    size = 3 if bdf else 2
    padded = [text.ljust(size * width, b"\0") for text in texts]
    rows = [
        [int.from_bytes(text[at : at + size], "little", signed=True) for at in range(0, size * width, size)]
        for text in padded
    ]
    return Channel("BDF Annotations" if bdf else "EDF Annotations", np.array(rows), "", "-1", "1", filters="")
