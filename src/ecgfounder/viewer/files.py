"""The files of the page: HTML, styles and scripts, as they are in the package.

In: nothing. Out: their content and media type by the path that they are asked for; no path of a request is ever opened.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

INDEX = "/index.html"


@cache
def page_files() -> dict[str, tuple[bytes, str]]:
    """Content and media type by path, "/map.js"; "/" is the page itself."""
    found = {}
    for file in files("ecgfounder.viewer").joinpath("page").iterdir():
        name, dot, suffix = file.name.rpartition(".")
        if name and dot + suffix in MEDIA_TYPES:
            found[f"/{file.name}"] = (file.read_bytes(), MEDIA_TYPES[dot + suffix])
    return {**found, "/": found[INDEX]}
