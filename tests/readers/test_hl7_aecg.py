"""HL7 aECG: what is read, and that anything else is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgfounder.ecg.leads import STANDARD_LEADS, select_leads
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers import hl7_aecg, read_ecg
from ecgfounder.readers.source import Source
from ecgfounder.storage import locate
from tests.builders.hl7_aecg import (
    ABSOLUTE,
    counts_of,
    document,
    sequence,
    sequence_set,
    series,
    time_sequence,
)
from tests.places import RECORDINGS


def read(path: Path, content: bytes) -> Recording:
    path.write_bytes(content)
    return hl7_aecg.read(Source(locate(path)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ecg.xml"


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the real recordings of ../shared are not here")
@pytest.mark.parametrize(("name", "rate"), [("ecgtoolkit_Example", 500), ("liryc_example", 100)])
def test_real_recording_equals_its_reference_decode(name: str, rate: float) -> None:
    key = f"hl7_aecg/{name}.xml"
    recording = read_ecg(RECORDINGS / key)
    assert recording.source_format == "hl7_aecg"
    assert recording.sampling_rate == rate
    np.testing.assert_allclose(
        select_leads(recording).samples, np.load(RECORDINGS / "expected.npz")[key], rtol=0, atol=1e-6
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(STANDARD_LEADS),
    increment=st.sampled_from(
        [
            ("0.002", "s", 500),
            ("2", "ms", 500),
            ("2000", "us", 500),
            ("0.001", "s", 1000),
            ("0.0033333", "s", 300),
            ("0.00390625", "s", 256),
            ("4.0", "ms", 250),
        ]
    ),
    scale=st.sampled_from(
        [
            ("5", "uV", 5e-3),
            ("2.5", "uV", 2.5e-3),
            ("0.005", "mV", 5e-3),
            ("0.000005", "V", 5e-3),
            ("5000", "nV", 5e-3),
            ("5", "\u00b5V", 5e-3),
        ]
    ),
    namespace=st.sampled_from(['xmlns="urn:hl7-org:v3"', 'xmlns="urn:other"', ""]),
    seed=st.integers(0, 1000),
)
def test_any_lead_order_rate_unit_and_namespace(
    file: Path,
    order: list[str],
    increment: tuple[str, str, float],
    scale: tuple[str, str, float],
    namespace: str,
    seed: int,
) -> None:
    leads = counts_of(tuple(order), 30, seed)
    content = document(
        series(sequence_set(leads, time_sequence(*increment[:2]), scale=scale[0], unit=scale[1])), namespace=namespace
    )
    recording = read(file, content)
    assert recording.leads == tuple(order)
    assert recording.sampling_rate == pytest.approx(increment[2])
    np.testing.assert_allclose(recording.samples, np.array(list(leads.values())) * scale[2], rtol=1e-6, atol=1e-6)


def test_origin_is_added_in_its_own_unit(file: Path) -> None:
    recording = read(file, document(series(sequence_set({"I": [0, 100]}, origin='<origin value="1.5" unit="mV"/>'))))
    np.testing.assert_allclose(recording.samples[0], [1.5, 2.0], atol=1e-6)


def test_representative_beats_are_not_taken(file: Path) -> None:
    rhythm = sequence_set(counts_of(("I", "II"), 50))
    beat = sequence_set(counts_of(STANDARD_LEADS, 20, seed=1))
    derived = f"<derivation><derivedSeries>{beat}</derivedSeries></derivation>"
    content = document(series(beat, code="REPRESENTATIVE_BEAT"), series(rhythm, derivation=derived))
    recording = read(file, content)
    assert recording.leads == ("I", "II")
    assert recording.n_samples == 50
    with pytest.raises(UnsupportedFormatError, match="rhythm"):
        read(file, document(series(beat, code="REPRESENTATIVE_BEAT")))


def test_series_with_the_most_standard_leads_is_taken(file: Path) -> None:
    few, all_leads, later = counts_of(("II",), 90), counts_of(STANDARD_LEADS, 50), counts_of(STANDARD_LEADS, 50, seed=5)
    recording = read(file, document(series(sequence_set(few)), *(series(sequence_set(s)) for s in (all_leads, later))))
    np.testing.assert_allclose(recording.samples, np.array(list(all_leads.values())) * 0.005, atol=1e-6)


@pytest.mark.parametrize("absolute", [True, False])
def test_a_page_of_three_by_four_leads_lies_on_one_time_axis(file: Path, absolute: bool) -> None:
    columns = [STANDARD_LEADS[i : i + 3] for i in range(0, 12, 3)]
    sets, leads = [], counts_of(STANDARD_LEADS, 50)
    for column, names in enumerate(columns):
        start = f"200211220910{column // 10:02d}.{column}00" if absolute else f"{column * 0.1}"
        kind = ("TIME_ABSOLUTE" if absolute else "TIME_RELATIVE", start)
        time = time_sequence(kind=kind, head_unit="" if absolute else "s")
        sets.append(sequence_set({name: leads[name] for name in names}, time))
    strip = counts_of(("II",), 200, seed=3)
    kind = ABSOLUTE if absolute else ("TIME_RELATIVE", "0")
    sets.append(sequence_set(strip, time_sequence(kind=kind, head_unit="" if absolute else "s")))
    recording = read(file, document(series(*sets)))
    assert recording.n_samples == 200
    v1 = recording.samples[recording.leads.index("V1")]
    np.testing.assert_allclose(v1[100:150], np.array(leads["V1"]) * 0.005, atol=1e-6)
    assert np.isnan(v1[:100]).all()
    assert np.isnan(v1[150:]).all()
    lead_two = recording.samples[recording.leads.index("II")]
    np.testing.assert_allclose(lead_two[:50], np.array(leads["II"]) * 0.005, atol=1e-6)
    np.testing.assert_allclose(lead_two[50:], np.array(strip["II"][50:]) * 0.005, atol=1e-6)


def test_a_later_stretch_of_the_same_leads_is_left_out(file: Path) -> None:
    later = time_sequence(kind=("TIME_ABSOLUTE", "20301122091000"))
    content = document(
        series(sequence_set(counts_of(STANDARD_LEADS)), sequence_set(counts_of(STANDARD_LEADS, 50, 1), later))
    )
    assert read(file, content).n_samples == 50


def test_pieces_that_lie_years_apart_need_no_memory(file: Path) -> None:
    later = time_sequence(kind=("TIME_ABSOLUTE", "20301122091000"))
    recording = read(
        file, document(series(sequence_set(counts_of(("I", "II"))), sequence_set(counts_of(("V1",)), later)))
    )
    assert recording.leads == ("I", "II")


def test_leads_of_different_length_end_in_nan(file: Path) -> None:
    samples = read(file, document(series(sequence_set({"I": [1, 2, 3], "II": [1, 2]})))).samples
    assert np.isnan(samples).tolist() == [[False] * 3, [False, False, True]]


def test_empty_leads_and_other_quantities_are_left_out(file: Path) -> None:
    pressure = sequence("MDC_PRESS_BLD", '<value><scale value="1" unit="mm[Hg]"/><digits>1 2 3</digits></value>')
    content = document(series(sequence_set({"I": [1, 2, 3], "II": []}, time_sequence() + pressure)))
    assert read(file, content).leads == ("I",)


def test_device_and_filters_are_in_meta(file: Path) -> None:
    meta = read(file, document(series(sequence_set({"I": [1, 2]})))).meta
    assert dict(meta) == {"device_model": "Model", "software_version": "1.2", "lowpass_hz": 150, "resolution_uv": 5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (document(series(sequence_set({"I": [1, 2]}, ""))), "time sequence"),
        (document(series(sequence_set({"I": [1, 2]}, time_sequence("0")))), "increment"),
        (document(series(sequence_set({"I": [1, 2]}, time_sequence("0.002", "")))), "increment"),
        (document(series(sequence_set({"I": [1, 2]}, time_sequence("0.002", "parsec")))), "increment"),
        (document(series(sequence_set({"I": [1, 2]}, unit=""))), "unit of voltage"),
        (document(series(sequence_set({"I": [1, 2]}, scale="0"))), "scale is 0"),
        (document(series(sequence_set({"I": [1, 2]}, scale="x"))), "not a number"),
        (document(series(sequence_set({"I": [1, 2]}, origin='<origin value="1" unit="kg"/>'))), "origin"),
        (document(series(sequence_set({"I": [1, 2]}))).replace(b"1  2", b"1  2a"), "not part of a number"),
        (document(series(sequence_set({"I": [1, 2]}))).replace(b"1  2", b"1-2"), "sign"),
        (document(series(sequence_set({"I": [1, 2]}))).replace(b"1  2", b"1,5 2,5"), "not a number"),
        (
            document(series(sequence_set({"I": [1], "I ": [2]}))).replace(b'_I "', b'_I"'),
            "channels 1 and 2 have the same lead name",
        ),
        (document(), "rhythm"),
    ],
)
def test_contradictions_are_refused(file: Path, content: bytes, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read(file, content)


def test_entity_bombs_are_refused(file: Path) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    doctype = f'<!DOCTYPE AnnotatedECG [<!ENTITY e0 "lol">{entities}]>'
    bomb = f'<?xml version="1.0"?>{doctype}<AnnotatedECG a="&e9;">&e9;</AnnotatedECG>'
    with pytest.raises(ReadError):
        read(file, bomb.encode())
