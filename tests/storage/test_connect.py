"""Credentials, regions, time limits and processes of connections to object stores."""

from __future__ import annotations

import base64
import http.server
import itertools
import json
import os
import pickle
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from ecgfounder.errors import MissingDependencyError, SettingsError
from ecgfounder.ledger.groups.publish import publish
from ecgfounder.storage import Denied, Missing, Unavailable, locate, storage_options
from ecgfounder.storage import connect as module
from ecgfounder.storage.connect import region_of, store_error
from ecgfounder.storage.objects import ObjectStore
from tests.harness.object_server import PUBLIC, SECRET, Gateway, ObjectServer, Rule, Trouble

needs_a_server = pytest.mark.services


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)


# --- options ---------------------------------------------------------------------------------------------------------


def test_options_are_the_same_from_json_and_python_and_show_no_value() -> None:
    given = {"region": "eu-central-1", "secret_access_key": SECRET, "skip_signature": True}
    options = storage_options(given)
    assert options == storage_options(json.dumps(given)) == pickle.loads(pickle.dumps(options))
    assert hash(options) == hash(storage_options(given))
    assert repr(options) == "StorageOptions(region, secret_access_key, skip_signature)"
    assert storage_options(None) == storage_options({}) == storage_options("{}")


@pytest.mark.parametrize(
    "given", ["", "[]", "1", SECRET, f'{{"region": "{SECRET}"', {SECRET: 1}, {"region": [SECRET]}, {"region": None}]
)
def test_other_options_are_refused_without_their_values(given: object) -> None:
    with pytest.raises(SettingsError, match="'storage_options' parameter") as refused:
        storage_options(given)  # type: ignore[arg-type]
    assert SECRET not in str(refused.value)


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    for url in ("s3://bucket/x", "gs://bucket/x", "az://container/x"):
        with pytest.raises(MissingDependencyError, match=r"pip install 'ecgfounder\[remote\]'"):
            locate(url)


@pytest.mark.parametrize("url", ["s3://", "s3:///key", f"s3://me:{SECRET}@bucket/key", "s3://a b/c", "s3://a?b/c"])
def test_a_url_without_a_bucket_is_refused_and_credentials_in_it_are_not_shown(url: str) -> None:
    with pytest.raises(SettingsError, match="expected the name of a bucket") as refused:
        locate(url)
    assert SECRET not in str(refused.value)


# --- errors ----------------------------------------------------------------------------------------------------------


def test_an_error_is_told_in_words_of_a_closed_list() -> None:
    kinds = {name: type(name, (Exception,), {}) for name in ("GenericError", "PermissionDeniedError")}
    body = f"<Error><Code>{{}}</Code><Message>{SECRET}</Message></Error>"
    for kind, text, expected in (
        ("GenericError", f"status code: 403 Forbidden: {body.format('AccessDenied')}", Denied),
        ("GenericError", f"status code: 400 Bad Request: {body.format('ExpiredToken')}", Denied),
        ("GenericError", f"status code: 503 Slow Down: {body.format('SlowDown')}", Unavailable),
        ("GenericError", f"status code: 404 Not Found: {body.format('NoSuchBucket')}", Missing),
        ("GenericError", f"error sending request: dns error {SECRET}", Unavailable),
        ("GenericError", SECRET, Unavailable),
        ("PermissionDeniedError", SECRET, Denied),
    ):
        told = store_error(kinds[kind](text))
        assert type(told) is expected
        assert SECRET not in str(told)


@contextmanager
def answering(status: int, headers: dict[str, str]) -> Iterator[str]:
    """A server that answers each HEAD in one way."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [200, 301, 403])
def test_the_region_of_a_bucket_is_found_whatever_may_be_done_with_it(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(status, {"x-amz-bucket-region": "eu-north-1"}) as url:
        monkeypatch.setattr(module, "AWS", url)
        assert region_of("bucket") == "eu-north-1"


def test_a_region_that_is_not_found_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(404, {}) as url:
        monkeypatch.setattr(module, "AWS", url)
        with pytest.raises(Missing, match="there is no bucket 'bucket'"):
            region_of("bucket")
    with answering(200, {}) as url:
        monkeypatch.setattr(module, "AWS", url)
        with pytest.raises(Unavailable, match="set AWS_REGION"):
            region_of("bucket")
    with pytest.raises(Unavailable, match=r"does not answer; set AWS_REGION, or AWS_ENDPOINT_URL"):
        region_of("bucket")


# --- a real server ---------------------------------------------------------------------------------------------------


@needs_a_server
@pytest.mark.usefixtures("no_credentials")
def test_a_public_bucket_is_read_without_credentials(object_server: ObjectServer) -> None:
    given = {"endpoint": object_server.endpoint, "region": "us-east-1"}
    key = {"access_key_id": object_server.environment["AWS_ACCESS_KEY_ID"], "secret_access_key": SECRET}
    ObjectStore("s3", PUBLIC, storage_options(given | key)).put("folder/a", b"content")
    for options in (given, given | {"skip_signature": True}):
        place = locate(f"s3://{PUBLIC}/folder", storage_options(options))
        assert list(place.names()) == ["a"]
        assert (place / "a").read() == b"content"


@needs_a_server
@pytest.mark.usefixtures("no_credentials")
def test_where_credentials_are_missing_it_is_said_how_to_give_them(object_server: ObjectServer, bucket: str) -> None:
    for name in object_server.environment:
        os.environ.pop(name, None)
    options = storage_options({"endpoint": object_server.endpoint, "region": "us-east-1"})
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(Denied, match=r"access denied .*none were found \(set AWS_ACCESS_KEY_ID or AWS_PROFILE"):
            locate(f"s3://{bucket}/a", options).read()
    assert time.monotonic() - began < 20
    wrong = storage_options({"access_key_id": "x", "secret_access_key": SECRET, "endpoint": object_server.endpoint})
    with pytest.raises(Denied, match=r"^access denied \(status 403, InvalidAccessKeyId\)$"):
        locate(f"s3://{bucket}/a", wrong).read()


@needs_a_server
def test_requester_pays_is_said_with_each_request(bucket: str, gateway: Gateway) -> None:
    locate(f"s3://{bucket}/a").put(b"content")
    assert not any("x-amz-request-payer" in request.headers for request in gateway.requests)
    del gateway.requests[:]
    place = locate(f"s3://{bucket}/a", storage_options({"request_payer": True}))
    assert place.read() == b"content"
    assert list(place.folder.names()) == ["a"]
    assert [request.headers["x-amz-request-payer"] for request in gateway.requests] == ["requester"] * 2


@contextmanager
def instance_of(key_id: str, secret: str) -> Iterator[str]:
    """The metadata server of an instance whose role has a key."""
    credentials = {"AccessKeyId": key_id, "SecretAccessKey": secret, "Token": "", "Code": "Success", "Type": "AWS-HMAC"}
    credentials |= {"Expiration": "2100-01-01T00:00:00Z", "LastUpdated": "2026-01-01T00:00:00Z"}
    answers = {"/latest/api/token": "token", "/latest/meta-data/iam/security-credentials/": "role"}
    answers |= {"/latest/meta-data/iam/security-credentials/role": json.dumps(credentials)}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = answers[self.path].encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_PUT = do_GET

        def log_message(self, *_arguments: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@needs_a_server
@pytest.mark.usefixtures("no_credentials")
def test_an_instance_s_role_is_used_after_a_request_without_credentials_was_denied(object_server: ObjectServer) -> None:
    bucket, key_id = object_server.new_bucket(), object_server.environment["AWS_ACCESS_KEY_ID"]
    given = {"endpoint": object_server.endpoint, "region": "us-east-1"}
    key = {"access_key_id": key_id, "secret_access_key": SECRET}
    ObjectStore("s3", bucket, storage_options(given | key)).put("a", b"content")
    with instance_of(key_id, SECRET) as url:
        place = locate(f"s3://{bucket}/a", storage_options(given | {"metadata_endpoint": url}))
        assert place.read() == b"content"
    assert place.read() == b"content"  # they are kept


@needs_a_server
@pytest.mark.usefixtures("no_credentials")
def test_a_profile_is_read_through_its_package(
    object_server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("boto3", reason="boto3 is not installed (make test-services)")
    bucket, key_id = object_server.new_bucket(), object_server.environment["AWS_ACCESS_KEY_ID"]
    lines = ("[clinic]", f"aws_access_key_id = {key_id}", f"aws_secret_access_key = {SECRET}", "region = eu-west-1")
    (tmp_path / "credentials").write_text("\n".join(lines))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", object_server.endpoint)
    monkeypatch.setenv("AWS_PROFILE", "clinic")
    place = locate(f"s3://{bucket}/a")
    place.put(b"content")
    assert place.read() == b"content"
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SettingsError, match=r"The profile in AWS_PROFILE cannot be used \(ProfileNotFound\)"):
        locate(f"s3://{object_server.new_bucket()}/a").read()


@needs_a_server
@pytest.mark.usefixtures("no_credentials")
def test_a_server_that_accepts_connections_and_never_answers_is_refused_within_seconds() -> None:
    pytest.importorskip("obstore")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        given = {"endpoint": f"http://127.0.0.1:{listener.getsockname()[1]}", "region": "x", "skip_signature": True}
        began = time.monotonic()
        with pytest.raises(Unavailable, match="no answer in time"):
            locate("s3://bucket/a", storage_options(given)).status()
        assert time.monotonic() - began < 30


@needs_a_server
def test_a_forked_process_is_refused_and_a_spawned_one_reads(bucket: str, tmp_path: Path) -> None:
    code = f"""
import multiprocessing, sys
from ecgfounder.errors import StorageError
from ecgfounder.storage import locate

place = locate("s3://{bucket}/a")

def read(place, queue):
    try:
        queue.put(place.read())
    except StorageError as error:
        queue.put(str(error))

if __name__ == "__main__":
    place.put(b"content")
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        process = context.Process(target=read, args=(place, queue))
        process.start()
        print(queue.get(timeout=60))
        process.join()
"""
    script = tmp_path / "reads.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100)
    forked, spawned = done.stdout.splitlines()
    assert "a process that was forked" in forked
    assert spawned == "b'content'"


@needs_a_server
@pytest.mark.usefixtures("no_credentials")
def test_a_profile_needs_a_package_and_is_named_when_it_is_not_there(
    bucket: str, monkeypatch: pytest.MonkeyPatch, object_server: ObjectServer
) -> None:
    for name in object_server.environment:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("AWS_ENDPOINT_URL", object_server.endpoint)
    for name in ("boto3", "obstore.auth.boto3"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'ecgfounder\[aws\]'"):
        locate(f"s3://{bucket}/a").read()


def first_of(method: str, trouble: Trouble, *, at: int = 1) -> Rule:
    """A rule: trouble at the n-th request of this method."""
    counter = itertools.count(1)
    return lambda request: trouble if request.method == method and next(counter) == at else None


@needs_a_server
@pytest.mark.parametrize("at", [1, 2])
def test_a_listing_whose_reply_breaks_goes_on_where_it_was(bucket: str, gateway: Gateway, at: int) -> None:
    place = locate(f"s3://{bucket}/many")
    names = [f"{number:05d}" for number in range(1100)]  # more than one reply
    with ThreadPoolExecutor(16) as threads:
        for _ in threads.map(lambda name: (place / name).write(name.encode()), names):
            continue
    gateway.rule = first_of("GET", Trouble.HALF_A_BODY, at=at)
    assert list(place.names()) == names


@needs_a_server
@pytest.mark.parametrize("trouble", list(Trouble))
def test_requests_are_made_again_when_the_connection_breaks(bucket: str, gateway: Gateway, trouble: Trouble) -> None:
    place = locate(f"s3://{bucket}/a")
    for method, work, result in (
        ("PUT", lambda: place.write(b"content"), place.write(b"content")),
        ("GET", lambda: place.read(), b"content"),
        ("GET", lambda: place.read(2, 5), b"nte"),
        ("GET", lambda: place.fetch(100)[1], b"content"),
        ("HEAD", lambda: place.status().size, 7),
        ("POST", lambda: place.folder.delete(["gone"]), None),
    ):
        gateway.rule = first_of(method, trouble)
        assert work() == result, method


@needs_a_server
@pytest.mark.parametrize("trouble", list(Trouble))
def test_a_creation_whose_reply_is_lost_is_known_by_what_is_there(
    bucket: str, gateway: Gateway, trouble: Trouble
) -> None:
    """Where the reply is dropped, the client asks again and meets its own object: it believes that it has lost."""
    place = locate(f"s3://{bucket}/part")
    gateway.rule = first_of("PUT", trouble)
    assert publish(place, b"ours")
    gateway.rule = first_of("PUT", trouble)
    assert not publish(place, b"another's")
    assert place.read() == b"ours"


# --- stand-ins for what the server of the tests does not have --------------------------------------------------------


class Demanding:
    """A server of S3 that gives an object, or refuses who does not send what it demands; and a service that gives keys.

    Attributes
    ----------
    demands : headers that each request must have, and what each must begin with.
    """

    def __init__(self) -> None:
        self.demands: dict[str, str] = {}
        self.seen: list[tuple[str, str, dict[str, str], str]] = []
        self.url = ""

    def answer(self, method: str, path: str, headers: dict[str, str], body: str) -> tuple[int, str]:
        self.seen.append((method, path, headers, body))
        if method == "POST":
            given = "<AccessKeyId>role-key</AccessKeyId><SecretAccessKey>x</SecretAccessKey>"
            until = "<SessionToken>role-token</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration>"
            kind = "AssumeRoleWithWebIdentity"
            return (
                200,
                f"<{kind}Response><{kind}Result><Credentials>{given}{until}</Credentials></{kind}Result></{kind}Response>",
            )
        if not all(headers.get(name, "").startswith(text) for name, text in self.demands.items()):
            return 403, "<Error><Code>AccessDenied</Code></Error>"
        if "list-type=2" not in path:
            return 200, "content"
        told = "<Key>a</Key><Size>7</Size><LastModified>2026-01-01T00:00:00Z</LastModified><ETag>&quot;x&quot;</ETag>"
        return 200, f"<ListBucketResult><IsTruncated>false</IsTruncated><Contents>{told}</Contents></ListBucketResult>"


@contextmanager
def demanding(certificate: Path | None = None) -> Iterator[Demanding]:
    """Run one, by HTTPS with a certificate and its key in a file."""
    served = Demanding()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): text for name, text in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0))).decode()
            status, text = served.answer(self.command, self.path, headers, body)
            self.send_response_only(status)
            told = {"ETag": '"x"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", "Content-Length": str(len(text))}
            for name, value in told.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text.encode())

        do_HEAD = do_POST = do_GET

        def log_message(self, *_arguments: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        served.url = f"http{'' if certificate is None else 's'}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield served
        server.shutdown()
        thread.join()


CUSTOMER_KEY = base64.b64encode(SECRET.encode()[:32].ljust(32, b"k")).decode()


@needs_a_server
@pytest.mark.usefixtures("no_credentials")
@pytest.mark.parametrize(
    ("options", "demands"),
    [
        ({"request_payer": True}, {"x-amz-request-payer": "requester"}),
        (
            {"server_side_encryption": "sse-c", "sse_customer_key_base64": CUSTOMER_KEY},
            {
                "x-amz-server-side-encryption-customer-algorithm": "AES256",
                "x-amz-server-side-encryption-customer-key": CUSTOMER_KEY,
                "x-amz-server-side-encryption-customer-key-md5": "",
            },
        ),
    ],
    ids=["requester pays", "customer's key"],
)
def test_what_a_bucket_demands_of_each_request_is_sent_by_an_option(
    options: dict[str, object], demands: dict[str, str]
) -> None:
    pytest.importorskip("obstore")
    with demanding() as server:
        server.demands = demands
        given = {"endpoint": server.url, "region": "us-east-1", "access_key_id": "x", "secret_access_key": SECRET}
        with pytest.raises(Denied, match=r"^access denied \(status 403, AccessDenied\)$"):
            locate("s3://bucket/a", storage_options(given)).read()
        place = locate("s3://bucket/a", storage_options(given | options))
        assert (place.read(), place.status().size) == (b"content", 7)
        del server.seen[:]
        assert place.fetch(100)[1] == b"content"
        if "request_payer" in options:
            assert list(place.folder.names()) == ["a"]
        assert all(name in headers for _, _, headers, _ in server.seen for name in demands)


@needs_a_server
@pytest.mark.usefixtures("no_credentials")
def test_objects_encrypted_with_a_key_of_kms_are_asked_for_without_headers_of_encryption() -> None:
    """S3 refuses such headers with requests that read."""
    pytest.importorskip("obstore")
    with demanding() as server:
        given = {"endpoint": server.url, "region": "us-east-1", "access_key_id": "x", "secret_access_key": SECRET}
        options = {"server_side_encryption": "aws:kms", "sse_kms_key_id": "arn:aws:kms:eu-west-1:1:key/x"}
        assert locate("s3://bucket/a", storage_options(given | options)).read() == b"content"
        assert not any("encryption" in name for _, _, headers, _ in server.seen for name in headers)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine and its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes a certificate, is not installed")
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    asked = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1")
    subprocess.run(["openssl", *asked, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    with open(path, "a") as file:
        file.write(Path(f"{path}.crt").read_text())
    return path


@needs_a_server
@pytest.mark.usefixtures("no_credentials")
def test_a_web_identity_is_exchanged_for_the_keys_of_its_role(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore")
    (tmp_path / "token").write_text("web-token")
    with demanding() as server, demanding(certificate) as service:
        server.demands = {
            "x-amz-security-token": "role-token",
            "authorization": "AWS4-HMAC-SHA256 Credential=role-key/",
        }
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/reader")
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", service.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        place = locate("s3://bucket/a", storage_options({"region": "us-east-1", "allow_invalid_certificates": True}))
        assert place.read() == b"content"
        ((method, path, _, body),) = service.seen
        assert method == "POST"
        told = dict(parse_qsl(urlsplit(path).query or body))
        assert (told["Action"], told["WebIdentityToken"]) == ("AssumeRoleWithWebIdentity", "web-token")
        assert told["RoleArn"] == "arn:aws:iam::1:role/reader"


@needs_a_server
@pytest.mark.usefixtures("no_credentials")
def test_requests_are_signed_for_the_region_that_s3_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with demanding() as server, answering(301, {"x-amz-bucket-region": "eu-north-1"}) as aws:
        monkeypatch.setattr(module, "AWS", aws)
        opened: dict[str, object] = {}
        store = module.require_obstore().store
        made = store.S3Store

        def make(config: dict[str, object], **more: object) -> object:
            opened.update(config)
            return made(config={**config, "endpoint": server.url}, **{**more, "client_options": {"allow_http": True}})

        monkeypatch.setattr(store, "S3Store", make)
        assert locate(f"s3://bucket-{uuid.uuid4().hex}/a").read() == b"content"
        assert opened["region"] == "eu-north-1"
        assert "/eu-north-1/s3/aws4_request" in server.seen[-1][2]["authorization"]
