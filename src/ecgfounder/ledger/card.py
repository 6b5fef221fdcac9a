"""What `datasets.load_dataset` takes of a run's folder: the embeddings, and nothing of the run's own files.

In: a run's form. Out: the content of `.huggingface.yaml`, the file beside a dataset's data that says which files are data.
"""

from __future__ import annotations

from ecgfounder.ledger.record import RunForm

CARD = ".huggingface.yaml"

_HEADER = "# Written by ecgfounder: which files load_dataset takes for embeddings. _run/ holds the run's own record.\n"

_FILES = {
    ("parquet", "flat"): ("embeddings-*.parquet",),
    ("parquet", "tree"): ("embeddings-*.parquet",),
    ("json", "flat"): ("*.json",),
    # Every folder but `_run`, which patterns can only say letter by letter.
    ("json", "tree"): (
        *("*.json", "[!_]*/**/*.json", "_/**/*.json", "_[!r]*/**/*.json", "_r/**/*.json", "_r[!u]*/**/*.json"),
        *("_ru/**/*.json", "_ru[!n]*/**/*.json", "_run?*/**/*.json"),
    ),
}


def card_of(form: RunForm) -> str | None:
    """The card of a run, or None where its embeddings are in no form that `load_dataset` reads (NPY)."""
    files = _FILES.get((form.format, form.layout))
    if files is None:
        return None
    listed = "".join(f'  - "{pattern}"\n' for pattern in files)
    return f"{_HEADER}configs:\n- config_name: default\n  data_files:\n{listed}"


def is_card(content: bytes) -> bool:
    """Whether a file is a card that was written here, and not the user's own."""
    return content.startswith(_HEADER.encode())
