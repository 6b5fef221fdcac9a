"""The text of files without a declared encoding.

In: bytes. Out: text, whose lines end in a line feed, and numbers in ASCII.
"""

from __future__ import annotations

import codecs
import re
import unicodedata

_UTF_16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_SIGNS = {
    **dict.fromkeys((0x2212, 0x2010, 0x2011, 0x2012, 0x2013, 0xFE63, 0xFF0D), "-"),
    0xFF0B: "+",
    0x066B: ",",  # the Arabic decimal separator
    **dict.fromkeys((0x200E, 0x200F, 0x061C, 0x202A, 0x202B, 0x202C, 0x2066, 0x2067, 0x2068, 0x2069, 0xFEFF), None),
}
"""Minus signs, and marks of the direction of text in front of numbers, as in texts of some languages."""


def is_text(head: bytes) -> bool:
    """Whether bytes may be text: with a byte order mark of UTF-16, or without a zero byte."""
    return head[:2] in _UTF_16 or b"\0" not in head


def decoded(data: bytes) -> str:
    """The text of a whole file, or of its first bytes.

    UTF-16 if there is a byte order mark, UTF-8 if the bytes are valid UTF-8 (up to a character that is cut off at the end), else
    Latin-1, which has a character for every byte. Lines that end in a carriage return alone end in a line feed instead.
    """
    encoding = _UTF_16.get(data[:2])
    text = data[2:].decode(encoding, "replace") if encoding else _eight_bit(data)
    return text.replace("\r", "\n") if "\r" in text and "\n" not in text else text


def _eight_bit(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        is_cut_off = (
            error.end == len(data) and len(data) - error.start < 4 and error.reason.startswith("unexpected end")
        )
        return data[: error.start].decode("utf-8-sig") if is_cut_off else data.decode("latin-1")


def with_ascii_numbers(text: str) -> str:
    """The text with decimal digits of other scripts, minus signs and decimal separators in ASCII, without marks of direction."""
    if text.isascii():
        return text
    plain = text.translate(_SIGNS)
    return re.sub(r"[^\W\D_]", lambda digit: str(unicodedata.decimal(digit[0], digit[0])), plain)
