"""A real browser without a window: opens pages, and tells what they showed, asked for and complained about.

In: the program chromium (`apt-get install chromium`), the address or path of a page. Out: `Tab`s, whose pages can be asked, typed
to, drawn, and shown dark, printed or on a small screen. The browser is driven over two pipes with the DevTools protocol, and
needs no package.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

_SWITCHES = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # which root has no use for
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
_PATIENCE = 60.0
_KEYS = {
    "Tab": (9, ""),
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    " ": (32, " "),
    "PageUp": (33, ""),
    "PageDown": (34, ""),
    "End": (35, ""),
    "Home": (36, ""),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
    "Delete": (46, ""),
}
"""Keys without a character of their own: the code, and the text that they type."""

_SHIFT = 8


def browser_program() -> str | None:
    """The path of Chromium or Chrome; None if there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class BrowserError(AssertionError):
    """The browser refused a command, a page's script failed, or nothing was answered in time."""


class Browser:
    """A running browser; made by `running_browser`."""

    def __init__(self, process: subprocess.Popen[bytes], reads: int, writes: int) -> None:
        self._process, self._reads, self._writes = process, reads, writes
        self._buffer = b""
        self._number = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._tabs: dict[str, Tab] = {}

    def open(self, page: str | Path, *, width: int = 1280, height: int = 900, settle: float = 0.2) -> Tab:
        """A page in a tab of its own, loaded, and quiet for `settle` seconds."""
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = self._tabs[session] = Tab(self, session, target)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.command(f"{domain}.enable")
        tab.size(width, height)
        tab.go(page.absolute().as_uri() if isinstance(page, Path) else page, settle=settle)
        return tab

    def command(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The answer to a command of the DevTools protocol."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        remaining = memoryview(json.dumps(message).encode() + b"\0")
        while remaining:
            remaining = remaining[os.write(self._writes, remaining) :]
        self.wait(lambda: number in self._answers, f"an answer to {method}")
        answer = self._answers.pop(number)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def wait(self, happened: Callable[[], bool], what: str, patience: float = _PATIENCE) -> None:
        """Read the browser's messages until something has happened."""
        end = time.monotonic() + patience
        while not happened():
            if not self.listen(max(end - time.monotonic(), 0.0)):
                raise BrowserError(f"the browser did not give {what} within {patience:g} s")

    def listen(self, seconds: float) -> bool:
        """Read what comes within some time; False if nothing came."""
        if not select.select([self._reads], [], [], seconds)[0]:
            return False
        data = os.read(self._reads, 1 << 20)
        if not data:
            raise BrowserError(f"the browser ended with status {self._process.wait(_PATIENCE)}")
        *messages, self._buffer = (self._buffer + data).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            elif message.get("sessionId") in self._tabs:
                self._tabs[message["sessionId"]]._happened(message["method"], message["params"])
        return True


@dataclass
class Tab:
    """A tab with a page.

    Attributes
    ----------
    errors : list of str
        What the page complained about: errors and warnings of its console, exceptions, content that a policy refused.
    requests : list of str
        The addresses that it asked for, its own first; `data:` addresses are not among them.
    failed : list of str
        Those of them that were not answered, or with a status from 400.
    """

    browser: Browser
    session: str
    target: str
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    _asked: dict[str, str] = field(default_factory=dict)
    _loaded: bool = False
    _media: dict[str, str] = field(default_factory=dict)

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command of the DevTools protocol, for this tab."""
        return self.browser.command(method, self.session, **parameters)

    def go(self, address: str, *, settle: float = 0.2) -> None:
        """Load a page, and wait until it is quiet for `settle` seconds."""
        self._loaded = False
        answer = self.command("Page.navigate", url=address)
        if "errorText" in answer:
            raise BrowserError(f"{address}: {answer['errorText']}")
        self.browser.wait(lambda: self._loaded, f"the loaded page {address}")
        self.settle(settle)

    def settle(self, seconds: float = 0.2) -> None:
        """Wait until the browser has had nothing to say for some time."""
        end = time.monotonic() + _PATIENCE
        while self.browser.listen(seconds) and time.monotonic() < end:
            pass

    def evaluate(self, script: str) -> Any:
        """The value of an expression of JavaScript, awaited if it is a promise."""
        answer = self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{script[:200]}: {_exception(answer['exceptionDetails'])}")
        return answer["result"].get("value")

    def wait_for(self, script: str, patience: float = _PATIENCE) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + patience
        while not self.evaluate(f"!!({script})"):
            if time.monotonic() > end:
                raise BrowserError(f"not true within {patience:g} s: {script}")
            self.browser.listen(0.05)

    def press(self, *keys: str) -> None:
        """Press keys one after the other: characters, or names as "Tab", "Enter", "ArrowDown", "Shift+Tab"."""
        for key in keys:
            shifted = key.startswith("Shift+")
            name = key.removeprefix("Shift+")
            code, text = _KEYS[name] if name in _KEYS else (ord(name.upper()), name)
            event = {"key": name, "code": name, "windowsVirtualKeyCode": code, "modifiers": _SHIFT if shifted else 0}
            self.command("Input.dispatchKeyEvent", type="keyDown", **event, **({"text": text} if text else {}))
            self.command("Input.dispatchKeyEvent", type="keyUp", **event)

    def click(self, x: float, y: float) -> None:
        """Press and release the mouse at a place of the window."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, x, y)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """One event of the mouse: "mouseMoved", "mousePressed", "mouseReleased", "mouseWheel"."""
        button = {} if kind == "mouseWheel" else {"button": "left", "clickCount": 1}
        self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button, **more)

    def size(self, width: int, height: int = 900, *, phone: bool = False) -> None:
        """Give the window another size; `phone` also gives it a touch screen and a phone's way of laying out pages."""
        scale = 2 if phone else 1
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )

    def show(self, *, dark: bool | None = None, printed: bool | None = None) -> None:
        """Show the page in dark colours, or as it is printed; what is None stays as it is."""
        if dark is not None:
            self._media["prefers-color-scheme"] = "dark" if dark else "light"
        if printed is not None:
            self._media["media"] = "print" if printed else "screen"
        features = [{"name": name, "value": value} for name, value in self._media.items() if name != "media"]
        self.command("Emulation.setEmulatedMedia", media=self._media.get("media", "screen"), features=features)

    def screenshot(self, path: Path | None = None, *, whole: bool = True) -> bytes:
        """A PNG of the whole page or of what is in view, also written to a file if there is a path."""
        size = self.command("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"clip": {"x": 0, "y": 0, "scale": 1, "width": size["width"], "height": size["height"]}} if whole else {}
        answer = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **clip)
        return _written(base64.b64decode(answer["data"]), path)

    def pdf(self, path: Path | None = None) -> bytes:
        """The page as it is printed, on A4."""
        answer = self.command("Page.printToPDF", printBackground=False, paperWidth=8.27, paperHeight=11.69)
        return _written(base64.b64decode(answer["data"]), path)

    def close(self) -> None:
        """Close the tab."""
        self.browser._tabs.pop(self.session)
        self.browser.command("Target.closeTarget", targetId=self.target)

    def _happened(self, method: str, told: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            address = told["request"]["url"]
            if not address.startswith("data:"):
                self._asked[told["requestId"]] = address
                self.requests.append(address)
        elif method == "Network.loadingFailed" and not told.get("canceled"):
            self.failed.append(self._asked.get(told["requestId"], "data:"))
        elif method == "Network.responseReceived" and told["response"]["status"] >= 400:
            self.failed.append(told["response"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(_exception(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.errors.append(" ".join(str(each.get("value", each.get("description"))) for each in told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.errors.append(told["entry"]["text"])


def _exception(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description") or details["text"])


def _written(data: bytes, path: Path | None) -> bytes:
    if path is not None:
        path.write_bytes(data)
    return data


def _above_four(pipe: tuple[int, int]) -> list[int]:
    """The same pipe with higher descriptors."""
    higher = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in pipe]
    for each in pipe:
        os.close(each)
    return higher


@contextmanager
def running_browser(program: str) -> Iterator[Browser]:
    """A browser with a new profile, which ends with the block."""
    (there, writes), (reads, back) = map(_above_four, (os.pipe(), os.pipe()))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The browser reads commands from descriptor 3 and answers to descriptor 4.
        script = f'exec "$@" 3<&{there} 4>&{back}'
        words = [program, *_SWITCHES, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            ["/bin/bash", "-c", script, "browser", *words],
            pass_fds=(there, back),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(there)
        os.close(back)
        try:
            yield Browser(process, reads, writes)
        finally:
            os.close(writes)
            os.close(reads)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(_PATIENCE)
