"""Repositories of the Hugging Face Hub, by a stand-in: URLs, commits that are held, pages, redirections, tokens, trouble."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from ecgfounder.errors import CheckpointError, SettingsError
from ecgfounder.network.checkpoint import find_checkpoint
from ecgfounder.storage import (
    Conflict,
    Denied,
    Missing,
    Unavailable,
    bucket_of,
    held_at_commit,
    locate,
    locate_output,
    path_here,
    release_commits,
)
from ecgfounder.storage import hub as module
from ecgfounder.storage.hub import HubStore
from tests.harness.hub_server import LARGE_BYTES, TOKEN, Hub, tag_of

pytestmark = pytest.mark.services

LARGE = bytes(range(256)) * (LARGE_BYTES // 256 + 1)
FILES = {
    "study/a.xml": b"first",
    "study/b/c.xml": b"second",
    "study2/d.xml": b"third",
    "large.bin": LARGE,
    "empty": b"",
}


@pytest.fixture
def dataset(hub: Hub) -> str:
    """The URL of a dataset's repository."""
    hub.new("datasets/clinic/ecgs", dict(FILES))
    return "hf://datasets/clinic/ecgs"


def paths(hub: Hub) -> list[str]:
    return [request.path.partition("?")[0] for request in hub.requests]


# --- URLs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "store", "name"),
    [
        ("hf://datasets/o/n", HubStore("dataset", "o/n"), ""),
        ("hf://datasets/o/n/", HubStore("dataset", "o/n"), ""),
        ("HF://datasets/o/n/a b/50%20.xml", HubStore("dataset", "o/n"), "a b/50%20.xml"),
        ("hf://o/n/f.pth", HubStore("model", "o/n"), "f.pth"),
        ("hf://o/n.x@v1.0/f@2.pth", HubStore("model", "o/n.x", "v1.0"), "f@2.pth"),
        ("hf://datasets/o/n@refs/convert/parquet/a.xml", HubStore("dataset", "o/n", "refs/convert/parquet"), "a.xml"),
        ("hf://datasets/o/n@refs%2Fpr%2F1/a.xml", HubStore("dataset", "o/n", "refs/pr/1"), "a.xml"),
    ],
)
def test_a_url_names_a_repository_a_revision_and_a_file(url: str, store: HubStore, name: str) -> None:
    place = locate(url)
    assert (place.store, place.name) == (store, name)
    assert locate(str(place)) == place
    assert pickle.loads(pickle.dumps(place)) == place


@pytest.mark.parametrize(
    "url",
    [
        *("hf://", "hf://gpt2", "hf://datasets/o", "hf://spaces/o/n/x", "hf:///o/n", "hf://o /n/x", "hf://o/n@/x"),
        *("hf://datasets/o/n/../x", "hf://datasets/o/n/a//b", f"hf://me:{TOKEN}@o/n", f"hf://{TOKEN}@datasets/o/n"),
        *("hf://o/n--x/a", "hf://datasets/o/n.git/a", f"hf://o/{'n' * 97}/a", "hf://o/.n/a"),
    ],
)
def test_another_url_is_refused_before_any_request(hub: Hub, url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        locate(url)
    assert TOKEN not in str(refused.value)
    assert not hub.requests


@pytest.mark.parametrize(
    ("url", "bucket"),
    [
        ("s3://bucket/a/b", "s3://bucket"),
        ("hf://datasets/o/n@main/a/b", "hf://datasets/o/n@main"),
        ("hf://o/n/a", "hf://o/n"),
        ("hf://o/n", "hf://o/n"),
    ],
)
def test_access_is_judged_by_repository(url: str, bucket: str) -> None:
    assert bucket_of(url) == bucket


def test_nothing_is_written(dataset: str) -> None:
    place = locate(f"{dataset}/new.xml")
    for write in (lambda: place.put(b""), lambda: place.create(b""), lambda: place.folder.delete(["a"])):
        with pytest.raises(Denied, match="are not written to"):
            write()
    with pytest.raises(SettingsError, match="hf:// is not supported"):
        path_here(dataset, "output_dir")
    with pytest.raises(SettingsError, match="not written to repositories of the Hugging Face Hub"):
        locate_output(dataset)


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_listing_has_pages_sizes_and_tags(hub: Hub, dataset: str) -> None:
    hub.page = 2
    found = {status.name: (status.size, status.tag) for status in locate(dataset).list()}
    assert found == {name: (len(data), tag_of(data)) for name, data in FILES.items()}
    assert sum("/tree/" in path for path in paths(hub)) == 3
    assert list(locate(f"{dataset}/study").names()) == ["a.xml", "b/c.xml"]
    assert list(locate(f"{dataset}/gone").names()) == list(locate(f"{dataset}/stud").names()) == []
    assert [locate(f"{dataset}/{name}").is_folder() for name in ("", "study", "stud", "empty")] == [
        True,
        True,
        False,
        False,
    ]


def test_small_and_large_files_have_the_tag_of_the_listing_however_they_are_asked_for(dataset: str) -> None:
    for status in locate(dataset).list():
        place, data = locate(f"{dataset}/{status.name}"), FILES[status.name]
        assert place.status() == status
        assert place.fetch(1 << 20) == (status, data)
        assert place.fetch(3) == (status, data if len(data) <= 3 else None)
        for some in ((0, None), (1, 3), (2, None), (90, 9_000_000), (9_000_000, None)):
            assert place.read(*some, tag=status.tag) == data[slice(*some)]
            with pytest.raises(Conflict):
                place.read(*some, tag="another")


def test_a_recording_takes_one_request_and_a_large_file_one_more_elsewhere(hub: Hub, dataset: str) -> None:
    locate(dataset).store.commit()  # type: ignore[attr-defined]
    del hub.requests[:]
    locate(f"{dataset}/study/a.xml").fetch(1000)
    assert len(hub.requests) == 1
    locate(f"{dataset}/large.bin").fetch(1 << 20)
    assert (len(hub.requests), len(hub.elsewhere)) == (2, 1)


def test_a_container_that_is_too_large_to_fetch_is_not_begun_for_each_of_its_records(hub: Hub, dataset: str) -> None:
    place = locate(f"{dataset}/large.bin")
    first = place.fetch(100)
    assert first == (place.status(), None)
    n_requests = len(hub.requests)
    assert [place.fetch(100) for _ in range(3)] == [first] * 3
    assert len(hub.requests) == n_requests
    assert place.fetch(1 << 20) == (first[0], LARGE)


def test_a_token_goes_to_the_hub_and_not_to_the_server_of_large_files(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.new("datasets/clinic/gated", dict(FILES), gated=True)
    place = locate("hf://datasets/clinic/gated/large.bin")
    with pytest.raises(Denied, match=r"status 401.*its owner must grant access; there is no token \(set HF_TOKEN"):
        place.read()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert place.read() == LARGE
    assert place.status().size == len(LARGE)
    assert hub.requests[-1].headers["authorization"] == f"Bearer {TOKEN}"
    assert "authorization" not in hub.elsewhere[-1].headers


# --- commits ---------------------------------------------------------------------------------------------------------


def test_files_stay_those_of_the_commit_that_was_first_seen(hub: Hub, dataset: str) -> None:
    place = locate(f"{dataset}/study/a.xml")
    assert place.read() == b"first"
    repository = hub.repositories["datasets/clinic/ecgs"]
    first = repository.branches["main"]
    second = repository.commit({"study/a.xml": b"changed"})
    assert place.read() == b"first"
    assert len(list(locate(dataset).names())) == len(FILES)
    assert paths(hub).count("/api/datasets/clinic/ecgs") == 1
    assert held_at_commit(f"{dataset}/study/a.xml") == f"{dataset}@{first}/study/a.xml"
    assert locate(f"{dataset}@{second}/study/a.xml").read() == b"changed"
    release_commits()
    assert place.read() == b"changed"


def test_a_url_that_holds_a_commit_needs_no_other_request(hub: Hub, dataset: str) -> None:
    url = held_at_commit(f"{dataset}/study/a.xml")
    archived = held_at_commit(f"{dataset}/s.zip::a/b.xml")
    assert archived == f"{dataset}@{url.partition('@')[2][:40]}/s.zip::a/b.xml"
    assert held_at_commit(url) == url
    release_commits()
    del hub.requests[:]
    assert locate(url).read() == b"first"
    assert len(hub.requests) == 1


@pytest.mark.parametrize("path", ["/a/b.xml", "s3://bucket/hf://o/n/a", "a.xml", "hf:o/n", "hf://o"])
def test_other_paths_stay_as_they_are(path: str) -> None:
    assert held_at_commit(path) == path


def test_a_url_whose_commit_cannot_be_found_stays_as_it_is(hub: Hub) -> None:
    assert held_at_commit("hf://datasets/clinic/none/a.xml") == "hf://datasets/clinic/none/a.xml"
    with pytest.raises(Denied, match="access denied, or there is no such repository"):
        locate("hf://datasets/clinic/none/a.xml").read()


# --- trouble ---------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_told_apart(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(Missing, match="no such object"):
        locate(f"{dataset}/gone").read()
    with pytest.raises(Missing, match="no such revision"):
        locate(f"{dataset}@gone/study/a.xml").read()
    for ask in (lambda place: place.read(), lambda place: list(place.names()), lambda place: place.is_folder()):
        with pytest.raises(Missing, match="no such repository, or it is private"):
            ask(locate("hf://datasets/clinic/none/a"))


@pytest.mark.parametrize("status", [408, 429, 500, 503, 504])
def test_trouble_that_passes_is_waited_for(
    hub: Hub, dataset: str, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT", 0.001)
    for ask, expected in (
        (lambda: list(locate(f"{dataset}/study").names()), ["a.xml", "b/c.xml"]),
        (locate(f"{dataset}/study/a.xml").read, b"first"),
        (lambda: locate(f"{dataset}/study/a.xml").status().size, 5),
    ):
        left = [status, status]
        hub.rule = lambda _request, left=left: left.pop() if left else None
        assert ask() == expected
        assert not left


def test_trouble_that_does_not_pass_ends_within_the_budget_and_quotes_nothing(
    hub: Hub, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PATIENCE", (1.0, 3, 0.05))
    monkeypatch.setattr(module, "PATIENCE", (1.0, 3, 0.05))
    monkeypatch.setattr(module, "_FIRST_WAIT", 0.01)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    place = locate(f"{dataset}/study/a.xml")
    place.read()
    del hub.requests[:]
    hub.rule = lambda _request: 503
    with pytest.raises(Unavailable, match=r"^the Hub answers with an error \(status 503\)$"):
        place.read()
    assert 2 <= len(hub.requests) <= 4
    hub.rule, hub.advice = lambda _request: 429, {"RateLimit": '"resolvers";r=0;t=240'}
    del hub.requests[:]
    with pytest.raises(Unavailable, match=r"^the Hub gets too many requests \(status 429\)$"):
        place.read()
    assert len(hub.requests) == 1  # it asked for more time than there is
    hub.rule = lambda _request: 400
    with pytest.raises(Unavailable, match=r"\(status 400\)$"):
        place.read()
    assert len(hub.requests) == 2
    hub.rule = lambda _request: 403
    with pytest.raises(Denied, match=r"^access denied \(status 403\)$"):
        place.read()


@pytest.mark.parametrize(
    "ask", [lambda place: place.read(), lambda place: place.status(), lambda place: list(place.folder.names())]
)
def test_an_endpoint_that_is_no_hub_or_does_not_answer_is_trouble(
    hub: Hub, dataset: str, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Any], Any]
) -> None:
    monkeypatch.setattr(module, "FIRST_PATIENCE", (0.1, 1, 0.05))
    monkeypatch.setattr(module, "PATIENCE", (0.1, 1, 0.05))
    place = locate(f"{dataset}/study/a.xml")
    place.status()
    hub.rule = lambda _request: time.sleep(0.3)  # type: ignore[func-returns-value]
    with pytest.raises(Unavailable, match="the Hub does not answer: no answer in time"):
        ask(place)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match="the Hub does not answer: no connection"):
        ask(place)


def test_a_body_that_breaks_off_or_is_of_another_range_is_asked_for_again(
    hub: Hub, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Answer:
        status_code, history, url, links = 206, (), hub.endpoint, {}

        def __init__(self, content: bytes, told: str) -> None:
            self.content, self.headers = content, {"Content-Range": told}

    for content, told in ((b"ab", "bytes 0-2/9"), (b"ab", "bytes 0-1/9"), (b"abc", "bytes 1-3/9"), (b"abc", "")):
        with pytest.raises(Unavailable):
            module._content_of(Answer(content, told), 0, 3)
    content = module._content_of(Answer(b"abc", "bytes 0-2/9"), 0, 3)
    assert content is not None
    assert (content.data, content.size) == (b"abc", 9)


def test_a_listing_that_never_ends_or_lies_is_trouble(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", (1.0, 0, 0.0))
    locate(dataset).is_folder()
    for page in (
        ([{"type": "file", "path": "a", "size": 1, "oid": "x"}], {"recursive": "true"}),
        ([{"type": "file", "path": "a", "size": -1, "oid": "x"}], None),
        ([{"type": "file", "path": 5, "size": 1, "oid": "x"}], None),
        ([{"type": "file", "path": "a", "size": 1, "oid": "x", "lfs": {}}], None),
    ):
        monkeypatch.setattr(module, "_page_of", lambda _answer, page=page: page)
        with pytest.raises(Unavailable, match="not one of the Hub"):
            list(locate(dataset).list())


def test_a_listing_of_which_a_later_page_is_missing_is_trouble_and_not_shorter(hub: Hub, dataset: str) -> None:
    hub.page = 2
    hub.rule = lambda request: 404 if "cursor=2" in request.path else None
    with pytest.raises(Unavailable, match="not one of the Hub"):
        list(locate(dataset).list())


def test_without_the_network_it_is_said_at_once(dataset: str) -> None:
    code = f"from ecgfounder.storage import locate; locate('{dataset}/study/a.xml').read()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr.splitlines()[-1].endswith(
        "Unavailable: HF_HUB_OFFLINE is set: no file of the Hugging Face Hub is read"
    )


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_copied_once_and_again_when_it_has_changed(hub: Hub) -> None:
    repository = hub.new("models/lab/net", {"12_lead_ECGFounder.pth": LARGE, "other.pth": b"other"})
    path = find_checkpoint("hf://lab/net/12_lead_ECGFounder.pth", "12lead")
    assert path.read_bytes() == LARGE
    assert find_checkpoint("hf://lab/net", "12lead").read_bytes() == LARGE
    n_requests = len(hub.elsewhere)
    assert find_checkpoint("hf://lab/net/12_lead_ECGFounder.pth", "12lead") == path
    assert len(hub.elsewhere) == n_requests
    repository.commit({"12_lead_ECGFounder.pth": LARGE[::-1]})
    release_commits()
    again = find_checkpoint("hf://lab/net/12_lead_ECGFounder.pth", "12lead")
    assert (again != path, again.read_bytes()) == (True, LARGE[::-1])
    with pytest.raises(CheckpointError, match="there is no such file"):
        find_checkpoint("hf://lab/net/none.pth", "12lead")
