"""Parsing of untrusted XML: no entities, no network, no external files, limited depth and size.

In: a file's content. Out: its root element, or the root element's name alone, by which readers recognise their format: many ECG
formats share the suffix '.xml'.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
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


class Parsed(NamedTuple):
    """A document's root element; `damage` is the error of a document that is not well-formed and was repaired."""

    root: etree._Element
    damage: ReadError | None

    def refuse_unless(self, is_whole: Callable[[], bool], leads: Sequence[str]) -> None:
        """Raise `damage`, if there is any, unless all samples are there and no lead's name was damaged."""
        if self.damage is not None and (any(_REPLACEMENT in lead for lead in leads) or not is_whole()):
            raise self.damage


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
    parsed = parse_or_repair(source)
    if parsed.damage is not None:
        raise parsed.damage
    return parsed.root


def parse_or_repair(source: Source) -> Parsed:
    """`parse`, also for a document that is not well-formed because of single characters in its texts.

    Control characters in texts and attributes become U+FFFD, and ampersands that begin no reference are escaped. Tags are not
    changed. U+FFFD is in no number and no base64 data, so that damage in them is refused. The caller must call
    `Parsed.refuse_unless`, because samples may have been lost with other characters.
    """
    content = source.content
    if _encoding_by_bytes(content) is None and not _begins_and_ends_with_markup(content):
        content = content.strip(b" \t\r\n\0\x1a")
    damage = None
    try:
        root = _parsed(content)
    except (etree.XMLSyntaxError, ValueError) as error:
        damage = ReadError(f"not well-formed XML ({_where(error)})")
        repaired = _repaired(content)
        try:
            if repaired is None:
                raise damage from error
            root = etree.fromstring(repaired.encode(), _parser("utf-8"))
        except (etree.XMLSyntaxError, ValueError):
            raise damage from error
    dtd: Any = root.getroottree().docinfo.internalDTD
    if dtd is not None and dtd.entities():
        raise ReadError("the XML declares entities, which are refused")
    return Parsed(root, damage)


def _begins_and_ends_with_markup(content: bytes) -> bool:
    """Whether nothing but line breaks and blanks follows the document, which parsers allow; it need not be copied then."""
    return content.startswith(b"<") and content[-64:].rstrip(b" \t\r\n").endswith(b">")


_MAX_REPAIRS = 1000
_MAX_REPAIRED_BYTES = 16 << 20
_MAX_TAGS = _MAX_REFERENCES = 200_000
_REPLACEMENT = "\ufffd"
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # no characters of XML
_BARE_AMPERSAND = re.compile("&(?!(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});)")
_CHARACTER = re.compile("&#(?:([0-9]{1,7})|x([0-9A-Fa-f]{1,6}));")
_QUOTED = re.compile("\"[^\"]*\"|'[^']*'")
_OTHER_MARKUP = {"<!--": "-->", "<![CDATA[": "]]>", "<?": "?>", "<!": ">", "</": ">"}


def _repaired(content: bytes) -> str | None:
    """The document with texts that a parser accepts; None if nothing or too much would change, or markup has no end."""
    if len(content) > _MAX_REPAIRED_BYTES:
        return None
    encoding = _encoding_by_bytes(content)
    try:
        text = content.decode(encoding or "utf-8", "replace" if encoding else "strict").removeprefix("\ufeff")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    pieces: list[str] = []
    n_changed, at = 0, 0
    for _ in range(_MAX_TAGS):
        tag = text.find("<", at)
        mended, n_here = _mended(text[at:tag] if tag >= 0 else text[at:])
        n_changed += n_here
        pieces.append(mended)
        if n_changed > _MAX_REPAIRS:
            return None
        if tag < 0:
            return "".join(pieces) if n_changed else None
        start = next((start for start in _OTHER_MARKUP if text.startswith(start, tag)), "<")
        closing = _OTHER_MARKUP.get(start, ">")
        end = text.find(closing, tag + len(start))
        if end < 0:
            return None
        at = end + len(closing)
        if start == "<":
            for quoted in _QUOTED.finditer(text, tag, at):
                mended, n_here = _mended(quoted[0])
                n_changed += n_here
                pieces += [text[tag : quoted.start()], mended]
                tag = quoted.end()
        pieces.append(text[tag:at])
    return None


def _mended(text: str) -> tuple[str, int]:
    """A text without control characters and bare ampersands, and the number of changes; too many are not all made."""
    text, n_controls = _CONTROL.subn(_REPLACEMENT, text, _MAX_REPAIRS + 1)
    if "&" not in text:
        return text, n_controls
    text, n_ampersands = _BARE_AMPERSAND.subn("&amp;", text, _MAX_REPAIRS + 1)
    before = text.count(_REPLACEMENT)
    text = _CHARACTER.sub(_reference, text, _MAX_REFERENCES)
    return text, n_controls + n_ampersands + text.count(_REPLACEMENT) - before


def _reference(found: re.Match[str]) -> str:
    """A reference to a character that XML allows, as it is."""
    code = int(found[1] or found[2], 10 if found[1] else 16)
    return _REPLACEMENT if code > 0x10FFFF or _CONTROL.match(chr(code)) else found[0]


_MAX_TRANSCODED_BYTES = 4 << 20
_BLANKS = "[ \t\r\n]"
_DECLARED = re.compile(  # as the recommendation has it
    rf"<\?xml{_BLANKS}+version{_BLANKS}*={_BLANKS}*([\"'])1\.[0-9]+\1{_BLANKS}+"
    rf"(?P<encoding>encoding{_BLANKS}*={_BLANKS}*([\"'])[A-Za-z][A-Za-z0-9._-]*\3)"
    rf"(?:{_BLANKS}+standalone{_BLANKS}*={_BLANKS}*([\"'])(?:yes|no)\4)?{_BLANKS}*\?>"
)


def _parsed(content: bytes) -> etree._Element:
    encoding = _encoding_by_bytes(content)
    if encoding in ("utf-16-le", "utf-16-be") and len(content) <= _MAX_TRANSCODED_BYTES:
        # Together, this takes a third of the parser's time for UTF-16, in which it does not heed the declaration either.
        try:
            text = content.decode(encoding).removeprefix("\ufeff")
        except UnicodeDecodeError:  # the parser says where it is damaged
            text = ""
        if declared := _DECLARED.match(text):
            start, end = declared.span("encoding")
            lines = "\n" * text.count("\n", start, end)
            return etree.fromstring((text[:start] + lines + text[end:]).encode(), _parser(None))
    try:
        return etree.fromstring(content, _parser(None))
    except etree.XMLSyntaxError:
        if encoding is not None:
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
        remove_blank_text=True,  # between elements; the parser is a third faster without these nodes
        collect_ids=False,
    )


def local_name(element: etree._Element) -> str:
    """An element's name without its namespace."""
    return str(element.tag).rpartition("}")[2]


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
