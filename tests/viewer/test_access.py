"""Nobody looks but the browser that the link was opened in: not another page, host, user or program, and nothing is cut short."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from email.message import Message
from urllib.parse import quote

import pytest

from ecgfounder.viewer import Atlas
from ecgfounder.viewer import server as server_module
from ecgfounder.viewer.access import HEADERS, Access, is_asked_by_this_page
from tests.harness.viewed import Served, links_in, served


def test_a_link_works_once(atlas: Atlas) -> None:
    with served(lambda: atlas) as running:
        path = running.server.link.partition(running.host)[2]
        first = running.request(path)
        assert first.status == 200
        cookie = first.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert running.request("/", headers={"Cookie": cookie.partition(";")[0]}).status == 200
        replayed = running.request(path)
        assert replayed.status == 403
        assert "Set-Cookie" not in replayed.headers
        # the browser that has the cookie may come again, and gets no other one
        again = running.request(path, headers={"Cookie": cookie.partition(";")[0]})
        assert (again.status, "Set-Cookie" in again.headers) == (200, False)


@pytest.mark.parametrize("token", ["", "x", "é", "%00"])
def test_another_token_does_not_enter_and_does_not_use_up_the_link(atlas: Atlas, token: str) -> None:
    with served(lambda: atlas) as running:
        assert running.request(f"/enter?token={quote(token)}").status == 403
        assert running.request("/enter").status == 403
        running.enter()


@pytest.mark.parametrize("cookie", ["", "a=b", "ecgfounder-{port}=x", "ecgfounder-{port}=", "=;;=", "é", "x" * 9000])
def test_without_the_cookie_nothing_is_told(viewed: Served, cookie: str) -> None:
    told = cookie.format(port=viewed.server.server_port)
    for path in ("/", "/app.js", "/api/about", "/api/search?text=p001", "/nothing"):
        answer = viewed.request(path, headers={"Cookie": told.encode("utf-8").decode("latin-1")})
        assert answer.status == 403
        assert b"p001" not in answer.body


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1.evil.example",
        "user@127.0.0.1:{port}",
        "127.0.0.2",
        "",
        "[::1",
        "0.0.0.0",
    ],
)
def test_another_host_is_refused(viewed: Served, host: str) -> None:
    headers = {"Cookie": viewed.cookie, "Host": host.format(port=viewed.server.server_port)}
    assert viewed.request("/api/about", headers=headers).status == 403
    assert viewed.request("/enter?token=x", headers=headers).status == 403


def test_a_tunnel_may_have_another_port(viewed: Served) -> None:
    for host in ("localhost:9999", "127.0.0.1:9999", "localhost"):
        assert viewed.request("/api/about", headers={"Cookie": viewed.cookie, "Host": host}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Origin": "https://{host}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_page_in_the_same_browser_is_refused(viewed: Served, headers: dict[str, str]) -> None:
    given = {name: value.format(host=viewed.host) for name, value in headers.items()} | {"Cookie": viewed.cookie}
    assert viewed.request("/api/about", headers=given).status == 403
    assert viewed.request("/api/umap", "POST", b"", given).status == 403
    assert (
        viewed.request("/api/about", headers={"Cookie": viewed.cookie, "Origin": f"http://{viewed.host}"}).status == 200
    )


def test_a_link_in_a_page_elsewhere_may_enter(atlas: Atlas) -> None:
    with served(lambda: atlas) as running:
        path = running.server.link.partition(running.host)[2]
        assert running.request(path, headers={"Sec-Fetch-Site": "cross-site"}).status == 200
    assert not is_asked_by_this_page(headers_of(("Host", "localhost"), ("Sec-Fetch-Site", "cross-site")))


def headers_of(*pairs: tuple[str, str]) -> Message:
    made = Message()
    for name, value in pairs:
        made[name] = value
    return made


@pytest.mark.parametrize(
    ("pairs", "is_ours"),
    [
        ([("host", "localhost")], True),
        ([("HOST", "127.0.0.1:1"), ("ORIGIN", "http://127.0.0.1:1"), ("SEC-FETCH-SITE", "same-origin")], True),
        ([("host", "localhost"), ("origin", "http://evil.example")], False),
        ([("host", "localhost"), ("sec-fetch-site", "cross-site")], False),
        ([("Host", "localhost"), ("host", "localhost")], False),
        ([("Host", "localhost"), ("Origin", "http://localhost"), ("origin", "http://evil.example")], False),
        ([("Host", "localhost"), ("Sec-Fetch-Site", "none"), ("sec-fetch-site", "cross-site")], False),
        ([], False),
    ],
)
def test_headers_have_no_case_and_are_there_once(viewed: Served, pairs: list[tuple[str, str]], is_ours: bool) -> None:
    assert is_asked_by_this_page(headers_of(*pairs)) is is_ours
    lines = "".join(f"{name}: {value}\r\n" for name, value in [*pairs, ("cookie", viewed.cookie)])
    with socket.create_connection(("127.0.0.1", viewed.server.server_port), timeout=20) as raw:
        raw.sendall(f"GET /api/about HTTP/1.1\r\n{lines}\r\n".encode())
        assert raw.recv(12) == (b"HTTP/1.1 200" if is_ours else b"HTTP/1.1 403")


@pytest.mark.parametrize("others", ['theme={"a": 1}; ', "a=b;;=; x; ", "ecgfounder-{port}=another; ", "é=ü;"])
def test_cookies_of_other_programs_do_not_lock_out(viewed: Served, others: str) -> None:
    told = others.replace("{port}", str(viewed.server.server_port)) + viewed.cookie
    for cookie in (told, f"{told};{others}"):
        given = cookie.encode("utf-8").decode("latin-1")
        assert viewed.request("/api/about", headers={"Cookie": given}).status == 200
    assert viewed.request("/api/about", headers={"Cookie": f"x{viewed.cookie}"}).status == 403


def test_no_preflight_and_no_other_method(viewed: Served) -> None:
    for method in ("OPTIONS", "HEAD", "PUT", "DELETE", "TRACE"):
        answer = viewed.request(
            "/api/about", method, headers={"Cookie": viewed.cookie, "Origin": "http://evil.example"}
        )
        assert answer.status >= 400
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "path", ["/", "/app.js", "/api/about", "/api/map?kind=pca", "/api/nothing", "/api/save?selection=99&format=csv"]
)
def test_every_answer_has_the_headers(viewed: Served, path: str) -> None:
    answer = viewed.ask(path)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "path",
    [
        "/../server.py",
        "/%2e%2e/server.py",
        "/..%2fserver.py",
        "//etc/passwd",
        "/page/app.js",
        "/app.js/",
        "/app.js%00",
        "/index.html/../app.js",
        "\\..\\server.py",
        "/.",
        "http://127.0.0.1/app.js%2f",
    ],
)
def test_paths_lead_nowhere(viewed: Served, path: str) -> None:
    answer = viewed.request(path, headers={"Cookie": viewed.cookie})
    assert answer.status == 404
    assert b"import" not in answer.body


def test_the_page_loads_its_own_files_alone(viewed: Served) -> None:
    page = viewed.ask("/").body
    assert b"<style" not in page
    assert b" style=" not in page
    assert b" on" + b"click" not in page
    for link in links_in(page):
        assert viewed.ask(f"/{link}").status == 200
    assert viewed.ask("/app.js").headers["Content-Type"].startswith("text/javascript")


def test_a_body_is_bounded(viewed: Served) -> None:
    path, mine = f"/api/filter?opening={viewed.server.viewer.opening.name}", {"Cookie": viewed.cookie}
    assert viewed.request(path, "POST", headers=mine | {"Content-Length": str(10**8)}).status == 413
    assert viewed.request(path, "POST", headers=mine).status == 411
    assert viewed.request(path, "POST", headers=mine | {"Content-Length": "-1"}).status == 411
    assert viewed.ask("/api/selection", "POST", b"\xff" * 39).status == 413
    assert viewed.ask("/api/selection", "POST", b"\xff" * 37).status == 422


def test_a_line_or_headers_that_are_too_long_are_refused(viewed: Served) -> None:
    assert viewed.request(f"/{'x' * 70_000}").status == 414
    many = {f"X-{number}": "y" for number in range(200)}
    assert viewed.request("/api/about", headers=many).status == 431


def test_a_request_that_drips_is_ended(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "READ_SECONDS", 0.5)
    with served(lambda: atlas) as running, socket.create_connection(("127.0.0.1", running.server.server_port)) as slow:
        began = time.monotonic()
        slow.settimeout(20)
        slow.sendall(b"GET / HTTP/1.0\r\n")
        ended = False
        while time.monotonic() - began < 10 and not ended:
            try:
                slow.sendall(b"X")
                time.sleep(0.05)
            except OSError:
                ended = True
        assert ended


def test_so_many_connections_at_once_and_no_more(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MOST_CONNECTIONS", 3)
    with served(lambda: atlas) as running:
        held = [socket.create_connection(("127.0.0.1", running.server.server_port)) for _ in range(3)]
        time.sleep(0.2)
        with socket.create_connection(("127.0.0.1", running.server.server_port)) as refused:
            refused.settimeout(20)
            assert refused.recv(1) == b""
        for each in held:
            each.close()
        end = time.monotonic() + 20
        while not running.cookie:  # until the server has seen that they are closed
            with suppress(ConnectionError):
                running.enter()
            assert time.monotonic() < end


def test_it_listens_on_this_machine_alone(viewed: Served) -> None:
    assert viewed.server.server_address[0] == "127.0.0.1"


def test_tokens_differ() -> None:
    assert len({Access(1).token for _ in range(20)}) == 20
