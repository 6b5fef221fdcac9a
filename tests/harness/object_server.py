"""A real object store on this machine, SeaweedFS, and a gateway before it that counts requests, delays and refuses them.

In: the program `weed`, which `make test-services` installs. Out: its endpoint, credentials that it checks, new buckets.
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KEY_ID = "test-key-id"
SECRET = "marker-of-a-secret-access-key"

PUBLIC = "public-ecgs"
"""A bucket that everyone may read."""

_STARTS_WITHIN = 60.0
_UNTIL_INPUT_ENDS = '"$@" & read line; kill -9 $!; wait'
"""Runs a command until standard input ends, which it does even if the tests are killed."""
_GRPC = 10_000  # each port's number for gRPC is higher by this


def program() -> str | None:
    """The path of `weed`: installed as a command, or beside the packages of the folder for services."""
    beside = (Path(folder) / "bin" / "weed" for folder in sys.path if folder)
    return shutil.which("weed") or next((str(path) for path in beside if path.is_file()), None)


@dataclass(frozen=True)
class ObjectServer:
    """A running server.

    Attributes
    ----------
    endpoint : its address for S3.
    """

    endpoint: str
    _filer: str

    def new_bucket(self, name: str = "") -> str:
        """Make an empty bucket."""
        name = name or f"ecgs-{uuid.uuid4().hex[:12]}"
        urllib.request.urlopen(
            urllib.request.Request(f"{self._filer}/buckets/{name}/", method="POST"), timeout=30
        ).close()
        return name

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which a program reads and writes its buckets."""
        return environment_of(self.endpoint)


def environment_of(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }


@contextmanager
def running(folder: Path, weed: str) -> Iterator[ObjectServer]:
    """Run a server whose data are in a folder; it listens on this machine alone, and is stopped at the end."""
    reader = {"name": "reader", "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}]}
    everyone = {"name": "anonymous", "actions": [f"Read:{PUBLIC}", f"List:{PUBLIC}"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [{**reader, "actions": ["Admin"]}, everyone]}))
    (folder / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")  # a bucket takes one volume, not seven
    master, volume, filer, s3 = ports = _free_ports(4)
    command = [
        *(weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"),
        *(f"-master.port={master}", "-master.volumeSizeLimitMB=64", "-volume.max=1000", f"-volume.port={volume}"),
        *("-filer", f"-filer.port={filer}", f"-filer.localSocket={folder}/filer.sock"),
        *("-s3", f"-s3.port={s3}", f"-s3.config={folder}/s3.json", f"-s3.localSocket={folder}/s3.sock"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.preStopSeconds=0"),
    ]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", _UNTIL_INPUT_ENDS, "sh", *command], stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=folder
        )
    try:
        server = ObjectServer(f"http://127.0.0.1:{s3}", f"http://127.0.0.1:{filer}")
        _wait_for(server, folder / "log")
        yield server
    finally:
        process.communicate()
        for port in ports:
            for path in Path("/tmp").glob(f"seaweedfs-*-grpc-{port + _GRPC}.sock"):
                path.unlink(missing_ok=True)


def _free_ports(count: int) -> list[int]:
    """Ports that are free, and whose ports for gRPC are free too."""
    found: list[int] = []
    for port in range(20_000 + uuid.uuid4().int % 5_000, 30_000):
        if all(map(_is_free, (port, port + _GRPC))):
            found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError("there are not enough free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _wait_for(server: ObjectServer, log: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN
    while time.monotonic() < deadline:
        try:
            _ask(server.endpoint)
            server.new_bucket(PUBLIC)
            return
        except OSError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"the object server does not start:\n{log.read_text()[-2000:]}")


def _ask(url: str) -> None:
    """Ask for an answer of any kind."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()


# --- the gateway -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """A request as a server sees it: "GET", the path with its query, and the headers in lower case."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def range(self) -> str:
        return self.headers.get("range", "")

    @property
    def key(self) -> str:
        """The object's name, or nothing for a listing."""
        return self.path.partition("?")[0].lstrip("/").partition("/")[2]


class Trouble(Enum):
    """What a gateway does to a connection."""

    RESET = "closes it, and does not pass the request on"
    DROPPED_REPLY = "passes the request on, and closes it without a reply"
    HALF_A_BODY = "closes it in the middle of the reply"


Rule = Callable[[Request], int | float | Trouble | Callable[[], None] | None]
"""What is done with a request: an HTTP status is answered, seconds (a float) are waited before it passes, None lets it pass. A
function is called when the request is done; then the connection is closed without a reply.
"""


@dataclass
class Gateway:
    """A server before another: notes each request, then passes it on, or does what `rule` says."""

    endpoint: str
    requests: list[Request] = field(default_factory=list)
    rule: Rule = lambda _request: None

    @property
    def environment(self) -> dict[str, str]:
        return environment_of(self.endpoint)

    def count(self, method: str = "") -> int:
        return sum(method in ("", request.method) for request in self.requests)


@contextmanager
def gateway_to(server: ObjectServer) -> Iterator[Gateway]:
    """Run a gateway before a server."""
    address = server.endpoint.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 20  # headers and body go out together: apart, they wait for the client's acknowledgement

        def log_message(self, *_arguments: object) -> None: ...

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(self.command, self.path, {name.lower(): text for name, text in self.headers.items()})
            gateway.requests.append(request)
            what = gateway.rule(request)
            if isinstance(what, float):
                time.sleep(what)
            elif what is Trouble.RESET:
                self._hang_up()
                return
            elif isinstance(what, int):
                self._answer(what, {"Content-Length": "0"}, b"")
                return
            with closing(http.client.HTTPConnection(address, timeout=60)) as there:
                there.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    there.putheader(name, value)
                there.endheaders(body or None)
                answer = there.getresponse()
                content = answer.read()
            hop_by_hop = ("transfer-encoding", "connection")
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in hop_by_hop}
            headers.setdefault("Content-Length", str(len(content)))
            if what is Trouble.DROPPED_REPLY or callable(what):
                if callable(what):
                    what()
                self._hang_up()
                return
            if what is Trouble.HALF_A_BODY:
                content = content[: len(content) // 2]
            self._answer(answer.status, headers, content)
            if what is Trouble.HALF_A_BODY:
                self.wfile.flush()
                self._hang_up()

        def _hang_up(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_arguments: object) -> None: ...  # a client that goes away

    listener = Quiet(("127.0.0.1", 0), Handler)
    gateway = Gateway(f"http://127.0.0.1:{listener.server_port}")
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield gateway
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
