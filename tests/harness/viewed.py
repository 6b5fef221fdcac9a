"""A viewer that serves in a thread, and requests to it as a browser sends them, or as an attacker does.

In: an atlas, or what opens one. Out: a `Served`.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlencode

from ecgfounder.ecg.plot import Band
from ecgfounder.ecg.recording import Recording
from ecgfounder.viewer import Atlas, Server, Viewer


@dataclass(frozen=True)
class Answer:
    """The answer to a request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """A server that answers, and the cookie of a browser that has entered."""

    server: Server
    cookie: str = ""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def request(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A request with these headers and no others; Host is right unless it is among them."""
        connection = HTTPConnection("127.0.0.1", self.server.server_port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            given = {"Host": self.host, **(headers or {})}
            if body is not None and "Content-Length" not in given:
                given["Content-Length"] = str(len(body))
            for name, value in given.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer: HTTPResponse = connection.getresponse()
            return Answer(answer.status, dict(answer.headers.items()), answer.read())
        finally:
            connection.close()

    def enter(self) -> None:
        """Exchange the link for the cookie."""
        answer = self.request(self.server.link.partition(self.host)[2])
        assert answer.status == 200
        self.cookie = answer.headers["Set-Cookie"].partition(";")[0]

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **parameters: object) -> Answer:
        """A question of the page, which knows the present opening unless another is given."""
        query = urlencode({"opening": self.server.viewer.opening.name, **parameters})
        return self.request(
            f"{path}{'&' if '?' in path else '?'}{query}",
            method,
            body,
            {"Cookie": self.cookie, "Sec-Fetch-Site": "same-origin"},
        )


@contextmanager
def served(
    opened: Callable[[], Atlas], bands_of: Callable[[Recording], Sequence[Band]] | None = None
) -> Iterator[Served]:
    """A server in a thread, which ends with the block."""
    viewer = Viewer(opened, bands_of)
    server = Server(viewer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield Served(server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        viewer.close()


def links_in(page: bytes) -> list[str]:
    """What a page loads."""
    return re.findall(r'(?:src|href)="([^"#]+)"', page.decode())
