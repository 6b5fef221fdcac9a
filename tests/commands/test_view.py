"""`ecgfounder view` prints a link that works, on this machine, until it is interrupted."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from ecgfounder.cli import main
from tests.builders.runs import Made


def test_it_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    folder = Made(tmp_path / "run", outcome="interrupted").make()
    words = [sys.executable, "-m", "ecgfounder.cli", "view", str(folder), "--group", "record"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        link = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/enter\?token=[\w-]{43}", link)
        browser = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(CookieJar())
        )
        with browser.open(link, timeout=30) as answer:
            assert answer.status == 200
        with browser.open(link.partition("/enter")[0] + "/api/about", timeout=30) as answer:
            assert b'"n":4' in answer.read()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "4 recordings, 1 failed" in said


def test_a_port_that_is_taken_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Made(tmp_path / "run").make()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["view", str(folder), "--port", str(port)]) == 2
    assert f"Port {port} cannot be used" in capsys.readouterr().err
    assert main(["view", str(folder), "--port", "70000"]) == 2
    assert "--port" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--group", "nothing"], ["--where", "x >"], ["--labels", "absent.csv", "--on", "study_id"]]
)
def test_wrong_arguments_are_refused_before_serving(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Made(tmp_path / "run").make()
    assert main(["view", str(folder), *words]) == 2
    assert capsys.readouterr().out == ""
