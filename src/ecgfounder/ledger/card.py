"""The file `.huggingface.yaml`, by which `datasets.load_dataset` reads a run's embeddings and not the files of `_run/`.

In: a run's form. Out: the content of the file, which lists the patterns of data files.
"""

from __future__ import annotations

from ecgfounder.ledger.record import RunForm

CARD = ".huggingface.yaml"

_HEADER = "# Written by ecgfounder: which files load_dataset takes for embeddings. _run/ holds the run's own record.\n"

_FILES = {
    ("parquet", "flat"): ("embeddings-*.parquet",),
    ("parquet", "tree"): ("embeddings-*.parquet",),
    ("json", "flat"): ("*.json",),
    # Every folder but `_run`, excluded letter by letter because patterns have no negation.
    ("json", "tree"): (
        *("*.json", "[!_]*/**/*.json", "_/**/*.json", "_[!r]*/**/*.json", "_r/**/*.json", "_r[!u]*/**/*.json"),
        *("_ru/**/*.json", "_ru[!n]*/**/*.json", "_run?*/**/*.json"),
    ),
}


def card_of(form: RunForm) -> str | None:
    """The card of a run, or None if `load_dataset` cannot read its format (NPY)."""
    files = _FILES.get((form.format, form.layout))
    if files is None:
        return None
    listed = "".join(f'  - "{pattern}"\n' for pattern in files)
    return f"{_HEADER}configs:\n- config_name: default\n  data_files:\n{listed}"


def is_card(content: bytes) -> bool:
    """Whether a file is a card that this module wrote, not one of the user."""
    return content.startswith(_HEADER.encode())
