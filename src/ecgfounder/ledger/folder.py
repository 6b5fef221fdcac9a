"""The run's folder, `<output_dir>/_run/`: the places of its files, and run.json.

In: an output folder in any store. Out: its places; the `RunRecord` of run.json.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import orjson

from ecgfounder.cohort.naming import RUN_FOLDER
from ecgfounder.errors import RunError, StorageError
from ecgfounder.ledger.card import CARD, card_of, is_card
from ecgfounder.ledger.entry import is_inside
from ecgfounder.ledger.record import RunRecord
from ecgfounder.storage import NO_OPTIONS, Conflict, Location, Missing, StorageOptions, locate_output
from ecgfounder.storage.writing import write_whole

TABLES = ("manifest", "predictions", "statements")
"""Tables in Parquet. They end in .pq, so that the pattern *.parquet matches embeddings only."""
TABLE_SUFFIX, OLD_TABLE_SUFFIX = ".pq", ".parquet"
TEXTS = ("failures.csv", "predictions.csv", "collisions.txt")


class RunFolder:
    """Places of a run's files.

    Attributes
    ----------
    output_dir : Location
        Folder of the embeddings.
    run : Location
        `<output_dir>/_run`.
    ledger : Location
        Folder of the ledger's parts.
    """

    def __init__(self, output_dir: str | os.PathLike[str] | Location, options: StorageOptions = NO_OPTIONS) -> None:
        self.output_dir = locate_output(output_dir, options)
        self.run = self.output_dir / RUN_FOLDER
        self.ledger = self.run / "ledger"
        self.run_json = self.run / "run.json"
        self.failures = self.run / "failures.csv"
        self.collisions = self.run / "collisions.txt"

    @property
    def is_remote(self) -> bool:
        """Whether the folder is in a store that groups are committed to, not on this machine."""
        return not self.output_dir.is_local

    @property
    def path(self) -> Path:
        """`<output_dir>/_run` as a path on this machine."""
        return self.run.path

    @property
    def scratch(self) -> Path:
        """Folder for files that are being written."""
        return self.path / "scratch"

    @property
    def locks(self) -> Path:
        """Folder of the locks."""
        return self.path / "locks"

    def table(self, name: str) -> Location:
        """Where one of `TABLES` is written."""
        return self.run / f"{name}{TABLE_SUFFIX}"

    def find_table(self, name: str) -> Location | None:
        """Where one of `TABLES` is, also under its name in version 0.1.0; None if it does not exist."""
        places = (self.table(name), self.run / f"{name}{OLD_TABLE_SUFFIX}")
        return next((place for place in places if place.exists()), None)

    def tables(self) -> Iterator[Location]:
        """All existing tables, including text files."""
        yield from (place for name in TABLES if (place := self.find_table(name)) is not None)
        yield from (self.run / name for name in TEXTS if (self.run / name).exists())

    def read(self) -> RunRecord | None:
        """Read the record of run.json; None if there is none yet.

        Raises
        ------
        RunError
            If it is damaged, or of a newer version of the program.
        """
        try:
            content = self.run_json.read()
        except Missing:
            return None
        except StorageError as error:
            raise RunError(f"{self.run_json} cannot be read: {error}.") from error
        return RunRecord.parse(content, str(self.run_json))

    def write(self, record: RunRecord) -> None:
        """Replace run.json atomically."""
        write_whole(self.run_json, _content_of(record))

    def create(self, record: RunRecord) -> bool:
        """Write run.json if there is none; of several processes that do this at once, one succeeds."""
        try:
            self.run_json.create(_content_of(record))
        except Conflict:
            return False
        except StorageError as error:
            raise RunError(f"{self.run_json} cannot be written: {error}.") from error
        return True

    def write_card(self, record: RunRecord) -> None:
        """Write the card beside the embeddings; one that the user wrote is kept."""
        card, place = card_of(record.form), self.output_dir / CARD
        if card is None:
            return
        try:
            before = place.read(0, 4096)
        except StorageError:
            if not _is_taken(place):
                write_whole(place, card.encode())
            return
        if before != card.encode() and is_card(before):
            write_whole(place, card.encode())

    def has_card(self) -> bool:
        """Whether the folder has a card that this program wrote."""
        place = self.output_dir / CARD
        return place.exists() and is_card(place.read(0, 4096))


def leads_out(folder: Location, name: str) -> bool:
    """Whether a name in a folder, by itself or through symbolic links, leads out of the folder or into the run record."""
    if not is_inside(name):
        return True
    return folder.is_local and not os.path.realpath(folder / name).startswith(
        os.path.join(os.path.realpath(folder), "")
    )


def _is_taken(place: Location) -> bool:
    """Whether a name is taken, on this machine also by a folder or a link that leads nowhere."""
    return os.path.lexists(place) if place.is_local else place.exists()


def _content_of(record: RunRecord) -> bytes:
    return orjson.dumps(record.as_dict(), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
