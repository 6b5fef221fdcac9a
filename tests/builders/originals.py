"""Good files of every format and variant, small ones built here and the real ones where they are at hand.

In: nothing, or the folder of real recordings. Out: `Original`s, which the fuzz run and the tests of all formats read
as they are, under other names, packed, mixed, and damaged.
"""

from __future__ import annotations

import binascii
import importlib.util
import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import scipy.io

from ecgfounder.demo.philips_encoder import encode_sierra
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.readers.source import Hints
from tests.builders import (
    arrays,
    cardiosoft,
    dicom,
    dicom_text,
    healforce,
    hl7_aecg,
    ishne,
    kardia_atc,
    kardia_json,
    mfer,
    mortara_eli,
    muse,
    schiller_sema,
    scp,
    text_exports,
    wfdb,
)
from tests.builders.arrays import mat, npy, npz, table, text_of
from tests.builders.edf import Channel, annotations, counts, edf
from tests.builders.scp import assemble, beats_section, data_section, leads_section, pack, waves

ALL_SAID = Hints(sampling_rate=500, unit="uV", leads=STANDARD_LEADS)


def _unchanged(data: bytes) -> bytes:
    return data


@dataclass(frozen=True)
class Original:
    """A good file, or several that belong together.

    Attributes
    ----------
    format : what `Recording.source_format` says of it.
    name : which one it is.
    files : content by file name.
    opened : what `read_ecg` is given: a file's name, perhaps with '::member'.
    hints : what the user says about it.
    repaired : makes checksums right again after damage, so that more than the checksum is tried.
    reader : the reader that has to be named for it.
    """

    format: str
    name: str
    files: dict[str, bytes]
    opened: str
    hints: Hints = field(default_factory=Hints)
    repaired: Callable[[bytes], bytes] = _unchanged
    reader: str = "auto"

    def write(self, folder: Path) -> str:
        """Write its files into a folder; returns the path to read."""
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return str(folder / self.opened)


def _single(format_name: str, name: str, data: bytes, hints: Hints | None = None) -> Original:
    return Original(format_name, name, {"x": data}, "x", hints or Hints())


def built() -> list[Original]:
    """Small files of every format and of its variants; those that need an extra, where that is installed."""
    return list(_built())


@cache
def _built() -> tuple[Original, ...]:
    return (*_xml(), *_dicom(), *_scp(), *_healforce(), *_wfdb(), *_holter(), *_unverified(), *_arrays())


def _xml() -> Iterator[Original]:
    counts = np.cumsum(np.random.default_rng(0).integers(-12, 13, (12, 300)), axis=1)
    for compressed, encoding in ((True, "UTF-16"), (True, "UTF-8"), (False, "UTF-8")):
        name = f"{encoding} {'compressed' if compressed else 'plain'}"
        yield _single("philips_sierra", name, encode_sierra(counts, compressed=compressed, encoding=encoding))
    stored = muse.counts_of(muse.STORED, 60)
    median = muse.waveform(muse.counts_of(muse.STORED, 20), "Median")
    yield _single("ge_muse", "checked", muse.document(median, muse.waveform(stored)))
    yield _single("ge_muse", "unchecked", muse.document(median, muse.waveform(stored, LeadDataCRC32="0")))
    damaged = muse.document(median, muse.waveform(stored)).replace("M\u00fcller".encode("latin-1"), b"M & \x01")
    yield _single("ge_muse", "not well-formed", damaged)
    strip = cardiosoft.strip_data(cardiosoft.counts_of(STANDARD_LEADS, 60), total="60")
    yield _single("ge_cardiosoft", "strip", cardiosoft.document(strip))
    averages = schiller_sema.wave(schiller_sema.counts_of(n_samples=20), "ECG_AVERAGES")
    event = schiller_sema.event(averages, schiller_sema.wave(schiller_sema.counts_of(n_samples=60)))
    yield _single("schiller_sema", "averages and rhythm", schiller_sema.document(event))
    rhythm = hl7_aecg.sequence_set(hl7_aecg.counts_of(STANDARD_LEADS, 60))
    yield _single("hl7_aecg", "series", hl7_aecg.document(hl7_aecg.series(rhythm)))


def _dicom() -> Iterator[Original]:
    groups = dicom.rhythm(n_samples=20), dicom.rhythm(n_samples=9, MultiplexGroupLabel="MEDIAN BEAT")
    for name in ("IMPLICIT", "EXPLICIT", "DEFLATED"):
        data = dicom.encoded(dicom.ecg(*groups), getattr(dicom, name))
        yield _single("dicom", name.lower(), data)
    members = dicom_text.members(dicom.ecg(*groups))
    yield _single("dicom_xml", "native model", dicom_text.as_xml(members))
    yield _single("dicom_json", "object", dicom_text.as_json(members))
    yield _single("dicom_json", "array", dicom_text.as_json([members]))


def _scp() -> Iterator[Original]:
    for order, huffman in ((0, False), (1, False), (2, True)):
        data = _without_section_checksums(scp.Plain(waves(), order=order, huffman=huffman).write())
        yield Original("scp_ecg", f"order {order}", {"x": data}, "x", repaired=_with_record_checksum)
    data = scp.Plain(waves(), huffman=True, first=0).write()
    yield Original("scp_ecg", "from sample 0", {"x": data}, "x", repaired=_with_record_checksum)
    beat = data_section([pack([5] * 10, 1, True)] * 2, 2000, 2000, 1)
    stored = [pack(row, 2, True) for row in waves(43, 2).tolist()]
    bodies = {2: struct.pack("<H", 19999), 3: leads_section(["I", "II"], [(1, 100)] * 2, flags=5), 5: beat}
    bodies |= {4: beats_section(20, 4, [(0, 17, 20, 26)], [(10, 30)]), 6: data_section(stored, 1000, 8000, 2, 1)}
    data = _without_section_checksums(assemble(bodies))
    yield Original("scp_ecg", "decimated, beats subtracted", {"x": data}, "x", repaired=_with_record_checksum)


def _healforce() -> Iterator[Original]:
    data = healforce.healforce(waves(60, 3))
    yield Original("healforce", "three leads", {"x": data}, "x", repaired=healforce.with_checksums)


def _without_section_checksums(data: bytes) -> bytes:
    """Every section's checksum 0 ("not computed"), so that the record's own, which can be repaired, stands for them."""
    changed = bytearray(data)
    (length,) = struct.unpack_from("<I", data, 10)
    for at in range(22, 6 + length - 9, 10):
        _, size, index = struct.unpack_from("<HII", data, at)
        if size:
            changed[index - 1 : index + 1] = b"\0\0"
    return _with_record_checksum(bytes(changed))


def _with_record_checksum(data: bytes) -> bytes:
    return struct.pack("<H", binascii.crc_hqx(data[2:], 0xFFFF)) + data[2:] if len(data) > 2 else data


def _wfdb() -> Iterator[Original]:
    for fmt in ("16", "212", "80", "24", "32", "61", "160"):
        with TemporaryDirectory() as folder:
            header = wfdb.write_record(Path(folder), wfdb.random_frames(60, 3, min(wfdb.RANGES[fmt], 1 << 15)), fmt)
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        files["r.hea"] = b"\n".join(_without_checksum(line) for line in files["r.hea"].split(b"\n"))
        yield Original("wfdb", f"format {fmt}", files, header.name)
    with TemporaryDirectory() as folder:
        parts = [(("II", "V1"), wfdb.random_frames(40, 2), 1000), None, (("V1", "I"), wfdb.random_frames(30, 2), 200)]
        header = wfdb.write_segments(Path(folder), parts, layout=("I", "II", "V1"))
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    for name in ("m_1.hea", "m_3.hea"):
        files[name] = b"\n".join(_without_checksum(line) for line in files[name].split(b"\n"))
    yield Original("wfdb", "segments", files, header.name)


def _without_checksum(line: bytes) -> bytes:
    fields = line.split()
    return b" ".join((*fields[:6], b"0", *fields[7:])) if line.startswith(b"r.dat") else line


def _holter() -> Iterator[Original]:
    times = annotations([b"+0\x14\x14", b"+1\x14\x14", b"+2\x14\x14"])
    yield _single("edf", "EDF+D", edf([Channel("ECG II", counts()), times], "EDF+D"))
    times = annotations([b"+0\x14\x14", b"+1\x14\x14", b"+7\x14\x14"])
    yield _single("edf", "EDF+D with a gap", edf([Channel("ECG II", counts()), times], "EDF+D"))
    yield _single("edf", "BDF", edf([Channel("ECG II", counts()), Channel("V1", counts(seed=1))], bdf=True))
    data = ishne.ishne(ishne.frames_of(), variable=b"text")
    repaired = Original("ishne", "unchecked", {"x": data}, "x", repaired=_without_ishne_checksum)
    yield from (_single("ishne", "checked", data), repaired)


def _without_ishne_checksum(data: bytes) -> bytes:
    return data[:8] + b"\0\0" + data[10:]


def _unverified() -> Iterator[Original]:
    channels = [mortara_eli.channel(lead, counts) for lead, counts in mortara_eli.counts_of(n_samples=60).items()]
    eli, waves = mortara_eli.document(*channels), mfer.mfer(mfer.counts_of(n_samples=60), block=20)
    yield Original("mortara_eli", "channels", {"x": eli}, "x", reader="mortara_eli")
    yield Original("mfer", "little-endian", {"x": waves}, "x", reader="mfer")
    kardia = kardia_atc.atc(kardia_atc.counts_of())
    repaired = kardia_atc.with_checksums
    yield Original("kardia_atc", "six leads", {"x": kardia}, "x", reader="kardia_atc", repaired=repaired)
    yield Original(
        "kardia_json", "six leads", {"x": kardia_json.answer(kardia_json.counts_of())}, "x", reader="kardia_json"
    )


def _arrays() -> Iterator[Original]:
    named = {"data": table(), "fs": 500.0, "leads": np.array(STANDARD_LEADS, dtype=object)}
    level_4 = io.BytesIO()
    scipy.io.savemat(level_4, {"val": table(), "fs": 500.0, "unit": "uV"}, format="4")
    yield _single("csv", "named columns", text_of(table().T, ",".join(STANDARD_LEADS)).encode(), ALL_SAID)
    yield _single("csv", "numbers alone", text_of(table(), delimiter=";").replace(".", ",").encode(), ALL_SAID)
    watch = arrays.WATCH.format(rate="Rate,512 Hz", lead="Lead,Lead I", unit="Unit,µV", mark=".")
    yield _single("csv", "of a watch", watch.encode())
    yield from _text_exports()
    yield _single("npy", "float64", npy(table()), ALL_SAID)
    yield _single("npz", "named", npz(ecg=table(), fs=np.array(500)), ALL_SAID)
    yield _single("mat", "level 5", mat(ECG=named), ALL_SAID)
    yield _single("mat", "level 4", level_4.getvalue(), ALL_SAID)
    header = {"freq": 500.0, "desc": ["I", "II"], "units": ["mV", "mV"], "gain": [200.0] * 2, "adczero": [0.0] * 2}
    yield _single("mat", "ecg-kit", mat(signal=table(2).T, header=header))
    if importlib.util.find_spec("h5py"):
        yield _single(
            "hdf5", "ecg-kit", arrays.mat_7_3(signal=table(2).T, header=header | {"gain": 200.0, "adczero": 0.0})
        )
        yield from _hdf5()


def _text_exports() -> Iterator[Original]:
    rhythm = np.round(text_exports.millivolts(60, 12) * 1000)
    few = text_exports.millivolts(60)
    dates = [f"2000-01-01 12:00:00.{number * 2:03d}" for number in range(60)]
    muse_tables = ("Median signal", rhythm[:20]), ("Rhythm signal", rhythm)
    settings = text_exports.device(sensor=["ECG"], label=["CH1"], column=["nSeq", "DI", "CH1"])
    counted = text_exports.opensignals({"00:00": settings}, [[number, 0, number * 7 % 99] for number in range(60)])
    remarks = "# Simple Text Format\n# Sampling Rate (Hz):= 500.00\n# Resolution:= 12\n# Labels:= I\tII\n"
    german = text_exports.watch("Messrate,511,5\u00a0Hertz", unit="Einheit,µV", mark=",", written='"{}"')
    named, clock = Hints(unit="mV"), "'[12:00:{:06.3f} 01/01/2000]'".format
    yield _single("csv", "rdsamp", text_exports.rdsamp(360, few).encode())
    yield _single(
        "csv", "ATM", text_exports.atm_csv(360, few, "Time and date", "hh:mm:ss.mmm dd/mm/yyyy", clock).encode()
    )
    yield _single("csv", "dates", text_exports.lines_of(dates, few, ["DateTime,I,II"]).encode("utf-16"), named)
    yield _single("csv", "of MUSE", text_exports.muse_text(*muse_tables).encode(), ALL_SAID)
    yield _single("csv", "of OpenSignals", counted.encode(), Hints(unit="20"))
    yield _single("csv", "of BioSPPy", (remarks + text_of(table(2).T, delimiter="\t")).encode(), named)
    yield _single("csv", "of a German watch", german.encode())


def _hdf5() -> Iterator[Original]:
    import h5py

    one, many, recorder = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with h5py.File(one, "w") as file:
        file.create_dataset("ecg", data=table(), chunks=(6, 50), compression="gzip").attrs["fs"] = 500
    with h5py.File(many, "w") as file:
        file["exam_id"] = np.arange(5) + 700
        file.create_dataset("tracings", data=np.ones((5, 60, 12), "f4").cumsum(1), chunks=(1, 60, 12), shuffle=True)
    with h5py.File(recorder, "w") as file:
        file["00:00/raw/nSeq"], file["00:00/raw/channel_1"] = np.arange(60)[:, None], np.arange(60)[:, None] * 7 % 99
        file["00:00"].attrs["sampling rate"], file["00:00/raw/channel_1"].attrs["sensor"] = 500, "ECG"
    yield _single("hdf5", "one", one.getvalue(), ALL_SAID)
    yield _single("hdf5", "of OpenSignals", recorder.getvalue(), Hints(unit="20"))
    yield Original("hdf5", "many", {"x": many.getvalue()}, "x::tracings/703", ALL_SAID)


def real(folder: Path) -> list[Original]:
    """The real recordings, by their path below `folder`; WFDB's signal files with their headers."""
    found: list[Original] = []
    for path in sorted(folder.glob("*/*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix in (".dat", ".mat", ".xyz") or path.name.startswith("invalid"):
            continue
        belonging = [other for other in path.parent.iterdir() if other.stem == path.stem]
        files = {other.name: other.read_bytes() for other in (belonging if path.suffix == ".hea" else [path])}
        found.append(Original(_FORMAT_OF_FOLDER[path.parent.name], name, files, path.name))
    return found


_FORMAT_OF_FOLDER = {
    "sierra": "philips_sierra",
    "muse": "ge_muse",
    "cardiosoft": "ge_cardiosoft",
    "hl7_aecg": "hl7_aecg",
    "dicom": "dicom",
    "scp": "scp_ecg",
    "wfdb": "wfdb",
}
