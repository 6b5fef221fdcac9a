"""Files of every format with a marker in the fields that hold free text, and copies in which it stands elsewhere too.

In: nothing, or an `Original`. Out: `Original`s that can be read; damaged copies. The marker is in no field whose content a run
may show: device, software, filters, the device's own statements.
"""

from __future__ import annotations

import importlib.util
import io
import random
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from pydicom.dataset import Dataset

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
from tests.builders.originals import ALL_SAID, Original
from tests.builders.scp import waves

MARKER = "ZZTAINTZZ"
N_SAMPLES = 300


def tainted() -> list[Original]:
    """A file of every format and of its variants."""
    return list(_tainted())


@cache
def _tainted() -> tuple[Original, ...]:
    return (*_philips(), *_xml(), *_binary(), *_unverified(), *_wfdb(), *_holter(), *_arrays())


def _one(format_name: str, name: str, data: bytes) -> Original:
    return Original(format_name, name, {"x": data}, "x", ALL_SAID)


def _philips() -> Iterator[Original]:
    rng = np.random.default_rng(0)
    leads = (*STANDARD_LEADS, MARKER)
    samples = np.cumsum(rng.integers(-12, 13, (len(leads), N_SAMPLES)), axis=1)
    for version, encoding in (("1.03", "UTF-8"), ("1.04", "UTF-16")):
        kept = leads if version == "1.04" else STANDARD_LEADS
        text = encode_sierra(samples[: len(kept)], leads=kept, version=version, encoding=encoding).decode(encoding)
        for old, new in (
            ("<patientid>SYNTHETIC<", f"<patientid>{MARKER}<"),
            ("<lastname />", f"<lastname>{MARKER}</lastname>"),
            ("Synthetic recording, of no patient", MARKER),
            ("<documentname>", f"<documentname>{MARKER}"),
            ('status="Not yet determined"', f'status="{MARKER}"'),
            ("</waveforms>", f"</waveforms><{MARKER}>{MARKER}</{MARKER}><!-- {MARKER} --><?{MARKER} {MARKER}?>"),
            (
                "</restingecgdata>",
                f'<interpretations><interpretation><mdsignatureline>{MARKER}</mdsignatureline><statement editedflag="True">'
                f"<leftstatement>{MARKER}</leftstatement></statement></interpretation></interpretations></restingecgdata>",
            ),
        ):
            assert old in text
            text = text.replace(old, new)
        yield _one("philips_sierra", version, text.encode(encoding))


def _xml() -> Iterator[Original]:
    names = f"<PatientID>{MARKER}</PatientID><PatientLastName>{MARKER}</PatientLastName>"
    patient = f"<PatientDemographics>{names}</PatientDemographics>"
    diagnosis = f"<Diagnosis><DiagnosisStatement><StmtText>{MARKER}</StmtText></DiagnosisStatement></Diagnosis>"
    stored = muse.counts_of((*muse.STORED, MARKER), N_SAMPLES)
    median = muse.waveform(muse.counts_of(muse.STORED, 20), MARKER)
    yield _one("ge_muse", "MUSE", muse.document(patient, diagnosis, median, muse.waveform(stored)))
    info = f"<PatientInfo><PID>{MARKER}</PID></PatientInfo><Interpretation><Conclusion>{MARKER}</Conclusion></Interpretation>"
    strip = cardiosoft.strip_data(cardiosoft.counts_of((*STANDARD_LEADS, MARKER), N_SAMPLES))
    yield _one("ge_cardiosoft", "CardioSoft", cardiosoft.document(info, strip))
    rhythm = hl7_aecg.sequence_set(hl7_aecg.counts_of((*STANDARD_LEADS, MARKER), N_SAMPLES))
    subject = (
        f'<id root="{MARKER}"/><text>{MARKER}</text><componentOf><subject><name>{MARKER}</name></subject></componentOf>'
    )
    signed = (
        f"<component><annotationSet><author><assignedPerson><name>{MARKER}</name></assignedPerson></author><component>"
        f'<annotation><code code="MDC_ECG_INTERPRETATION_STATEMENT"/><value>{MARKER}</value></annotation></component>'
        "</annotationSet></component>"
    )
    other = hl7_aecg.series(rhythm, code=f"MEDIAN {MARKER}")
    yield _one("hl7_aecg", "aECG", hl7_aecg.document(subject, other, hl7_aecg.series(rhythm), signed))

    text = f"<textdata><type>INTERPRETATION</type><textdata>{MARKER}</textdata></textdata>"
    waves = schiller_sema.wave(schiller_sema.counts_of((*STANDARD_LEADS, MARKER), N_SAMPLES))
    schiller = schiller_sema.document(schiller_sema.event(text, waves)).replace("M\u00fcller".encode(), MARKER.encode())
    yield _one("schiller_sema", "SEMA", schiller.replace(b"ADMIN", MARKER.encode()))


def _binary() -> Iterator[Original]:
    for name in ("EXPLICIT", "IMPLICIT", "DEFLATED"):
        yield _one("dicom", name.lower(), dicom.encoded(_dicom(), getattr(dicom, name)))
    members = dicom_text.members(_dicom())
    yield _one("dicom_xml", "native model", dicom_text.as_xml(members))
    yield _one("dicom_json", "object", dicom_text.as_json(members))
    tags = b"".join(
        struct.pack("<BH", tag, len(MARKER) + 1) + MARKER.encode() + b"\0" for tag in (0, 1, 2, 3, 20, 21, 30)
    )
    report = bytes((1, 0, 0, 0, 0, 0, 0, 0, 1)) + struct.pack("<BH", 1, len(MARKER) + 1) + MARKER.encode() + b"\0"
    for order, huffman in ((0, False), (2, True)):
        extra = {1: tags + struct.pack("<BH", 255, 0), 8: report, 10: MARKER.encode() * 3}
        file = scp.Plain(waves(N_SAMPLES), order=order, huffman=huffman, extra=extra)
        yield _one("scp_ecg", f"order {order}", file.write())
    yield _one("healforce", "three leads", healforce.healforce(waves(N_SAMPLES, 3), patient=MARKER.encode()))


def _dicom() -> Dataset:
    channels = [dicom.channel(lead) for lead in STANDARD_LEADS]
    label = dicom.coded(MARKER, MARKER, MARKER)
    channels.append(dicom.channel("I", ChannelLabel=MARKER, ChannelSourceSequence=label))
    group = dicom.group(dicom.counts_of((*STANDARD_LEADS, "x"), N_SAMPLES), channels, MultiplexGroupLabel=MARKER)
    dataset = dicom.ecg(group)
    dataset.PatientName = dataset.PatientID = dataset.StudyDescription = dataset.InstitutionName = MARKER
    return dataset


def _unverified() -> Iterator[Original]:
    rows = mortara_eli.counts_of((*STANDARD_LEADS, MARKER), N_SAMPLES)
    eli = mortara_eli.document(*(mortara_eli.channel(lead, row) for lead, row in rows.items()))
    eli = eli.replace(b"Chest pain", MARKER.encode()).replace(b"Jane", MARKER.encode())
    yield Original("mortara_eli", "ELI", {"x": eli}, "x", reader="mortara_eli")
    name, note = 0x81, 0x16
    changes = {name: MARKER.encode(), note: MARKER.encode(), mfer.MANUFACTURER: f"Maker^Model^1^{MARKER}".encode()}
    yield Original("mfer", "MFER", {"x": mfer.mfer(mfer.counts_of(), changes=changes)}, "x", reader="mfer")
    texts = {place: MARKER.encode() for place in (0, 32, 72, 116, 212)}  # date, identifiers, phone, device data
    leading = kardia_atc.info(texts) + kardia_atc.format_block()
    others = kardia_atc.block(b"note", MARKER.encode())
    kardia = kardia_atc.atc(kardia_atc.counts_of(), before=leading, after=others)
    yield Original("kardia_atc", "ATC", {"x": kardia}, "x", reader="kardia_atc")
    texts_of = dict.fromkeys(("id", "patientID", "recordedAt", "algorithmDetermination", "tags", "note"), MARKER)
    told = kardia_json.answer(kardia_json.counts_of(), **texts_of)
    yield Original("kardia_json", "JSON", {"x": told}, "x", reader="kardia_json")


def _wfdb() -> Iterator[Original]:
    for fmt in ("16", "212"):
        with TemporaryDirectory() as folder:
            header = wfdb.write_record(
                Path(folder),
                wfdb.random_frames(N_SAMPLES, 3, min(wfdb.RANGES[fmt], 1 << 15)),
                fmt,
                ("I", "II", MARKER),
            )
            text = header.read_text().replace("r 3 500", f"# {MARKER}\n{MARKER} 3 500") + f"# {MARKER}: {MARKER}\n"
            header.write_text(text)
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        yield Original("wfdb", f"format {fmt}", files, header.name)


def _holter() -> Iterator[Original]:
    times = annotations([f"+{second}\x14\x14\0+{second}\x14{MARKER}\x14".encode() for second in range(3)])
    channels = [
        Channel("ECG II", counts()),
        Channel(f"ECG {MARKER[:12]}", counts(seed=1)),
        Channel(MARKER, counts(), MARKER[:8]),
    ]
    for channel in channels:
        channel.filters = f"HP:0.05Hz {MARKER}"
    for bdf in (False, True):
        data = edf(channels, bdf=True) if bdf else edf([*channels, times], "EDF+D")
        data = data[:8] + MARKER.encode().ljust(80) + MARKER.encode().ljust(80) + data[168:]
        yield _one("edf", "BDF" if bdf else "EDF+D", data)
    data = ishne.ishne(ishne.frames_of(N_SAMPLES), leads=("I", "unknown"), variable=MARKER.encode())
    head = bytearray(data)
    for at in (28, 68, 108):  # first name, last name, identifier
        head[at : at + len(MARKER)] = MARKER.encode()
    head[8:10] = b"\0\0"  # no checksum
    yield _one("ishne", "ISHNE", bytes(head))


def _arrays() -> Iterator[Original]:
    rows = table(13, N_SAMPLES)
    head = f"# patient: {MARKER}, {MARKER} = {MARKER}\n# fs = 500\n"
    names = ",".join((*STANDARD_LEADS, MARKER))
    yield _one("csv", "named columns", (head + text_of(rows.T, names)).encode())
    yield _one("csv", "JSON above", (f'# {{"{MARKER}": "{MARKER}", "fs": 500}}\n' + text_of(rows.T, names)).encode())
    yield _one(
        "csv",
        "leads as rows",
        "".join(
            f"{lead},{','.join(map(str, row))}\n"
            for lead, row in zip((*STANDARD_LEADS, MARKER), rows[:, :100], strict=True)
        ).encode(),
    )
    watch = arrays.WATCH.format(rate="Rate,512 Hz", lead="Lead,Lead I", unit="Unit,µV", mark=".")
    yield _one(
        "csv", "of a watch", watch.replace("Jane Doe", MARKER).replace("Symptoms,", f"Symptoms,{MARKER}").encode()
    )
    yield from _text_exports()
    yield _one("npy", "float64", npy(table(12, N_SAMPLES)))
    yield _one("npz", "named", npz(ecg=table(12, N_SAMPLES), fs=np.array(500), **{MARKER: np.array(MARKER)}))
    yield _one(
        "mat", "level 5", mat(ECG={"data": table(12, N_SAMPLES), "fs": 500.0, MARKER: MARKER}, **{MARKER: MARKER})
    )
    if importlib.util.find_spec("h5py"):
        yield from _hdf5()


def _text_exports() -> Iterator[Original]:
    """Exports with the marker in names of columns, of sensors and of lines, in texts above and beside the numbers."""
    few = text_exports.millivolts(N_SAMPLES)
    settings = text_exports.device(sensor=[MARKER, "ECG"], comments=MARKER, **{MARKER: MARKER, "device name": MARKER})
    rows = [[number, 0, 0, 0, 0, 7, number * 7 % 99] for number in range(N_SAMPLES)]
    beside = [f"{number / 500:.3f},{MARKER}" for number in range(N_SAMPLES)]
    hints = Hints(500, "uV")
    for name, text in (
        ("OpenSignals", text_exports.opensignals({MARKER: settings}, rows)),
        ("MUSE's text", text_exports.muse_text(("Rhythm signal", few * 1000), above=f"{MARKER}: {MARKER}\r\n")),
        ("BioSPPy", f"# Sampling Rate (Hz):= 500\n# Labels:= ECG\t{MARKER}\n" + text_of(few, delimiter="\t")),
        ("words", text_exports.lines_of(beside, few, [f"time,{MARKER},I,{MARKER} II"])),
        ("German watch", text_exports.watch("Rate,512 Hertz", above=[f"{MARKER},{MARKER}", f"x,{MARKER}"], mark=",")),
        ("rdsamp", text_exports.rdsamp(360, few).replace("     V5", MARKER)),
    ):
        named = replace(hints, leads=("I", "II")) if name == "MUSE's text" else hints
        yield Original("csv", name, {"x": text.encode()}, "x", named)


def _hdf5() -> Iterator[Original]:
    import h5py

    one, many = io.BytesIO(), io.BytesIO()
    with h5py.File(one, "w") as file:
        file.create_dataset("ecg", data=table(12, N_SAMPLES)).attrs[MARKER] = MARKER
        file[MARKER] = MARKER
        file.create_group(f"{MARKER}_group").attrs["name"] = MARKER
        file.attrs["patient"] = MARKER
    with h5py.File(many, "w") as file:
        file["exam_id"] = np.arange(5) + 700
        file[f"{MARKER}_id"] = np.array([MARKER.encode()] * 5)
        file.create_dataset("tracings", data=np.random.default_rng(0).normal(size=(5, N_SAMPLES, 12)).astype("f4"))
    yield _one("hdf5", "one", one.getvalue())
    yield Original("hdf5", "many", {"x": many.getvalue()}, "x::tracings/703", ALL_SAID)


def refused() -> list[Original]:
    """Files that are refused because of the field in which the marker stands."""
    by_name = {f"{original.format} {original.name}": original for original in tainted()}
    philips = by_name["philips_sierra 1.04"].files["x"].decode("utf-16")
    muse_xml, wfdb_files = by_name["ge_muse MUSE"].files["x"], by_name["wfdb format 16"].files
    twice = muse.document(
        muse.waveform({MARKER: waves(20, 1)[0].astype("<i2"), f"{MARKER} ": waves(20, 1)[0].astype("<i2")})
    )
    one_name_twice = dicom.group(
        dicom.counts_of(("a", "b"), N_SAMPLES),
        [dicom.channel("I", ChannelLabel=MARKER, ChannelSourceSequence=dicom.coded(MARKER, "x", MARKER))] * 2,
    )
    return [
        _one("xml", "unknown root", f"<{MARKER}><name>{MARKER}</name></{MARKER}>".encode()),
        _one("xml", "unknown element", muse_xml.replace(b"<RestingECG>", f"<RestingECG><{MARKER}></x>".encode())),
        _one("text", "unknown text", f"{MARKER} was here\n".encode()),
        _one("binary", "unknown bytes", f"\x01{MARKER}".encode()),
        _one("gzip", "damaged gzip", b"\x1f\x8b" + MARKER.encode()),
        _one("philips_sierra", "document type", philips.replace("PhilipsECG", MARKER).encode("utf-16")),
        _one("philips_sierra", "version", philips.replace(">1.04<", f">{MARKER}<").encode("utf-16")),
        _one("philips_sierra", "encoding", philips.replace('"Base64"', f'"{MARKER}"').encode("utf-16")),
        _one("ge_muse", "a channel twice", twice),
        _one(
            "ge_muse",
            "count",
            muse_xml.replace(b"<LeadSampleCountTotal>", f"<LeadSampleCountTotal>{MARKER}".encode()),
        ),
        _one("dicom", "a channel twice", dicom.encoded(dicom.ecg(one_name_twice))),
        _one("dicom", "SOP class", dicom.encoded(dicom.ecg(sop_class="1.2.826.0.2"))),
        _one("edf", "number of signals", b"0       " + MARKER.encode() * 40),
        Original("wfdb", "signal file", {"r.hea": wfdb_files["r.hea"].replace(b"r.dat", MARKER.encode())}, "r.hea"),
        Original(
            "wfdb", "gain", wfdb_files | {"r.hea": wfdb_files["r.hea"].replace(b"1000(0)", MARKER.encode())}, "r.hea"
        ),
        _one("csv", "column names", text_of(table(3, N_SAMPLES).T, ",".join([MARKER] * 3)).encode()),
        _one(
            "csv",
            "a number",
            text_of(table(12, 20).T, ",".join(STANDARD_LEADS)).replace("\n", f"\n{MARKER}", 4).encode(),
        ),
        _one("npz", "names", npz(**{MARKER: np.array([MARKER])})),
        *_refused_hdf5(),
    ]


def _refused_hdf5() -> list[Original]:
    if not importlib.util.find_spec("h5py"):
        return []
    import h5py

    many = io.BytesIO()
    with h5py.File(many, "w") as file:
        file.create_dataset(MARKER, data=np.ones((5, N_SAMPLES, 12), "f4"))
    return [_one("hdf5", "many without a member", many.getvalue())]


_TOKEN = re.compile(r"[^\s<>\"'=/,;:\x00-\x1f\x7f-\xff]{1,40}")


def marked_copies(original: Original, count: int, seed: int = 0) -> Iterator[dict[str, bytes]]:
    """Copies of a file's parts in which the marker stands for a token, or is written over or into the bytes; some are cut off."""
    chance = random.Random(f"{seed} {original.format} {original.name}")
    # The header of a WFDB record is what holds text.
    name = next((name for name in original.files if name.endswith(".hea")), original.opened.partition("::")[0])
    data = original.files[name]
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "latin-1"
    text = data.decode(encoding)
    tokens = [found.span() for found in _TOKEN.finditer(text, 0, 8000)]
    for _ in range(count):
        begin, end = chance.choice(tokens)
        kind = chance.randrange(4)
        if kind == 0:
            changed = text[:begin] + MARKER + text[end:]
        elif kind == 1:
            changed = text[:begin] + MARKER + text[begin + len(MARKER) :]
        elif kind == 2:
            changed = text[:begin] + MARKER + text[begin:]
        else:
            changed = text[:begin] + MARKER + text[end:]
            changed = changed[: chance.randrange(begin, len(changed))]
        yield original.files | {name: changed.encode(encoding)}
