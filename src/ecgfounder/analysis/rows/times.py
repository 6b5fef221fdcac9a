"""Columns of times.

In: a column of times or dates, or of such texts. Out: timestamps, which can be compared and put in order. Texts must be those of
ISO 8601, such as 2020-01-31 12:00:00: in the order of texts, 10/1/2020 is before 9/1/2019.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.errors import SettingsError


def times_of(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A column as timestamps without a zone; those with one are in UTC. An empty text is a missing value.

    Raises
    ------
    SettingsError
        If its values are no times, or some have a zone and others do not. The message quotes none.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    try:
        if not (is_text or pa.types.is_temporal(kind)):
            raise pa.ArrowInvalid("numbers")
        column = column.cast(pa.string() if is_text else kind)
        if is_text:
            column = pc.utf8_trim_whitespace(column)
            column = pc.if_else(pc.equal(column, ""), None, column)
            if pc.all(pc.match_substring_regex(column, _ZONE)).as_py():
                column = column.cast(pa.timestamp("us", "UTC"))
        return column.cast(pa.timestamp("us"))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SettingsError(
            f"the column {name!r} holds values that are no times, such as 2020-01-31 12:00:00"
        ) from error


def dates_in(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """A column of times, or of texts that are all times, as timestamps; None for another, and for texts without a value."""
    try:
        found = times_of(column, "")
    except SettingsError:
        return None
    return found if pa.types.is_temporal(column.type) or found.null_count < len(found) else None


_ZONE = r":\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)$"
