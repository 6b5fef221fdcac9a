"""Tables of numbers as text: CSV and TSV in many variants, and exports of several recorders and programs.

In: the whole file and the user's hints. Out: a `Recording`. The hints must give what the file does not state (rate, unit, leads).
"""

from __future__ import annotations

from dataclasses import replace

from ecgfounder.ecg.leads import KNOWN_LEADS, canonical_lead
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError
from ecgfounder.readers import muse_text, opensignals, watch
from ecgfounder.readers.plain_text import decoded, is_text
from ecgfounder.readers.remarks import described_by, json_of
from ecgfounder.readers.source import HEAD_BYTES, Hints, Source
from ecgfounder.readers.table_columns import recording_of_columns, require_index
from ecgfounder.readers.tables import MAX_LEADS, Description, recording_of
from ecgfounder.readers.text_layout import Layout, layout_of, looks_like_table, numbers

FORMAT = "csv"

MAX_TEXT_BYTES = 64 << 20


def matches(source: Source) -> bool:
    """Whether the text begins with lines of numbers, possibly below remarks, names and units, or as an export that is known."""
    head = source.head
    if not is_text(head):
        return False
    text = decoded(head)
    return (
        looks_like_table(text, cut_off=len(head) == HEAD_BYTES)
        or watch.export_in(text) is not None
        or opensignals.has_title(text)
        or muse_text.has_titles(text)
    )


def read(source: Source) -> Recording:
    """Read a table of numbers.

    Raises
    ------
    ReadError
        If fields are not numbers or rows differ in length; if it is not certain which columns are leads; if neither file nor
        hints give sampling rate, unit and leads.
    """
    content = source.content
    if len(content) > MAX_TEXT_BYTES:
        raise ReadError(f"table of {len(content):,} bytes of text; at most {MAX_TEXT_BYTES:,} are read")
    text = decoded(content)
    head = text[:HEAD_BYTES]
    export = watch.export_in(head)
    if export is not None:
        return _single_lead(watch.numbers_in(text[export.begin :]), export.description, source)
    above = ""
    if muse_text.has_titles(head):
        above, text = muse_text.rhythm_in(text)
    remarks, layout = layout_of(text)
    description = described_by([*above.split("\n"), *remarks])
    if layout.width > MAX_LEADS and layout.has_more_rows(MAX_LEADS):
        raise ReadError(
            f"the table has {layout.width:,} columns and more rows than leads; at most {MAX_LEADS} leads are read"
        )
    channels = opensignals.channels_of(json_of(remarks), layout.width)
    if channels is not None:
        return _from_channels(layout, channels, description, source.hints)
    if canonical_lead(layout.first[0]) in KNOWN_LEADS:
        rows = layout.rows()
        values = numbers([row[1:] for row in rows])
        named = replace(description, leads=tuple(row[0] for row in rows))
        return recording_of(values, named, source.hints, FORMAT, leads_on=0)
    header = layout.header or _header_for(layout, description, source.hints)
    if header is None:
        return recording_of(layout.values(range(layout.width)), description, source.hints, FORMAT)
    return recording_of_columns(layout, header, description, source.hints, FORMAT)


def _single_lead(body: str, description: Description, source: Source) -> Recording:
    """One number in each line."""
    first = (body.split(maxsplit=1)[0],)
    layout = Layout(";", None, None, body, first, first)
    return recording_of(layout.values([0])[:, 0], description, source.hints, FORMAT)


def _header_for(layout: Layout, description: Description, hints: Hints) -> tuple[str, ...] | None:
    """Names of the columns of a table without a line of names: from remarks or from the user; None if its axes decide.

    There may be one column more than names, if it is first and is the number or time of the rows. Columns that are no numbers
    have no names.
    """
    columns = [column for column in range(layout.width) if column not in layout.text_columns]
    for names in (description.leads, hints.leads):
        if not names:
            continue
        header = [""] * layout.width
        if len(columns) == len(names) + 1 and not layout.has_rows(len(columns)):
            require_index(layout, columns[0], len(names))
            header[columns[0]] = "time"
            named = columns[1:]
        elif len(columns) == len(names) and (names is description.leads or len(columns) < layout.width):
            named = columns
        else:
            continue
        for column, name in zip(named, names, strict=True):
            header[column] = name
        return tuple(header)
    return None


def _from_channels(layout: Layout, channels: dict[int, str], description: Description, hints: Hints) -> Recording:
    """A table whose head tells which columns are channels, and which of these are ECG.

    The user's names may be those of the ECG channels, of all channels, or of all columns if only ECG channels are leads in them.
    """
    columns = sorted(channels)
    hinted = hints.leads or ()
    names_all = len(hinted) in (len(columns), layout.width)
    places = opensignals.chosen_channels([channels[column] for column in columns], may_be_any=names_all)
    chosen = [columns[place] for place in places]
    leads = tuple(channels[column] for column in chosen)
    others = [name for column, name in enumerate(hinted) if column not in chosen]
    if len(hinted) == layout.width > len(chosen) and KNOWN_LEADS.isdisjoint(others):
        leads, hints = tuple(hinted[column] for column in chosen), replace(hints, leads=None)
    return recording_of(layout.values(chosen), replace(description, leads=leads), hints, FORMAT, leads_on=1)
