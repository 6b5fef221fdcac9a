"""Parsing XML from strangers: no entities, no network, no external files, bounded depth and size.

Six dialects of ECG share the suffix '.xml'; a reader recognises its own by the root element, found by `root_of`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

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


def root_of(source: Source) -> Root | None:
    """The root element, read from the file's first bytes alone; None where they are not XML."""
    head = source.head
    if not looks_like_xml(head):
        return None
    parser = etree.XMLPullParser(
        events=("start",), resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        parser.feed(head)
        for _event, element in parser.read_events():
            name = etree.QName(element)
            return Root(name.namespace or "", name.localname)
    except etree.XMLSyntaxError:
        return None
    return None


def parse(source: Source) -> etree._Element:
    """Parse the whole document and return its root element.

    A DOCTYPE is normal (GE MUSE writes one); a declared entity is not, and is refused whether or not it is used.

    Raises
    ------
    ReadError
        If the document is not well-formed, declares entities, or exceeds libxml2's limits on depth and text size.
    """
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(source.content, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise ReadError(f"not well-formed XML: {_first_line(error)}") from error
    dtd = root.getroottree().docinfo.internalDTD
    if dtd is not None and next(iter(dtd.iterentities()), None) is not None:
        raise ReadError("the XML declares entities, which are refused")
    return root


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
        raise ReadError(f"{what} is not a number")  # the text itself may be about the patient
    return float(stripped)


def integer(text: str | None, what: str) -> int:
    """A whole number from a file; `what` names it in the error."""
    value = number(text, what)
    if value != int(value):
        raise ReadError(f"{what} is not a whole number: {value}")
    return int(value)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return (lines[0] if lines else "empty document")[:200]
