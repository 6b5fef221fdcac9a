"""Files of every format are read from an object store as from a folder; faults of a store are none of a file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from ecgfounder.errors import ReadError
from ecgfounder.readers import make_source, read_ecg, read_source
from ecgfounder.readers.identity import identity_of
from ecgfounder.readers.source import SMALL_BYTES, Hints
from ecgfounder.storage import Denied, Unavailable, locate
from tests.builders.originals import ALL_SAID, Original, built
from tests.harness.object_server import Gateway, Request

pytestmark = pytest.mark.services

ORIGINALS = {f"{original.format} {original.name}": original for original in built()}


def upload(original: Original, folder: str) -> str:
    """Put a recording's files below a URL; returns the URL to read."""
    for name, data in original.files.items():
        locate(f"{folder}/{name}").put(data)
    return f"{folder}/{original.opened}"


@pytest.mark.parametrize("name", ORIGINALS)
def test_a_recording_of_a_bucket_is_that_of_the_folder(name: str, bucket: str, tmp_path: Path) -> None:
    original = ORIGINALS[name]
    here = make_source(original.write(tmp_path), original.hints)
    there = make_source(upload(original, f"s3://{bucket}/a folder+ü%20#1"), original.hints)
    expected, found = (read_source(source, reader=original.reader) for source in (here, there))
    np.testing.assert_array_equal(found.samples, expected.samples)
    assert (found.leads, found.sampling_rate, found.source_format) == (
        expected.leads,
        expected.sampling_rate,
        expected.source_format,
    )
    known, remote = identity_of(here), identity_of(there)
    assert (remote.size, remote.sha256, remote.companions) == (known.size, known.sha256, known.companions)
    assert known.tag is None
    assert remote.tag == " ".join(location.status().tag for location in there.files)


def requests_for(original: Original, opened: str, bucket: str, gateway: Gateway) -> list[str]:
    """The requests for a recording and its identity."""
    upload(original, f"s3://{bucket}/x")
    del gateway.requests[:]
    source = make_source(f"s3://{bucket}/x/{opened}", original.hints)
    read_source(source)
    identity_of(source)
    return [f"{request.method} {request.key.rpartition('/')[2]}" for request in gateway.requests]


def test_a_file_is_read_with_one_request_and_a_wfdb_record_with_one_for_each_of_its_files(
    bucket: str, gateway: Gateway
) -> None:
    wfdb = ORIGINALS["wfdb format 16"]
    for name in ("ge_muse checked", "dicom explicit", "npy float64", "csv named columns", "hdf5 one"):
        assert requests_for(ORIGINALS[name], "x", bucket, gateway) == ["GET x"]
    assert requests_for(wfdb, "r.hea", bucket, gateway) == ["GET r.hea", "GET r.dat"]
    by_name = requests_for(wfdb, "r", bucket, gateway)
    assert by_name == ["GET r", "GET r.hea", "GET r.dat"]


def many_exams(n_exams: int) -> bytes:
    """A file of many recordings with random samples, 2 MB in ten of them."""
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["exam_id"] = np.arange(n_exams)
        file["tracings"] = np.random.default_rng(0).standard_normal((n_exams, 4096, 12)).astype("f4")
    return content.getvalue()


def test_a_recording_of_a_large_container_is_read_in_ranges(bucket: str, gateway: Gateway, tmp_path: Path) -> None:
    content = many_exams(200)
    locate(f"s3://{bucket}/exams.hdf5").put(content)
    (tmp_path / "exams.hdf5").write_bytes(content)
    assert len(content) > 8 * SMALL_BYTES
    for exam in (0, 150):
        del gateway.requests[:]
        source = make_source(f"s3://{bucket}/exams.hdf5::tracings/{exam}", ALL_SAID)
        found = read_source(source)
        identity = identity_of(source)
        expected = read_ecg(tmp_path / f"exams.hdf5::tracings/{exam}", hints=ALL_SAID)
        np.testing.assert_array_equal(found.samples, expected.samples)
        assert (identity.size, identity.sha256) == (len(content), None)
        ranges = [request.range for request in gateway.requests if request.range]
        asked = sum(int(stop) + 1 - int(start) for start, stop in (each[6:].split("-") for each in ranges))
        assert asked < 4 << 20
        assert len(gateway.requests) <= 6, gateway.requests


def test_an_object_that_is_not_there_is_a_fault_of_the_file(bucket: str) -> None:
    with pytest.raises(ReadError, match=f"s3://{bucket}/gone.xml: no such object"):
        read_ecg(f"s3://{bucket}/gone.xml")
    with pytest.raises(ReadError, match="there is no such bucket"):
        read_ecg("s3://no-such-bucket-anywhere/gone.xml")


def test_an_answer_that_does_not_come_is_no_fault_of_the_file(bucket: str, gateway: Gateway) -> None:
    url = upload(ORIGINALS["ge_muse checked"], f"s3://{bucket}/x")
    gateway.rule = lambda _request: 403
    with pytest.raises(Denied, match=r"access denied \(status 403\)"):
        read_ecg(url)
    gateway.rule = lambda _request: 400
    with pytest.raises(Unavailable, match="the store answers with an error"):
        read_ecg(url)


def test_a_store_that_fails_within_a_container_is_no_fault_of_the_file(bucket: str, gateway: Gateway) -> None:
    content = many_exams(30)
    locate(f"s3://{bucket}/exams.hdf5").put(content)

    def deny_what_is_far(request: Request) -> int | None:
        start = request.range.removeprefix("bytes=").partition("-")[0]
        return 403 if start and int(start) > 1 << 20 else None

    gateway.rule = deny_what_is_far
    with pytest.raises(Denied, match="exams"):
        read_ecg(f"s3://{bucket}/exams.hdf5::tracings/29", hints=ALL_SAID)


def test_an_object_that_is_replaced_while_it_is_read_is_a_fault_of_the_file(bucket: str, gateway: Gateway) -> None:
    url = f"s3://{bucket}/exams.hdf5"
    content = many_exams(30)
    locate(url).put(content)

    def replace(request: Request) -> None:
        if request.range.startswith("bytes=0-5"):  # when the container is open
            locate(url).put(content[:-1] + b"x")  # an error in here breaks the request, which is then repeated
            gateway.rule = lambda _request: None

    gateway.rule = replace
    with pytest.raises(ReadError, match="it changed while it was read"):
        read_ecg(f"{url}::tracings/29", hints=ALL_SAID)


@pytest.mark.parametrize("key", ["a//b.xml", "./a.xml", "a/../b.xml", "/a.xml", "a/./b.xml"])
def test_a_key_that_cannot_be_named_is_refused_in_one_line(key: str, bucket: str) -> None:
    with pytest.raises(Exception, match="this key cannot be read") as refused:
        read_ecg(f"s3://{bucket}/{key}")
    assert "\n" not in str(refused.value)


def test_hints_are_used_as_for_files(bucket: str) -> None:
    url = upload(ORIGINALS["npy float64"], f"s3://{bucket}/x")
    assert read_ecg(url, hints=ALL_SAID).sampling_rate == 500
    with pytest.raises(ReadError, match="does not name the leads"):
        read_ecg(url, hints=Hints())
