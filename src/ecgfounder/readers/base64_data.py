"""Binary data that a file of text holds as base64."""

from __future__ import annotations

import base64
import binascii

from ecgfounder.errors import ReadError


def decoded(text: str, what: str) -> bytes:
    """The bytes of base64 text, white space ignored.

    Parameters
    ----------
    text : str
        RFC 4648 base64, with its padding.
    what : str
        Names the text in the error.

    Raises
    ------
    ReadError
        If it is anything else.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ReadError(f"{what} is not base64") from error
