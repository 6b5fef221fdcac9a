"""Promises of the Philips reader, its encoder, and the way through the sierraecg package."""

from __future__ import annotations

import base64
import re
import struct
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgfounder.demo.philips_encoder import ENCODINGS, compress_lead, encode_sierra
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError, SettingsError, UnsupportedFormatError
from ecgfounder.readers import sierraecg_package, xml
from ecgfounder.readers.philips import reader as philips
from ecgfounder.readers.philips.xli import MAX_JUMP
from ecgfounder.readers.source import Source
from ecgfounder.storage import locate
from tests.harness.effort import measured
from tests.places import SHARED

REAL_FILES = ("129DYPRG.XML", "3191723_ZZDEMOPTONLY_1-04_orig.xml")
needs_shared = pytest.mark.skipif(not (SHARED / "ecg" / "sierra").is_dir(), reason="../shared/ecg/sierra is not here")

RELAXED = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def read(tmp_path: Path):
    """Decode the bytes of a document; `reader` is a module with `read`."""

    def decode(document: bytes, reader=philips) -> Recording:
        path = tmp_path / "ecg.xml"
        path.write_bytes(document)
        return reader.read(Source(locate(path)))

    return decode


def walk(seed: int = 0, n_samples: int = 700, n_leads: int = 12) -> npt.NDArray[np.int16]:
    """Smooth random counts, as an ECG's are."""
    steps = np.random.default_rng(seed).integers(-12, 13, (n_leads, n_samples))
    return np.cumsum(steps, axis=1).astype(np.int16)


def counts_of(recording: Recording, resolution_uv: float = 5) -> npt.NDArray[np.int64]:
    return np.rint(recording.samples.astype(np.float64) * 1000 / resolution_uv).astype(np.int64)


@cache
def document(**options) -> str:
    """A document of 700 samples as text, for tests that change something in it."""
    return encode_sierra(walk(), **options).decode("utf-8")


def with_data(text: str, data: bytes) -> bytes:
    """The document with other waveform bytes."""
    encoded = base64.b64encode(data).decode()
    return re.sub(r"(<parsedwaveforms[^>]*>)[^<]*", lambda match: match[1] + encoded, text).encode()


def data_of(text: str) -> bytes:
    found = re.search(r"<parsedwaveforms[^>]*>([^<]*)", text)
    assert found
    return base64.b64decode(found[1])


# -- Real files --------------------------------------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files_decode_to_sierraecgs_counts_exactly(name: str) -> None:
    path = SHARED / "ecg" / "sierra" / name
    recording = philips.read(Source(locate(path)))
    golden = np.load(SHARED / "golden" / "sierra.npz")[f"{path.stem}.samples"]
    assert recording.leads == STANDARD_LEADS
    assert recording.sampling_rate == 500
    np.testing.assert_array_equal(counts_of(recording), golden)
    expected = np.load(SHARED / "ecg" / "expected.npz")[f"sierra/{name}"]
    np.testing.assert_array_equal(recording.samples, expected)


@needs_shared
@pytest.mark.parametrize("name", REAL_FILES)
def test_the_package_and_the_own_decoder_give_the_same_samples_of_real_files(name: str) -> None:
    source = Source(locate(SHARED / "ecg" / "sierra" / name))
    own, package = philips.read(source), sierraecg_package.read(source)
    assert package.leads == own.leads
    assert package.sampling_rate == own.sampling_rate
    np.testing.assert_array_equal(package.samples, own.samples)


@needs_shared
@pytest.mark.parametrize(("name", "said"), [("invalid-doc-type.xml", "type"), ("invalid-doc-version.xml", "version")])
def test_other_document_types_and_versions_are_recognised_and_refused(name: str, said: str) -> None:
    source = Source(locate(SHARED / "ecg" / "sierra" / name))
    assert philips.matches(source)
    with pytest.raises(UnsupportedFormatError, match=f"document with document{said} .*, found another$"):
        philips.read(source)


@needs_shared
def test_device_and_filters_come_from_the_file_and_nothing_about_the_patient_does() -> None:
    meta = philips.read(Source(locate(SHARED / "ecg" / "sierra" / REAL_FILES[1]))).meta
    assert meta == {
        "format_version": "1.04",
        "resolution_uv": 5.0,
        "device_manufacturer": "Philips Medical Products",
        "device_model": "PageWriter Touch",
        "software_version": "A.01.01.01",
        "highpass_hz": 0.05,
        "lowpass_hz": 150.0,
    }


# -- Round trips -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", philips.DOCUMENT_VERSIONS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("compressed", [True, False])
def test_every_version_encoding_and_storage_decodes_to_what_was_encoded(read, version, encoding, compressed) -> None:
    counts = walk()
    encoded = encode_sierra(counts, version=version, encoding=encoding, compressed=compressed)
    recording = read(encoded)
    assert recording.leads == STANDARD_LEADS
    assert recording.meta["format_version"] == version
    np.testing.assert_array_equal(counts_of(recording), counts)


@st.composite
def recordings(draw: st.DrawFn, largest: int = 1 << 15) -> npt.NDArray[np.int64]:
    """Counts of 12 leads, from flat to as wild as the format allows: changes of up to 3/4 of the 16-bit range."""
    n_samples = draw(st.integers(1, 400))
    kind = draw(st.sampled_from(["flat", "walk", "noise", "rails", "repeats"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind == "flat":
        counts = np.repeat(rng.integers(-largest, largest, (12, 1)), n_samples, axis=1)
    elif kind == "walk":
        counts = np.clip(np.cumsum(rng.integers(-40, 41, (12, n_samples)), axis=1), -largest, largest - 1)
    elif kind == "noise":
        half = min(largest, MAX_JUMP // 2)
        counts = rng.integers(-half, half, (12, n_samples))
    elif kind == "rails":  # leads that fall off: from the baseline to the end of the range and back
        counts = rng.integers(-50, 50, (12, n_samples))
        counts[:, rng.random(n_samples) < 0.3] = draw(st.sampled_from([-largest, largest - 1]))
    else:
        counts = np.tile(rng.integers(-300, 300, (12, 7)), (1, n_samples // 7 + 1))[:, :n_samples]
    return counts


@RELAXED
@given(
    counts=recordings(),
    version=st.sampled_from(philips.DOCUMENT_VERSIONS),
    encoding=st.sampled_from(ENCODINGS),
    compressed=st.booleans(),
    rate=st.sampled_from([125, 250, 500, 1000, 360.5]),
)
def test_decoding_undoes_encoding_for_any_counts(read, counts, version, encoding, compressed, rate) -> None:
    encoded = encode_sierra(counts, STANDARD_LEADS, rate, version=version, encoding=encoding, compressed=compressed)
    recording = read(encoded)
    assert recording.sampling_rate == pytest.approx(rate)
    np.testing.assert_array_equal(counts_of(recording), counts)


@RELAXED
@given(counts=recordings(largest=8000), version=st.sampled_from(philips.DOCUMENT_VERSIONS))
def test_what_the_package_can_read_too_is_equal(read, counts, version) -> None:
    encoded = encode_sierra(counts, version=version)
    try:
        package = read(encoded, sierraecg_package)
    except ReadError:
        assert counts.shape[1] < 3 or np.abs(np.diff(counts, n=2)).max() > 16000  # too short, or it overflows
        return
    np.testing.assert_array_equal(package.samples, read(encoded).samples)


@RELAXED
@given(order=st.permutations(STANDARD_LEADS))
def test_limb_leads_are_restored_by_label_wherever_they_stand(read, order) -> None:
    counts = walk()
    recording = read(encode_sierra(counts, order))
    assert recording.leads == tuple(order)
    np.testing.assert_array_equal(counts_of(recording), counts)


def test_einthovens_law_holds_for_residuals_of_zero(read) -> None:
    counts = walk()
    counts[2] = counts[1] - counts[0]
    samples = read(encode_sierra(counts)).samples
    np.testing.assert_allclose(samples[2], samples[1] - samples[0], atol=1e-6)


def test_leads_beyond_the_twelve_keep_their_labels(read) -> None:
    leads = (*STANDARD_LEADS, "V3R", "V4R", "V7", "V8")
    counts = walk(n_leads=16)
    recording = read(encode_sierra(counts, leads))
    assert recording.leads == leads
    np.testing.assert_array_equal(counts_of(recording), counts)


def test_german_chest_lead_names_are_the_standard_ones(read) -> None:
    leads = tuple(lead.replace("V", "C") if lead[0] == "V" else lead for lead in STANDARD_LEADS)
    assert read(encode_sierra(walk(), leads)).leads == STANDARD_LEADS


def test_uncompressed_limb_leads_are_taken_as_they_are(read) -> None:
    counts = walk()
    recording = read(encode_sierra(counts, compressed=False))
    np.testing.assert_array_equal(counts_of(recording), counts)


@pytest.mark.parametrize("resolution", [1.25, 2.5, 5, 10, 4.88])
@pytest.mark.parametrize("version", ["1.03", "1.04"])
def test_the_resolution_is_applied(read, resolution: float, version: str) -> None:
    counts = walk()
    recording = read(encode_sierra(counts, version=version, resolution_uv=resolution))
    np.testing.assert_allclose(recording.samples, counts * resolution / 1000, rtol=2e-7)
    assert recording.meta["resolution_uv"] == resolution


def test_the_rate_is_that_of_what_is_stored_not_of_the_acquisition(read) -> None:
    text = document().replace("<samplingrate>500</samplingrate>", "<samplingrate>1000</samplingrate>")
    assert read(text.encode()).sampling_rate == 500


def test_sixteen_chunks_for_twelve_labels_are_normal_and_what_lies_behind_is_not_looked_at(read) -> None:
    data = data_of(document())
    sizes = []
    offset = 0
    while offset < len(data):
        sizes.append(struct.unpack_from("<i", data, offset)[0])
        offset += 8 + sizes[-1]
    assert len(sizes) == 16
    end = sum(sizes[:12]) + 12 * 8
    np.testing.assert_array_equal(counts_of(read(with_data(document(), data[:end] + b"garbage"))), walk())


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_byte_order_mark_is_read(read, encoding: str) -> None:
    text = document().replace('encoding="UTF-8"', 'encoding="utf-16"')
    np.testing.assert_array_equal(counts_of(read(text.encode(encoding))), walk())


@pytest.mark.parametrize(
    "declaration",
    [
        '<?xml version="1.0" encoding="utf-16"?>',
        '<?xml version="1.0" encoding="UTF-8"?>',
        "<?xml version='1.0' encoding = 'ISO-8859-1' standalone='yes'?>",
        '<?xml version="1.0"\r\n  encoding="US-ASCII" ?>',
        '<?xml version="1.0" encoding="nosuch"?>',
        '<?xml version="1.0"?>',
        "<?xml version='1.0' encoding='x' \n ?>",
        '\ufeff<?xml version="1.0" encoding="utf-16"?>',
        "\ufeff",
    ],
)
def test_in_utf_16_what_the_declaration_says_is_not_heeded(tmp_path: Path, declaration: str) -> None:
    text = re.sub(r"^<\?xml.*?\?>", "", document())
    text = re.sub(r'detaildescription="[^"]*"', 'detaildescription="Maker:\u00e9\u4e2d\U0001f600:1.0"', text, count=1)
    path = tmp_path / "ecg.xml"
    path.write_bytes((declaration + text).encode("utf-16-le"))
    machine = xml.parse(Source(locate(path))).find("{*}dataacquisition/{*}machine")
    assert machine.get("detaildescription") == "Maker:\u00e9\u4e2d\U0001f600:1.0"


@pytest.mark.parametrize(
    "declaration",
    [
        '<?xml version="1.0" encoding="UTF-16" encoding="ISO-8859-1"?>',
        '<?xml version="1.0" standalone="yes" encoding="UTF-16"?>',
        '<?xml encoding="UTF-16" version="1.0"?>',
        "<?xml version=\"1.0 encoding='x'\"?>",
        '<?xml version="1.0" encoding=""?>',
        '<?xml version="1.0" encoding=" UTF-16"?>',
        '<?xml version="1.0"\u00a0encoding="UTF-16"?>',
        '<?xml version="1.0"encoding="UTF-16"?>',
        '\ufeff\ufeff<?xml version="1.0" encoding="UTF-16"?>',
    ],
)
def test_in_utf_16_a_wrong_declaration_is_refused(tmp_path: Path, declaration: str) -> None:
    path = tmp_path / "ecg.xml"
    path.write_bytes((declaration + "<a>\u00e9</a>").encode("utf-16-le"))
    with pytest.raises(ReadError, match="not well-formed"):
        xml.parse(Source(locate(path)))


def test_in_utf_16_an_error_is_in_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "ecg.xml"
    path.write_bytes('<?xml version="1.0"\n\nencoding=\n"UTF-16"?>\n<a>\n</b>'.encode("utf-16"))
    with pytest.raises(ReadError, match=r"line 6"):
        xml.parse(Source(locate(path)))


def test_blanks_tabs_and_line_ends_in_base64_are_normal(read) -> None:
    spread = re.sub(r"(<parsedwaveforms[^>]*>)", r"\1 \t\r\n  ", document()).replace("</parsedw", "\n\t</parsedw")
    np.testing.assert_array_equal(counts_of(read(spread.encode())), walk())


def test_plain_and_hexadecimal_encodings_of_the_schema_are_read(read) -> None:
    counts = walk()
    text = document(compressed=False)
    numbers = "\n".join(" ".join(map(str, lead)) for lead in counts)
    for name, body in (("Plain", numbers), ("Hex", counts.astype("<i2").tobytes().hex())):
        changed = re.sub(r"(<parsedwaveforms[^>]*>)[^<]*", lambda match, body=body: match[1] + body, text)
        changed = changed.replace('dataencoding="Base64"', f'dataencoding="{name}"')
        np.testing.assert_array_equal(counts_of(read(changed.encode())), counts)


def test_a_signal_offset_is_subtracted(read) -> None:
    text = document(compressed=False).replace('signaloffset="0"', 'signaloffset="100"')
    np.testing.assert_array_equal(counts_of(read(text.encode())), walk().astype(int) - 100)


def test_the_reader_claims_philips_documents_only(tmp_path: Path) -> None:
    for content, expected in (
        (encode_sierra(walk()), True),
        (encode_sierra(walk(), encoding="UTF-16"), True),
        (b"<restingecgdata/>", True),
        (b"<RestingECG/>", False),
        (b'<restingecgdata xmlns="http://example.org"/>', False),
        (b"not XML", False),
        (b"", False),
    ):
        path = tmp_path / "ecg.xml"
        path.write_bytes(content)
        assert philips.matches(Source(locate(path))) is expected


# -- Damage ------------------------------------------------------------------------------------------------------------


def changed(old: str, new: str, **options) -> bytes:
    text = document(**options)
    assert old in text
    return text.replace(old, new).encode()


def chunk(codes: list[int]) -> bytes:
    """One XLI chunk of the given 10-bit codes."""
    bits = "".join(f"{code:010b}" for code in codes)
    bits += "0" * (-len(bits) % 8)
    payload = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return struct.pack("<iHh", len(payload), 1, 0) + payload


@cache
def damaged() -> dict[str, tuple[bytes, str]]:
    """Kind of damage: (document, what the error must say)."""
    text = document()
    data = data_of(text)
    n_values = 2 * walk().shape[1]
    literals = [0] * n_values
    entity = '<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
    external = '<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    wave = walk()[0]
    ramp = compress_lead(np.array([0, 3000, *[0] * (len(wave) - 2)], dtype=np.int16))[8:]
    return {
        "document type": (changed("PhilipsECG", "MortaraECG"), "documenttype SierraECG or PhilipsECG, found another$"),
        "document version": (
            changed(">1.04<", ">1.05<"),
            "documentversion 1.03, 1.04, 1.04.01, 1.04.02, found another$",
        ),
        "type is free text": (
            changed("PhilipsECG", "Jane Doe, born 1950"),
            "documenttype SierraECG or PhilipsECG, found another$",
        ),
        "no waveforms": (
            re.sub(r"<parsedwaveforms.*?</parsedwaveforms>", "", text, flags=re.S).encode(),
            "no waveforms",
        ),
        "waveforms elsewhere": (text.replace("parsedwaveforms", "unparsedwaveforms").encode(), "unparsedwaveforms"),
        "empty waveforms": (with_data(text, b""), "empty"),
        "cut in half": (text.encode()[: len(text) // 2], "not well-formed"),
        "internal entities": (text.replace("<resting", entity + "<resting").encode(), "entities"),
        "external entities": (text.replace("<resting", external + "<resting").encode(), "entities"),
        "not base64": (re.sub(r'(False">)....', r"\1!!!!", text).encode(), "not valid Base64"),
        "base64 cut": (re.sub(r"[^=]=*(</parsedwaveforms>)", r"\1", text).encode(), "not valid Base64"),
        "non-ASCII base64": (re.sub(r'(False">)....', "\\1äöüß", text).encode(), "not valid Base64"),
        "unknown encoding": (changed('dataencoding="Base64"', 'dataencoding="Base85"'), "encoding"),
        "unknown compression": (changed('"XLI"', '"Huffman"'), "not XLI"),
        "14 bits per sample": (
            changed('signed="True" bitspersample="16"', 'signed="True" bitspersample="14"'),
            "expected samples of 16 bits, found 14",
        ),
        "14-bit codes": (with_data(text, b"".join(compress_lead(lead, 14) for lead in walk())), "14-bit"),
        "duration too long": (changed('channel="1400"', 'channel="2800"'), "700 samples, but the document states 1400"),
        "duration too short": (changed('channel="1400"', 'channel="1000"'), "the document states|a stated size"),
        "endless duration": (changed('channel="1400"', 'channel="1e12"'), "not a resting ECG"),
        "no duration": (changed('durationperchannel="1400"', ""), "the duration per channel is not a number"),
        "no rate": (
            re.sub('samplespersecond="500"|<samplingrate>500</samplingrate>', "", text).encode(),
            "the sampling rate is not a number",
        ),
        "rate of zero": (changed('persecond="500"', 'persecond="0"'), "impossible sampling rate"),
        "resolution of zero": (changed('"500" resolution="5"', '"500" resolution="0"'), "impossible resolution"),
        "wrong rate": (changed('persecond="500"', 'persecond="250"'), "the document states|a stated size"),
        "a lead twice": (changed("V1 V2", "V2 V2"), "channels 7 and 8 have the same lead name"),
        "limb leads without lead I": (changed('labels="I II', 'labels="V7 II'), "lead I is not stored"),
        "minus aVR": (changed("III aVR", "III -aVR"), "-aVR"),
        "100 leads": (
            changed('numberofleads="12" leadlabels="', 'numberofleads="100" leadlabels="' + "A " * 100),
            "1 to 32",
        ),
        "more labels than leads": (
            with_data(
                changed('numberofleads="12" leadlabels="', 'numberofleads="17" leadlabels="A B C D E ').decode(), data
            ),
            "truncated: they have 16 of 17 leads",
        ),
        "truncated data": (with_data(text, data[: len(data) // 3]), "truncated"),
        "truncated header": (with_data(text, data[:5]), "truncated: they have 0 of 12 leads"),
        "negative size": (with_data(text, struct.pack("<i", -1) + data[4:]), "a stated size of -1 bytes"),
        "size of zero": (with_data(text, struct.pack("<i", 0) + data[4:]), "a stated size of 0 bytes"),
        "size of 2 GiB": (
            with_data(text, struct.pack("<i", 2**31 - 1) + data[4:]),
            "a stated size of 2147483647 bytes",
        ),
        "first code is no literal": (with_data(text, chunk([256, *literals, 1023]) * 12), "invalid LZW code"),
        "a code of the future": (with_data(text, chunk([1, 2, 900, *literals, 1023]) * 12), "invalid LZW code"),
        "ends at once": (with_data(text, chunk([1023, *literals]) * 12), "0 samples"),
        "ends early": (with_data(text, chunk([*literals[:100], 1023]) * 12), "50 samples, but the document states 700"),
        "a lead shorter": (
            with_data(text, compress_lead(wave) * 3 + compress_lead(wave[:-5]) + compress_lead(wave) * 8),
            "lead 4",
        ),
        "a ramp over the range's end": (with_data(text, (struct.pack("<iHh", len(ramp), 1, 0) + ramp) * 12), "jumps"),
        "uncompressed, cut": (
            with_data(document(compressed=False), data_of(document(compressed=False))[:-2]),
            "but the document states 12 leads of 700 samples",
        ),
        "uncompressed, odd": (
            with_data(document(compressed=False), data_of(document(compressed=False))[:-1]),
            "whole number of 16-bit",
        ),
        "uncompressed, a lead missing": (
            with_data(document(compressed=False), data_of(document(compressed=False))[: 11 * 1400]),
            "but the document states 12 leads of 700 samples",
        ),
        "no labels and an unknown set": (
            changed("STD-12<", "EASI<", version="1.03"),
            "does not give the order of leads",
        ),
        "XLI with an offset": (changed('signaloffset="0"', 'signaloffset="7"'), "signal offset"),
        "an endless offset": (changed('signaloffset="0"', 'signaloffset="1e300"', compressed=False), "signal offset"),
        "plain text of words": (
            re.sub(
                r"(<parsedwaveforms[^>]*>)[^<]*",
                r"\1one two three",
                document(compressed=False).replace("Base64", "Plain"),
            ).encode(),
            "not a list of whole numbers",
        ),
    }


@pytest.mark.parametrize("kind", sorted(damaged()))
def test_each_kind_of_damage_is_refused_at_once_with_what_is_wrong(read, kind: str) -> None:
    content, said = damaged()[kind]
    with measured() as effort, pytest.raises(ReadError, match=said) as caught:
        read(content)
    assert effort.lines < 200_000
    assert effort.peak_bytes < 4 << 20
    assert "Jane" not in str(caught.value)


def test_a_bomb_of_long_strings_is_refused_before_it_is_unpacked(read) -> None:
    # Codes 256 to 1022 of a run of zeros stand for ever longer strings; the last one for 768 bytes.
    n_samples = 1 << 17
    codes = [0, *range(256, 1023), *[1022] * (2 * n_samples - 800)]
    text = document().replace('channel="1400"', f'channel="{n_samples * 2}"')
    content = with_data(text, chunk(codes) * 12)
    with measured() as effort, pytest.raises(ReadError, match="more samples than the document states"):
        read(content)
    assert effort.lines < 200_000
    assert effort.peak_bytes < 64 << 20  # unpacked, each lead has 200 MB


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_mutation_hangs_or_raises_anything_but_read_errors(read, encoding: str, compressed: bool) -> None:
    whole = encode_sierra(walk(n_samples=300), encoding=encoding, compressed=compressed)
    rng = np.random.default_rng([len(whole), compressed])
    for _ in range(120):
        mutated = bytearray(whole)
        for _ in range(rng.integers(1, 6)):
            place = int(rng.integers(len(mutated)))
            match int(rng.integers(4)):
                case 0:
                    mutated[place] = int(rng.integers(256))
                case 1:
                    del mutated[place : place + int(rng.integers(1, 200))]
                case 2:
                    mutated[place:place] = mutated[place // 2 : place // 2 + int(rng.integers(1, 50))]
                case _:
                    mutated[place] = int(rng.choice(list(b'0123456789ABCxyz"<>/ =')))
        with measured() as effort, suppress(ReadError):
            assert np.isfinite(read(bytes(mutated)).samples).all()
        assert effort.lines < 200_000
        assert effort.peak_bytes < 8 << 20


def test_flipped_payload_bits_are_noticed_or_leave_16_bit_samples(read) -> None:
    text = document()
    data = data_of(text)
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(150):
        flipped = bytearray(data)
        flipped[int(rng.integers(len(data) // 2))] ^= 1 << int(rng.integers(8))
        try:
            read(with_data(text, bytes(flipped)))
        except ReadError:
            refused += 1
    assert refused > 50


# -- The encoder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"version": "1.05"}, "version"),
        ({"encoding": "latin-1"}, "encoding"),
        ({"leads": STANDARD_LEADS[:11]}, "11 leads"),
        ({"leads": ("II", "I", *STANDARD_LEADS[2:]), "version": "1.03"}, "does not name its leads"),
        ({"leads": ("V7", *STANDARD_LEADS[1:])}, "without I"),
        ({"leads": ('I"', *STANDARD_LEADS[1:])}, "letters"),
        ({"counts": np.full((12, 9), 40000)}, "int16"),
        ({"counts": np.zeros((12, 9))}, "whole numbers"),
        ({"counts": np.tile([-30000, 30000], (12, 5))}, "may change by"),
    ],
)
def test_the_encoder_refuses_what_the_format_cannot_hold(options: dict, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        encode_sierra(**{"counts": walk(), **options})


# -- The package -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["cut in half", "not base64", "truncated data", "document version", "internal entities"]
)
def test_whatever_leaks_from_the_package_is_a_read_error(read, kind: str) -> None:
    with pytest.raises(ReadError, match="sierraecg package"):
        read(damaged()[kind][0], sierraecg_package)


def test_the_package_is_not_given_gzip_or_huge_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ecg.xml"
    path.write_bytes(b"\x1f\x8b" + b"\0" * 50)
    with pytest.raises(ReadError, match="gzip"):
        sierraecg_package.read(Source(locate(path)))
    path.write_bytes(encode_sierra(walk()))
    monkeypatch.setattr(sierraecg_package, "MAX_FILE_BYTES", 1000)
    with pytest.raises(ReadError, match="at most 1,000"):
        sierraecg_package.read(Source(locate(path)))


def test_the_package_is_taken_at_5_uv_whatever_the_file_says(read) -> None:
    recording = read(encode_sierra(walk(), resolution_uv=2.5), sierraecg_package)
    np.testing.assert_array_equal(counts_of(recording, 5), walk())
