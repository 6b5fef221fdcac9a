"""Who may look: a link that works once, a cookie, and what every request must be like.

In: the headers of a request. Out: whether it is admitted, or why not. The page is for the person who started the program on this
machine (or through a tunnel to it): not for another user of the machine, another page in the same browser, or a name of a server
that was made to mean this machine.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

HOSTS = ("127.0.0.1", "localhost")
"""Names by which a browser may ask; the port may be another one, that of a tunnel."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""Of every answer."""

_LONGEST_COOKIE = 8192


class Access:
    """The link and the cookie of one call of the program.

    Parameters
    ----------
    port : int
        The port that the server listens to; part of the cookie's name, because browsers send cookies to all ports.
    """

    def __init__(self, port: int) -> None:
        self.token = secrets.token_urlsafe(32)
        self._session = secrets.token_urlsafe(32)
        self._cookie = f"ecgfounder-{port}"
        self._is_used = False
        self._lock = threading.Lock()

    def exchange(self, token: str) -> str | None:
        """The header Set-Cookie for the token of the link; None if it is another one, or was used before."""
        with self._lock:
            if self._is_used or not hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode()):
                return None
            self._is_used = True
        return f"{self._cookie}={self._session}; HttpOnly; SameSite=Strict; Path=/"

    def knows(self, cookies: str) -> bool:
        """Whether a header Cookie has the cookie that the link was exchanged for."""
        if len(cookies) > _LONGEST_COOKIE:
            return False
        try:
            given = SimpleCookie(cookies).get(self._cookie)
        except CookieError:
            return False
        return given is not None and hmac.compare_digest(given.value.encode("utf-8", "replace"), self._session.encode())


def is_asked_by_this_page(headers: Mapping[str, str], *, enters: bool = False) -> bool:
    """Whether a request names this machine as its host, and does not come from a page elsewhere.

    A link that is followed from a page elsewhere (a terminal in a browser) may enter.
    """
    host = headers.get("Host", "")
    if not _is_ours(host):
        return False
    origin = headers.get("Origin")
    if origin is not None and origin != f"http://{host}":
        return False
    return enters or headers.get("Sec-Fetch-Site", "same-origin") in ("same-origin", "none")


def _is_ours(host: str) -> bool:
    try:
        parts = urlsplit(f"//{host}")
        valid_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return parts.hostname in HOSTS and parts.username is None and not parts.path and valid_port and "@" not in host
