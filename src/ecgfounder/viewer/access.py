"""Who may look: a link that works once, a cookie, and what every request must be like.

In: the headers of a request. Out: whether it is admitted, or why not. The page is for the person who started the program on this
machine (or through a tunnel to it): not for another user of the machine, another page in the same browser, or a name of a server
that was made to mean this machine.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from email.message import Message
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
        # by hand: http.cookies stops at a cookie of another program that it does not understand
        pairs = (each.strip().partition("=") for each in cookies.split(";"))
        given = [value for name, _, value in pairs if name == self._cookie]
        return any(hmac.compare_digest(each.encode("utf-8", "replace"), self._session.encode()) for each in given)


def is_asked_by_this_page(headers: Message, *, enters: bool = False) -> bool:
    """Whether a request names this machine as its host, and does not come from a page elsewhere.

    A link that is followed from a page elsewhere (a terminal in a browser) may enter.
    """
    hosts, origins = headers.get_all("Host", []), headers.get_all("Origin", [])
    if len(hosts) != 1 or not _is_ours(hosts[0]):
        return False
    if any(origin != f"http://{hosts[0]}" for origin in origins):
        return False
    return enters or all(each in ("same-origin", "none") for each in headers.get_all("Sec-Fetch-Site", []))


def _is_ours(host: str) -> bool:
    try:
        parts = urlsplit(f"//{host}")
        valid_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return parts.hostname in HOSTS and parts.username is None and not parts.path and valid_port and "@" not in host
