"""A stand-in for the Hugging Face Hub's endpoint on this machine, which keeps commits and tokens, and lists and gives files.

In: files of repositories, commit by commit. Out: an endpoint for HF_ENDPOINT, with pages, ranges, redirections of large files to
another server, the Hub's codes of errors, and what `rule` says.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from ecgfounder.storage.hub import HubStore, release_commits
from ecgfounder.storage.objects import is_key
from ecgfounder.storage.store import Conflict, Missing, Status
from tests.harness.object_server import Request, Rule

TOKEN = "hf_markerOfASecretToken"
LARGE_BYTES = 10_000
"""Files of this size are large: given by the other server, and tagged with SHA-256."""


@dataclass
class Repository:
    """Branches and commits of a repository; with `gated`, only for who has the token."""

    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Make a branch have these files and no others; returns the commit."""
        number = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[number] = files
        self.branches[branch] = number
        return number


@dataclass
class Hub:
    """The stand-in; `rule` may answer a request with a status, and `advice` has the headers that such answers get."""

    endpoint: str = ""
    large_files: str = ""
    page: int = 1000
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    elsewhere: list[Request] = field(default_factory=list)  # requests to the server of large files
    rule: Rule = lambda _request: None
    advice: dict[str, str] = field(default_factory=dict)

    def new(self, name: str, files: dict[str, bytes], *, gated: bool = False) -> Repository:
        """Make a repository: 'datasets/owner/name' or 'models/owner/name'."""
        repository = self.repositories[name] = Repository(gated)
        repository.commit(files)
        return repository


def tag_of(data: bytes) -> str:
    if len(data) >= LARGE_BYTES:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Refused(Exception):
    """An answer with a status and the Hub's code of an error."""


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Run a stand-in."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_arguments: object) -> None: ...

        def _asked(self) -> Request:
            return Request(self.command, self.path, {name.lower(): text for name, text in self.headers.items()})

        def do_GET(self) -> None:
            request = self._asked()
            hub.requests.append(request)
            status = hub.rule(request)
            try:
                if status is not None:
                    self._answer(int(status), b"a page of another server", hub.advice)
                else:
                    self._give(request)
            except _Refused as error:
                status, code = error.args
                self._answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": "quoted by nobody"})

        do_HEAD = do_GET

        def _give(self, request: Request) -> None:
            path, _, query = request.path.partition("?")
            parts = path.strip("/").split("/")
            is_api = parts[0] == "api"
            if is_api:
                del parts[0]
            elif parts[0] != "datasets":
                parts.insert(0, "models")
            name, rest = "/".join(parts[:3]), parts[3:]
            repository = hub.repositories.get(name)
            may = request.headers.get("authorization") == f"Bearer {TOKEN}"
            if repository is None:
                raise _Refused(404 if may else 401, "RepoNotFound")
            if repository.gated and not may:
                raise _Refused(401, "GatedRepo")
            what, revision = (unquote(rest[0]), unquote(rest[1])) if rest else ("revision", "main")
            commit = repository.branches.get(revision, revision)
            if commit not in repository.commits:
                raise _Refused(404, "RevisionNotFound")
            files, below = repository.commits[commit], unquote("/".join(rest[2:]))
            if what == "revision":
                self._answer(200, json.dumps({"id": name.partition("/")[2], "sha": commit}).encode(), {})
            elif what == "tree":
                self._list(path, files, below, parse_qs(query))
            elif below not in files:
                raise _Refused(404, "EntryNotFound")
            else:
                self._file(request, files[below], commit)

        def _list(self, path: str, files: dict[str, bytes], folder: str, query: dict[str, list[str]]) -> None:
            start = f"{folder}/" if folder else ""
            below = sorted(name for name in files if name.startswith(start))
            if folder and not below:
                raise _Refused(404, "EntryNotFound")
            if query.get("recursive") == ["true"]:
                found = [_told(name, files[name]) for name in below]
                found[:0] = [{"type": "directory", "path": "x", "oid": "0", "size": 0}] if found else []
            else:
                first = {name[len(start) :].partition("/")[0] for name in below}
                found = [{"type": "directory", "path": start + name, "oid": "0", "size": 0} for name in sorted(first)]
            at = int(query.get("cursor", ["0"])[0])
            headers = {}
            if at + hub.page < len(found):
                given = "&".join(f"{name}={values[0]}" for name, values in query.items() if name != "cursor")
                headers["Link"] = f'<https://hub.example{path}?{given}&cursor={at + hub.page}>; rel="next"'
            self._answer(200, json.dumps(found[at : at + hub.page]).encode(), headers)

        def _file(self, request: Request, data: bytes, commit: str) -> None:
            headers = {"X-Repo-Commit": commit}
            if len(data) < LARGE_BYTES:
                self._bytes(request, data, {**headers, "ETag": f'"{tag_of(data)}"'})
                return
            place = f"{hub.large_files}/{tag_of(data)}?signature=secret"
            headers |= {"Location": place, "X-Linked-ETag": f'"{tag_of(data)}"', "X-Linked-Size": str(len(data))}
            self._answer(302, b"", headers)

        def _bytes(self, request: Request, data: bytes, headers: dict[str, str]) -> None:
            if not request.range:
                self._answer(200, data, headers)
                return
            first, _, last = request.range.removeprefix("bytes=").partition("-")
            stop = min(int(last) + 1, len(data)) if last else len(data)
            if int(first) >= len(data):
                self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            else:
                headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(data)}"
                self._answer(206, data[int(first) : stop], headers)

        def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response_only(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    class LargeFiles(Handler):
        def do_GET(self) -> None:
            request = self._asked()
            hub.elsewhere.append(request)
            wanted = urlsplit(request.path).path[1:]
            found = {tag_of(data): data for each in hub.repositories.values() for data in _all_of(each)}
            self._bytes(request, found[wanted], {"ETag": '"a tag of this server"'})

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_arguments: object) -> None: ...  # a client that goes away

    listeners = [Quiet(("127.0.0.1", 0), each) for each in (Handler, LargeFiles)]
    hub.endpoint, hub.large_files = (f"http://127.0.0.1:{each.server_port}" for each in listeners)
    threads = [threading.Thread(target=each.serve_forever, args=(0.02,), daemon=True) for each in listeners]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for listener, thread in zip(listeners, threads, strict=True):
            listener.shutdown()
            listener.server_close()
            thread.join()


def _all_of(repository: Repository) -> Iterator[bytes]:
    for files in list(repository.commits.values()):
        yield from (data for data in files.values() if len(data) >= LARGE_BYTES)


def _told(name: str, data: bytes) -> dict[str, object]:
    small = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if len(data) < LARGE_BYTES:
        return {**small, "oid": tag_of(data)}
    return {**small, "lfs": {"oid": tag_of(data), "size": len(data), "pointerSize": 134}}


_hubs: dict[str, Hub] = {}
_writing = threading.Lock()


@dataclass(frozen=True)
class CommittedStore(HubStore):
    """A `HubStore` of a stand-in whose writing is a new commit that is read from then on, for tests of reading alone."""

    endpoint: str = ""

    @classmethod
    def of(cls, hub: Hub, repo: str) -> CommittedStore:
        """A store of an empty dataset."""
        hub.new(f"datasets/{repo}", {})
        _hubs[hub.endpoint] = hub
        return cls("dataset", repo, "", hub.endpoint)

    def _commit(self, changes: dict[str, bytes], gone: Iterable[str] = ()) -> None:
        repository = _hubs[self.endpoint].repositories[f"datasets/{self.repo}"]
        left = repository.commits[repository.branches["main"]].items()
        repository.commit({name: data for name, data in left if name not in gone} | changes)
        release_commits()

    def put(self, name: str, data: bytes) -> Status:
        if not is_key(name):
            raise Missing("no object can have this name")
        with _writing:
            self._commit({name: data})
        return Status(name, len(data), tag_of(data), 0)

    def create(self, name: str, data: bytes) -> Status:
        with _writing:
            repository = _hubs[self.endpoint].repositories[f"datasets/{self.repo}"]
            if name in repository.commits[repository.branches["main"]]:
                raise Conflict(f"{self.url(name)}: it already exists")
            if not is_key(name):
                raise Missing("no object can have this name")
            self._commit({name: data})
        return Status(name, len(data), tag_of(data), 0)

    def delete(self, names: Iterable[str]) -> None:
        gone = set(names)
        with _writing:
            self._commit({}, gone)
