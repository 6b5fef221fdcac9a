"""The store for files of a repository on the Hugging Face Hub, which is only read; through huggingface_hub's session.

In: names of files in a dataset's or a model's repository. Out: bytes, size, and the hash of the content as tag. A branch is
looked up once per process, and all files are those of that commit; a URL of `held_at_commit` names it for others.

Listings and ranges are asked for with the session of huggingface_hub and not with `HfApi.list_repo_tree` and `HfFileSystem`:
these have no time limit, or retry within our retries, or ask for a file's folder before the file.
"""

from __future__ import annotations

import importlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from ecgfounder.errors import SettingsError, StorageError
from ecgfounder.storage.connect import waiting
from ecgfounder.storage.objects import is_key
from ecgfounder.storage.store import (
    Conflict,
    Denied,
    Missing,
    Skip,
    Status,
    Store,
    Unavailable,
    kept_below,
    skip_none,
    walk_text,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")

HUB_SCHEME = "hf"

FIRST_PATIENCE = 10.0, 3, 10.0
"""Seconds without a byte, retries and seconds for retries, of an endpoint that has not answered yet."""
PATIENCE = 30.0, 10, 60.0
"""The same for one that has answered."""

_REPOSITORY = re.compile(
    r"(?P<kind>datasets/)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/(?:convert/[^/:]+|pr/\d+)|[^/]+))?(?=/|::|\Z)"
)
_URL = re.compile(HUB_SCHEME + "://(?=[^/])", re.IGNORECASE)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OTHER_KINDS = ("spaces", "buckets", "kernels", "models")
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 8.0
_RESET = re.compile(r";\s*t\s*=\s*(\d{1,6})")


@dataclass(frozen=True)
class HubStore(Store):
    """The files of one repository.

    Attributes
    ----------
    kind : str
        "dataset" or "model".
    repo : str
        "OWNER/NAME".
    revision : str
        A branch, a tag or a commit; "" for the default branch.
    """

    kind: str
    repo: str
    revision: str = ""

    def url(self, name: str) -> str:
        at = f"@{quote(self.revision, safe='')}" if self.revision else ""
        return f"{HUB_SCHEME}://{'datasets/' if self.kind == 'dataset' else ''}{self.repo}{at}/{name}"

    def commit(self) -> str:
        """The commit that the revision was when this process first asked for it."""
        if _COMMIT.fullmatch(self.revision):
            return self.revision
        key = (_endpoint(), self)
        if key not in _commits:
            found = _ask(self._look_up)
            with _lock:
                _commits.setdefault(key, found)
        return _commits[key]

    def _look_up(self, api: HfApi, seconds: float) -> str:
        expand: Any = ["sha"]  # a repository's whole description lists all its files
        told = api.repo_info(
            self.repo, revision=self.revision or None, repo_type=self.kind, timeout=seconds, expand=expand
        )
        if not isinstance(told.sha, str) or not _COMMIT.fullmatch(told.sha):
            raise Unavailable(_NOT_A_HUB)
        return told.sha

    def list(self, folder: str = "", *, skip: Skip = skip_none) -> Iterator[Status]:
        kept = kept_below(folder, skip)
        found = [status for status in self.unsorted(folder) if kept(status.name)]
        return iter(sorted(found, key=lambda status: walk_text(status.name)))

    def unsorted(self, folder: str = "") -> Iterator[Status]:
        for page in self._pages(folder.strip("/"), recursive=True):
            yield from (_status_of(each) for each in page if each.get("type") == "file")

    def is_folder(self, name: str) -> bool:
        return any(self._pages(name.strip("/"), recursive=False))

    def _pages(self, folder: str, *, recursive: bool) -> Iterator[Sequence[dict[str, Any]]]:
        """What is in a folder, by pages; nothing if there is no such folder."""
        if folder and not is_key(folder):
            return
        below = f"/{quote(folder)}" if folder else ""
        at = f"/api/{self.kind}s/{self.repo}/tree/{self.commit()}{below}"
        more: dict[str, str] | None = {"recursive": "true"} if recursive else {}
        while more is not None:
            asked = more

            def get(api: HfApi, seconds: float, asked: Mapping[str, str] = asked) -> _Page:
                return _page_of(_get(f"{api.endpoint}{at}", seconds, asked))

            try:
                page, more = _ask(get)
            except Missing as error:
                if isinstance(error, _NoRepository):
                    raise
                return
            if more == asked:
                raise Unavailable(_NOT_A_HUB)
            yield page

    def status(self, name: str) -> Status:
        url = self._address(name)

        def head(api: HfApi, seconds: float) -> Status:
            told = api.get_hf_file_metadata(url=url, timeout=seconds)
            if told.size is None or not told.etag:
                raise Unavailable(_NOT_A_HUB)
            return Status(name, told.size, told.etag, 0)

        return _ask(head)

    def read(self, name: str, start: int = 0, stop: int | None = None, *, tag: str | None = None) -> bytes:
        if stop is not None and stop <= start:
            return self._nothing(name, tag)
        content = self._content(name, start, stop)
        if content is None:
            return self._nothing(name, tag)
        if tag is not None and content.tag not in ("", tag):
            self._refuse(name)
        return content.data

    def fetch(self, name: str, most: int) -> tuple[Status, bytes | None]:
        key = (_endpoint(), self, self.commit(), name)
        if key in _large and _large[key].size > most:
            return _large[key], None
        content = self._content(name, 0, max(1, most)) or _Content(b"", 0, "")
        status = Status(name, content.size, content.tag, 0) if content.tag else self.status(name)
        if content.size <= most:
            return status, content.data
        if len(_large) < _MOST_LARGE:
            _large[key] = status
        return status, None

    def _content(self, name: str, start: int, stop: int | None) -> _Content | None:
        """Bytes of a file; None if it ends before `start`."""
        url = self._address(name)
        headers = {} if start == 0 and stop is None else {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
        return _ask(lambda _api, seconds: _content_of(_get(url, seconds, headers=headers), start, stop))

    def _nothing(self, name: str, tag: str | None) -> bytes:
        if tag not in (None, self.status(name).tag):
            self._refuse(name)
        return b""

    def _refuse(self, name: str) -> NoReturn:
        raise Conflict(f"{self.url(name)}: it changed while it was read")

    def _address(self, name: str) -> str:
        from huggingface_hub import hf_hub_url

        if not is_key(name):
            raise Missing("no object can have this name")
        return hf_hub_url(self.repo, name, repo_type=self.kind, revision=self.commit(), endpoint=_endpoint())

    def put(self, name: str, data: bytes) -> Status:
        raise Denied(f"{self.url(name)}: repositories of the Hugging Face Hub are not written to")

    def create(self, name: str, data: bytes) -> Status:
        return self.put(name, data)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            self.put(name, b"")


# --- URLs ------------------------------------------------------------------------------------------------------------


def hub_location(url: str, rest: str) -> tuple[HubStore, str]:
    """The store and the name of a file or a folder, from a URL and what follows its 'hf://'.

    Raises
    ------
    SettingsError
        If the URL names no repository, or a file that cannot be named.
    """
    found = _REPOSITORY.match(rest)
    if found is None or not _is_repository(found):
        raise SettingsError(
            f"{HUB_SCHEME}://{rest.rpartition('@')[2]}: expected hf://datasets/OWNER/NAME/path, or hf://OWNER/NAME/path of a "
            "model, each with @REVISION after NAME if need be. A dataset of the Hub is also named without hf://."
        )
    name = rest[found.end() :].strip("/")
    if name and not is_key(name):
        raise SettingsError(f"{url}: its parts between slashes must not be empty, '.' or '..'")
    return _store_of(found), name


def _is_repository(found: re.Match[str]) -> bool:
    utils: Any = importlib.import_module("huggingface_hub.utils")
    if found["kind"] is None and found["repo"].partition("/")[0] in ("datasets", *_OTHER_KINDS):
        return False
    try:
        utils.validate_repo_id(found["repo"])
    except ValueError:
        return False
    return True


def _store_of(found: re.Match[str]) -> HubStore:
    return HubStore("dataset" if found["kind"] else "model", found["repo"], unquote(found["revision"] or ""))


def held_at_commit(url: str) -> str:
    """A URL with the commit that this process reads, so that others read the same; any other path or URL as it is.

    It also stays as it is if the commit cannot be found: who reads it is told why.
    """
    scheme = _URL.match(url)
    found = None if scheme is None else _REPOSITORY.match(url, scheme.end())
    if found is None:
        return url
    try:
        commit = _store_of(found).commit()
    except StorageError:
        return url
    return f"{url[: found.end('repo')]}@{commit}{url[found.end() :]}"


def release_commits() -> None:
    """Look revisions up again when they are next asked for."""
    with _lock:
        _commits.clear()
        _large.clear()


# --- requests --------------------------------------------------------------------------------------------------------

_commits: dict[tuple[str, HubStore], str] = {}
_large: dict[tuple[str, HubStore, str, str], Status] = {}
"""Files that were too large to fetch, so that the records of a container do not each take a part of it for nothing."""
_MOST_LARGE = 10_000
_answered: set[str] = set()
_lock = threading.Lock()

_NOT_A_HUB = "the Hub's endpoint gives an answer that is not one of the Hub"


class _NoRepository(Missing):
    """The repository or the revision does not exist."""


_Page = tuple[Sequence[dict[str, Any]], dict[str, str] | None]
"""What a page of a listing has, and the query for the next one; None if it is the last."""


@dataclass(frozen=True)
class _Content:
    """Bytes of a file, its whole size, and its tag, if the answer has it."""

    data: bytes
    size: int
    tag: str


def _endpoint() -> str:
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or str(constants.ENDPOINT)).rstrip("/")


def _ask(work: Callable[[HfApi, float], T]) -> T:
    """The result of `work`, which gets huggingface_hub's client and the seconds that it may wait for a byte.

    Raises
    ------
    StorageError
        One of its kinds. A message never has text of an answer, a URL's query or a token.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=_endpoint())
    seconds, retries, budget = PATIENCE if api.endpoint in _answered else FIRST_PATIENCE
    began, pause = time.monotonic(), _FIRST_WAIT
    with waiting():
        while True:
            try:
                result = work(api, seconds)
            except Exception as error:  # noqa: BLE001 - of the libraries below huggingface_hub, which differ by version
                told, is_passing, asked = _told(error)
                wait = max(pause, asked)
                retries -= 1
                if not is_passing or retries < 0 or time.monotonic() - began + wait > budget:
                    raise told from (None if isinstance(error, StorageError) else error)
            else:
                _answered.add(api.endpoint)
                return result
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_WAIT)


def _get(
    url: str, seconds: float, query: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
) -> Any:
    """The answer to a request, after redirections; a range that begins after the end is one too."""
    utils: Any = importlib.import_module("huggingface_hub.utils")
    told = {**utils.build_hf_headers(), **(headers or {}), "Accept-Encoding": "identity"}
    answer = utils.get_session().get(url, params=dict(query or {}), headers=told, timeout=seconds)
    if answer.status_code != 416:
        utils.hf_raise_for_status(answer)
    return answer


def _page_of(answer: Any) -> _Page:
    page = answer.json()
    if not isinstance(page, list) or not all(isinstance(each, dict) for each in page):
        raise Unavailable(_NOT_A_HUB)
    following = answer.links.get("next", {}).get("url")
    return page, None if following is None else dict(parse_qsl(urlsplit(following).query))


def _status_of(told: Mapping[str, Any]) -> Status:
    """A file of a listing; its tag is the SHA-256 of a large file's content, and the hash of git of another's."""
    large = told.get("lfs")
    name, size, tag = told.get("path"), told.get("size"), (large if isinstance(large, dict) else told).get("oid")
    if not isinstance(name, str) or not isinstance(size, int) or size < 0 or not isinstance(tag, str) or not tag:
        raise Unavailable(_NOT_A_HUB)
    return Status(name, size, tag, 0)


def _content_of(answer: Any, start: int, stop: int | None) -> _Content | None:
    if answer.status_code == 416:
        return None
    data: bytes = answer.content
    size = len(data)
    if answer.status_code == 206:
        first, _, whole = str(answer.headers.get("Content-Range", "")).removeprefix("bytes ").partition("/")
        if not whole.isdecimal() or first != f"{start}-{start + size - 1}":
            raise Unavailable(_NOT_A_HUB)
        size = int(whole)
        if len(data) != (size if stop is None else min(stop, size)) - start:
            raise Unavailable("the Hub's answer ends too early")
    else:  # the whole file, though a part was asked for
        data = data[start:stop]
    return _Content(data, size, _tag_of(answer))


def _tag_of(answer: Any) -> str:
    """The tag that the Hub itself gives; a large file comes from another server, whose own tag is none of the Hub's."""
    answers = [*answer.history, answer]
    tag = next((each.headers["X-Linked-ETag"] for each in answers if "X-Linked-ETag" in each.headers), None)
    if tag is None and all(urlsplit(str(each.url)).netloc == urlsplit(_endpoint()).netloc for each in answers):
        tag = answer.headers.get("ETag")
    return str(tag or "").removeprefix("W/").strip('"')


def _told(error: Exception) -> tuple[StorageError, bool, float]:
    """An error as one of a store, in words of a closed list; whether it may pass; the seconds that the Hub asks to wait."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, StorageError):
        return error, isinstance(error, Unavailable), 0.0
    if isinstance(error, OfflineModeIsEnabled):
        return Unavailable("HF_HUB_OFFLINE is set: no file of the Hugging Face Hub is read"), False, 0.0
    answer = getattr(error, "response", None)
    if answer is None:
        kind = type(error).__name__
        why = "no answer in time" if "Timeout" in kind else f"no connection, or it broke off ({kind})"
        return Unavailable(f"the Hub does not answer: {why}"), not isinstance(error, TypeError | ValueError), 0.0
    status, code = int(answer.status_code), answer.headers.get("X-Error-Code", "")
    if status in (401, 403):
        gate = "; its owner must grant access" if code == "GatedRepo" else ""
        advice = "" if get_token() else "; there is no token (set HF_TOKEN, or hf auth login)"
        also = ", or there is no such repository" if status == 401 else ""
        return Denied(f"access denied{also} (status {status}){gate}{advice}"), False, 0.0
    if status == 404:
        absent = {
            "RepoNotFound": "there is no such repository, or it is private",
            "RevisionNotFound": "there is no such revision of the repository",
        }
        return (_NoRepository(absent[code]) if code in absent else Missing("no such object")), False, 0.0
    wait = 0.0
    if status == 429:
        reset = _RESET.search(answer.headers.get("RateLimit", ""))
        after = answer.headers.get("Retry-After", "")
        wait = float(reset[1] if reset else after if after.isdecimal() else 0)
    what = "the Hub gets too many requests" if status == 429 else "the Hub answers with an error"
    return Unavailable(f"{what} (status {status})"), status in (408, 429) or status >= 500, wait
