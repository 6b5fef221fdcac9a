"""The card of a run's folder, `README.md`: what is in it, for people, and for `datasets.load_dataset`, which embeddings are.

In: a run's form. Out: the card's text.
"""

from __future__ import annotations

from ecgfounder.ledger.record import RunForm

CARD = "README.md"

_FILES = {
    ("parquet", "flat"): ("embeddings-*.parquet",),
    ("parquet", "tree"): ("embeddings-*.parquet",),
    ("json", "flat"): ("*.json",),
    ("json", "tree"): ("*.json", "[!_]*/**/*.json"),
}


_TITLE = "# ECGFounder embeddings"


def is_card(content: bytes) -> bool:
    """Whether a README.md is a card that was written here, and not the user's own."""
    return content.startswith(b"---\nconfigs:\n") and _TITLE.encode() in content


def card_of(form: RunForm) -> str | None:
    """The card of a run, or None where its embeddings are in no form that `load_dataset` reads (NPY)."""
    files = _FILES.get((form.format, form.layout))
    if files is None:
        return None
    listed = "\n".join(f'  - "{pattern}"' for pattern in files)
    name, version = form.recipe
    return f"""---
configs:
- config_name: default
  data_files:
{listed}
---
{_TITLE}

Made from ECG files by the program `ecgfounder` with the network
[ECGFounder](https://huggingface.co/PKUDigitalHealth/ECGFounder): mode {form.mode}, recipe {name} v{version},
pooling {form.pooling}. `_run/` holds the run's record: `run.json`, `manifest.pq` (a Parquet table with a row per recording),
`failures.csv`.
`load_dataset` of this folder gives the embeddings; `ecgfounder.open_run` gives them with what is known of each.
"""
