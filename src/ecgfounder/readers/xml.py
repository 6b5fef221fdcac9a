"""Parsing of untrusted XML: no entities, no network, no external files, limited depth and size.

In: a file's content. Out: its root element, or the root element's name alone, by which readers recognise their format: many ECG
formats share the suffix '.xml'.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any, NamedTuple

from lxml import etree

from ecgfounder.errors import ReadError
from ecgfounder.readers.source import Source


class Root(NamedTuple):
    """Namespace (empty if none) and local name of a document's root element."""

    namespace: str
    name: str


_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def looks_like_xml(head: bytes) -> bool:
    """Whether the first bytes can be those of an XML document (UTF-8 or UTF-16)."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    return head.removeprefix(_BOMS[0]).lstrip()[:1] == b"<" or head[:4] in (b"<\x00?\x00", b"\x00<\x00?")


_MISC = re.compile(r"\s+|<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^\[>]*(?:\[.*?\]\s*)?>", re.DOTALL)
_START_TAG = re.compile(r"<(?:([\w.-]+):)?([\w.-]+)((?:\s[^<>]*)?)/?>", re.DOTALL)
_DOCTYPE = re.compile(r"<!DOCTYPE\s+(?:[\w.-]+:)?([\w.-]+)")


def root_of(source: Source) -> Root | None:
    """The root element's name, from the file's first bytes alone; None if they are not XML.

    It is found by a regular expression, not by a parser, so that an encoding error later in the file does not hide the format. If
    the document type declaration fills the first bytes, it gives the name.
    """
    return _root_in(source.head)


@lru_cache(maxsize=16)  # every reader of an XML format asks for it
def _root_in(head: bytes) -> Root | None:
    if not looks_like_xml(head):
        return None
    text = head.decode(_encoding_by_bytes(head) or "latin-1", "replace").removeprefix("\ufeff")
    position = 0
    while misc := _MISC.match(text, position):
        position = misc.end()
    tag = _START_TAG.match(text, position)
    if tag is None:
        doctype = _DOCTYPE.match(text, position)
        return Root("", doctype[1]) if doctype else None
    declared = re.search(rf"\sxmlns{':' + re.escape(tag[1]) if tag[1] else ''}\s*=\s*[\"']([^\"']*)", tag[3])
    return Root(declared[1] if declared else "", tag[2])


def _encoding_by_bytes(content: bytes) -> str | None:
    """The encoding by byte order mark, or of UTF-16 without one; None if the bytes do not show it."""
    if content.startswith(_BOMS[0]):
        return "utf-8"
    if content.startswith(b"\xff\xfe") or content[:4] == b"<\x00?\x00":
        return "utf-16-le"
    if content.startswith(b"\xfe\xff") or content[:4] == b"\x00<\x00?":
        return "utf-16-be"
    return None


def parse(source: Source) -> etree._Element:
    """Parse the whole document and return its root element.

    A document type declaration is allowed (GE MUSE writes one). Declared entities are refused, whether they are used or not.
    White space and NUL around the document are ignored. A document that is not written in the encoding that it declares, for
    example with a name in Latin-1 in a UTF-8 document, is read as UTF-8 if its bytes are valid UTF-8, else as Latin-1.

    Raises
    ------
    ReadError
        If the document is not well-formed, declares entities, or exceeds libxml2's limits on depth and text size.
    """
    content = source.content
    if _encoding_by_bytes(content) is None:
        content = content.strip(b" \t\r\n\0\x1a")
    try:
        root = _parsed(content)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise ReadError(f"not well-formed XML ({_where(error)})") from error
    dtd: Any = root.getroottree().docinfo.internalDTD
    if dtd is not None and dtd.entities():
        raise ReadError("the XML declares entities, which are refused")
    return root


def _parsed(content: bytes) -> etree._Element:
    try:
        return etree.fromstring(content, _parser(None))
    except etree.XMLSyntaxError:
        if _encoding_by_bytes(content) is not None:
            raise
        try:
            content.decode("utf-8")
        except UnicodeDecodeError:
            return etree.fromstring(content, _parser("iso-8859-1"))
        return etree.fromstring(content, _parser("utf-8"))


def _parser(encoding: str | None) -> etree.XMLParser:
    return etree.XMLParser(
        encoding=encoding,
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )


def local_name(element: etree._Element) -> str:
    """An element's name without its namespace."""
    return etree.QName(element).localname


def text_of(element: etree._Element | None) -> str:
    """An element's text without surrounding blanks; empty for none."""
    return "" if element is None else (element.text or "").strip()


_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?")


def number(text: str | None, what: str) -> float:
    """A finite decimal number from a file; `what` names it in the error."""
    stripped = (text or "").strip()
    if len(stripped) > 64 or not _NUMBER.fullmatch(stripped):
        raise ReadError(f"{what} is not a number")  # the text is not quoted: it may identify the patient
    value = float(stripped)
    if not math.isfinite(value):
        raise ReadError(f"{what} is too large")
    return value


def integer(text: str | None, what: str) -> int:
    """A whole number from a file; `what` names it in the error."""
    value = number(text, what)
    if value != int(value):
        raise ReadError(f"{what} is not a whole number: {value}")
    return int(value)


def _where(error: Exception) -> str:
    """The line of a syntax error; the parser's message is left out, because it quotes the file."""
    return f"line {error.lineno}" if isinstance(error, etree.XMLSyntaxError) and error.lineno else "no document"
