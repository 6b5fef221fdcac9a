"""The local web server of the viewer: on loopback alone, for one browser, and bounded in everything.

In: a `Viewer`, a port. Out: a server whose `link` opens the page once. Every answer has the headers of `access.HEADERS`; a
request that is not of this page is refused before anything is looked up, and no path of a request is ever opened.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import orjson

from ecgfounder.errors import ECGFounderError, SettingsError
from ecgfounder.viewer.access import HEADERS, Access, is_asked_by_this_page
from ecgfounder.viewer.files import page_files
from ecgfounder.viewer.saving import FORMATS
from ecgfounder.viewer.viewer import Opening, Viewer

LOOPBACK = "127.0.0.1"
MOST_CONNECTIONS = 32
"""Requests that are answered at the same time; more are not accepted."""
READ_SECONDS = 20.0
"""How long a request may take to arrive, as a whole; computing its answer may take longer."""
WRITE_SECONDS = 60.0
"""How long a piece of an answer may wait for its reader."""
MOST_TEXT = 16_384
"""Bytes of a request's body that is a text."""

JSON = "application/json; charset=utf-8"
BINARY = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"

_ENTERED = b"""<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=/">
<link rel="icon" href="/icon.svg"><title>ecgfounder</title></head><body><a href="/">Open the map</a></body></html>"""
"""The answer to the link: a page of this server goes on to the map, so that the browser sends the new cookie."""


class Refused(Exception):
    """A request that is not answered: its status and a line about it."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Server(ThreadingHTTPServer):
    """Serves a viewer; `serve_forever` answers until `shutdown`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, viewer: Viewer, port: int = 0) -> None:
        self.viewer = viewer
        super().__init__((LOOPBACK, port), _Handler)
        self.access = Access(self.server_port)
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)

    @property
    def link(self) -> str:
        """The address that opens the page, once."""
        return f"http://{LOOPBACK}:{self.server_port}/enter?token={self.access.token}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, unless there are too many."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._places.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer; then another request may come."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One line without values, which may be a patient's; nothing where the browser went away."""
        kind = sys.exc_info()[0]
        if kind is not None and not issubclass(kind, OSError):
            print(f"ecgfounder: a request of the page was not answered: {kind.__name__}", file=sys.stderr)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request of a connection."""

    server: Server
    opening: Opening
    server_version, sys_version = "ecgfounder", ""
    protocol_version = "HTTP/1.1"  # a file in chunks; a connection is closed after one answer
    timeout = READ_SECONDS

    def setup(self) -> None:
        super().setup()
        self._has_begun = False
        self._deadline = threading.Timer(READ_SECONDS, self._cut)
        self._deadline.daemon = True
        self._deadline.start()

    def finish(self) -> None:
        self._deadline.cancel()
        super().finish()

    def _cut(self) -> None:
        """The request did not arrive in time."""
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is closed already

    def log_message(self, *_: Any) -> None:
        """Requests are not logged: they name recordings."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no request, without repeating it."""
        self._answer(HTTPStatus(code), TEXT, b"not a request that this server answers\n")

    def do_GET(self) -> None:
        """Files of the page, and questions."""
        self._deadline.cancel()
        self._respond(_GET)

    def do_POST(self) -> None:
        """Questions with a body, and what changes something."""
        self._respond(_POST)

    def _respond(self, routes: dict[str, Callable[[_Handler, dict[str, str]], None]]) -> None:
        try:
            parts = urlsplit(self.path)
            if routes is _GET and parts.path == "/enter":
                self._enter(parts.query)
                return
            self._check()
            route = routes.get(parts.path)
            if routes is _GET and parts.path in page_files():
                content, media_type = page_files()[parts.path]
                self._answer(HTTPStatus.OK, media_type, content)
            elif route is None:
                raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here")
            else:
                given = _parameters(parts.query)
                self.opening = self.server.viewer.opening  # once: the run may be read again meanwhile
                if parts.path != "/api/about" and given.get("opening") != self.opening.name:
                    raise Refused(
                        HTTPStatus.CONFLICT, "the run was read again since this page was opened; reload the page"
                    )
                route(self, given)
        except Refused as refused:
            self._answer(refused.status, TEXT, f"{refused.reason}\n".encode())
        except (ECGFounderError, ValueError) as error:
            if self._has_begun:
                raise  # no answer within an answer
            told = str(error) if isinstance(error, ECGFounderError) else "a parameter is not valid"
            self._answer(HTTPStatus.UNPROCESSABLE_ENTITY, JSON, orjson.dumps({"error": told}))

    def _check(self) -> None:
        if not is_asked_by_this_page(self.headers):
            raise Refused(HTTPStatus.FORBIDDEN, "the request names another host, or comes from another page")
        if not self.server.access.knows(self.headers.get("Cookie", "")):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "open the link that the command printed; each link works once. Start the command again for a new one.",
            )

    def _enter(self, query: str) -> None:
        """Exchange the token for the cookie."""
        if not is_asked_by_this_page(self.headers, enters=True):
            raise Refused(HTTPStatus.FORBIDDEN, "the request names another host, or comes from another page")
        cookie = self.server.access.exchange(_parameters(query).get("token", ""))
        if cookie is None and not self.server.access.knows(self.headers.get("Cookie", "")):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "this link was used before, or is another one's. Start the command again for a new one.",
            )
        self._answer(HTTPStatus.OK, HTML, _ENTERED, {} if cookie is None else {"Set-Cookie": cookie})

    def body(self, most: int) -> bytes:
        """The request's body, of at most so many bytes."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 10):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "the length of the body is not stated")
        if int(length) > most:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large")
        content = self.rfile.read(int(length))
        if len(content) < int(length):
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is shorter than stated")
        self._deadline.cancel()
        return content

    def json(self, told: Any) -> None:
        """Answer with JSON; arrays of NumPy are lists, NaN is null."""
        self._answer(HTTPStatus.OK, JSON, orjson.dumps(told, option=orjson.OPT_SERIALIZE_NUMPY))

    def binary(self, content: bytes) -> None:
        """Answer with bytes."""
        self._answer(HTTPStatus.OK, BINARY, content)

    def download(self, name: str, media_type: str, pieces: Iterable[bytes]) -> None:
        """Answer with a file that is made while it is sent, in chunks, so that one that was cut is not taken for whole."""
        if self.request_version != self.protocol_version:
            raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "a file is sent by HTTP/1.1 alone")
        made = iter(pieces)
        first = next(made, b"")  # what cannot be made at all is an error, not a file
        self._begin(
            HTTPStatus.OK,
            media_type,
            {"Content-Disposition": f'attachment; filename="{name}"', "Transfer-Encoding": "chunked"},
        )
        for piece in filter(None, chain([first], made)):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def _answer(self, status: HTTPStatus, media_type: str, content: bytes, more: dict[str, str] | None = None) -> None:
        self._begin(status, media_type, {"Content-Length": str(len(content)), **(more or {})})
        self.wfile.write(content)

    def _begin(self, status: HTTPStatus, media_type: str, more: dict[str, str]) -> None:
        self._deadline.cancel()
        self._has_begun = True
        self.connection.settimeout(WRITE_SECONDS)
        self.close_connection = True
        self.send_response(status)
        for name, value in {"Content-Type": media_type, **HEADERS, "Connection": "close", **more}.items():
            self.send_header(name, value)
        self.end_headers()


def _parameters(query: str) -> dict[str, str]:
    """The parameters of an address; of one that is there several times, the last."""
    found = parse_qs(query, keep_blank_values=True, max_num_fields=20, errors="strict")
    return {name: values[-1] for name, values in found.items()}


def _needed(given: dict[str, str], name: str) -> str:
    if name not in given:
        raise SettingsError(f"the parameter {name} is missing")
    return given[name]


def _map(handler: _Handler, given: dict[str, str]) -> None:
    handler.binary(handler.opening.map(_needed(given, "kind")).astype("<u2").tobytes())


def _column(handler: _Handler, given: dict[str, str]) -> None:
    """What the column is, as JSON with its length before it, filled up to 8 bytes; then its values."""
    about, values = handler.opening.column(_needed(given, "name"))
    head = orjson.dumps(about)
    head += b" " * (-(len(head) + 4) % 8)
    handler.binary(len(head).to_bytes(4, "little") + head + np.ascontiguousarray(values).tobytes())


def _filter(handler: _Handler, _: dict[str, str]) -> None:
    """A bit for each recording, the lowest of each byte first."""
    mask = handler.opening.filter(handler.body(MOST_TEXT).decode("utf-8"))
    handler.binary(np.packbits(mask, bitorder="little").tobytes())


def _select(handler: _Handler, _: dict[str, str]) -> None:
    n = len(handler.opening.atlas)
    bits = np.frombuffer(handler.body((n + 7) // 8), np.uint8)
    if len(bits) != (n + 7) // 8:
        raise SettingsError("a selection has a bit for each recording")
    handler.json(handler.opening.select(np.unpackbits(bits, count=n, bitorder="little").astype(bool)))


def _start_umap(handler: _Handler, _: dict[str, str]) -> None:
    handler.body(0)
    handler.json(handler.opening.start_umap())


def _reopen(handler: _Handler, _: dict[str, str]) -> None:
    handler.body(0)
    handler.json(handler.server.viewer.reopen())


def _save(handler: _Handler, given: dict[str, str]) -> None:
    form = _needed(given, "format")
    pieces = handler.opening.save(int(_needed(given, "selection")), form)
    handler.download(f"selection.{form}", FORMATS[form], pieces)


_GET: dict[str, Callable[[_Handler, dict[str, str]], None]] = {
    "/api/about": lambda handler, _: handler.json(handler.opening.about()),
    "/api/places": lambda handler, _: handler.json(handler.opening.places()),
    "/api/status": lambda handler, _: handler.json(handler.server.viewer.status()),
    "/api/map": _map,
    "/api/column": _column,
    "/api/search": lambda handler, given: handler.json(handler.opening.search(_needed(given, "text"))),
    "/api/name": lambda handler, given: handler.json(handler.opening.names(int(_needed(given, "row")))),
    "/api/recording": lambda handler, given: handler.json(handler.opening.recording(int(_needed(given, "row")))),
    "/api/neighbours": lambda handler, given: handler.json(handler.opening.neighbours(int(_needed(given, "row")))),
    "/api/ecg": lambda handler, given: handler.json(handler.opening.ecg(int(_needed(given, "row")))),
    "/api/evidence": lambda handler, given: handler.json(handler.opening.evidence(int(_needed(given, "row")))),
    "/api/composition": lambda handler, given: handler.json(
        handler.opening.composition(int(_needed(given, "selection")))
    ),
    "/api/rows": lambda handler, given: handler.json(
        handler.opening.rows(int(_needed(given, "selection")), int(given.get("first", "0")))
    ),
    "/api/failures": lambda handler, given: handler.json(
        handler.opening.failures(given.get("text", ""), int(given.get("first", "0")))
    ),
    "/api/save": _save,
}

_POST: dict[str, Callable[[_Handler, dict[str, str]], None]] = {
    "/api/filter": _filter,
    "/api/selection": _select,
    "/api/umap": _start_umap,
    "/api/reopen": _reopen,
}
