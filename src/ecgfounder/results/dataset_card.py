"""The dataset card of embeddings: README.md with the metadata that the Hugging Face Hub reads.

In: a run's record and its counts. Out: Markdown, without names of recordings and files, without values of kept columns, and
without counts below `FEWEST`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow as pa

from ecgfounder._version import __version__
from ecgfounder.ledger.card import card_of
from ecgfounder.ledger.record import RunRecord
from ecgfounder.results.run import EmbeddingRun
from ecgfounder.results.small_cells import FEWEST, with_rare_together

CARD_NAME = "README.md"

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
)

_PRIVACY = """\
These embeddings are data of patients. They can be linked to another ECG of the same person, and age, sex and diseases can be
predicted from them. Removing names and paths does not make them anonymous. The licence, the consent and the data use agreement of
the cohort govern them as they govern its recordings; whoever shares them answers for that."""

PRETRAINING = """\
ECGFounder was trained on more than ten million ECGs of the Harvard-Emory ECG Database. That recordings of this cohort were among
them cannot be excluded."""
"""What is known of the overlap of a cohort with the data that the network was trained on."""

CITATION = """\
@article{li2025ecgfounder,
  title = {An Electrocardiogram Foundation Model Built on over 10 Million Recordings},
  author = {Li, Jun and Aguirre, Aaron D. and Moura Junior, Valdery and Jin, Jiarui and Liu, Che and Zhong, Lanhai and Sun, Chenxi
            and Clifford, Gari and Westover, M. Brandon and Hong, Shenda},
  journal = {NEJM AI},
  volume = {2},
  number = {7},
  year = {2025},
  doi = {10.1056/AIoa2401033}
}"""
"""What to cite, as BibTeX."""


def dataset_card(run: EmbeddingRun) -> str:
    """The dataset card of a run's folder.

    Parameters
    ----------
    run : EmbeddingRun
        An opened run.

    Returns
    -------
    str
        The content of README.md: the Hub's metadata, what the embeddings are and how they were made, what they reveal, the
        citation. Formats and sampling rates of fewer than 11 recordings are shown together, with the next rarest.
    """
    form, records = run.record.form, run.records
    columns = {name: records[name] for name in ("format", "sampling_rate")}
    listed = card_of(form)
    configs = "" if listed is None else listed.partition("\n")[2]
    return _card(run.record, records.num_rows, columns, configs, _READ_RUN.format(format=form.format))


def card_of_copy(
    record: RunRecord, n_records: int, columns: Mapping[str, pa.ChunkedArray], copied: Sequence[str]
) -> str:
    """The dataset card of a copy for sharing; `copied` are its columns beside the embeddings."""
    configs = 'configs:\n- config_name: default\n  data_files:\n  - "embeddings-*.parquet"\n'
    table = "".join(f"| `{name}` | {what} |\n" for name, what in _columns_of(record, copied))
    return _card(record, n_records, columns, configs, _READ_COPY.format(columns=table))


_READ_RUN = """\
The folder is a run of the program ecgfounder, of the format {format}: `ecgfounder.open_run(folder)` gives its embeddings as
arrays, aligned with the table of its recordings."""

_READ_COPY = """\
```python
from datasets import load_dataset

rows = load_dataset("FOLDER OR REPOSITORY", split="train").with_format("numpy")
```

| column | content |
|---|---|
{columns}
Keys and the order of the rows are random. Names, paths, hashes, sizes and times of the recordings' files are not in this copy,
nor are recordings that could not be embedded."""


def _columns_of(record: RunRecord, copied: Sequence[str]) -> list[tuple[str, str]]:
    form = record.form
    shape = "[1024]" if form.pooling == "mean" else "[T, 1024], a row for every 256 samples at 500 Hz"
    both = [("embedding_mean", f"the mean over T, {form.dtype} [1024]")] if form.pooling == "both" else []
    return [
        ("key", "a random name of the recording; rows of its windows and leads have the same"),
        ("window, window_start, lead", "the window's number, its start in seconds, and the lead, if there are several"),
        ("embedding", f"{form.dtype} {shape}"),
        *both,
        ("shape", "of the embedding"),
        *((name, "a random name of the patient" if name == "group" else "as in the cohort") for name in copied),
    ]


def _card(
    record: RunRecord, n_records: int, columns: Mapping[str, pa.ChunkedArray], configs: str, how_to_read: str
) -> str:
    form = record.form
    size = next((name for most, name in _SIZES if n_records < most), "100M<n<1B")
    recipe, version = form.recipe
    pooled = {
        "none": "feature maps [T, 1024]",
        "mean": "means over time [1024]",
        "both": "feature maps and their means",
    }
    made = {
        "recordings": f"{n_records:,}" if n_records >= FEWEST else f"fewer than {FEWEST}",
        "network": f"ECGFounder, {form.mode}",
        "checkpoint": f"SHA-256 `{record.fingerprint.get('checkpoint_sha256', 'unknown')}`",
        "embeddings": f"{pooled[form.pooling]}, {form.dtype}",
        "preparation": f"recipe {recipe} v{version}",
        "program": f"ecgfounder {__version__}",
    }
    facts = "".join(f"| {name} | {what} |\n" for name, what in made.items())
    counts = "".join(_counts(name, column) for name, column in columns.items())
    return (
        f"---\npretty_name: ECGFounder embeddings\nlicense: other\nlicense_name: licence-of-the-cohort\n"
        f"task_categories:\n- feature-extraction\ntags:\n- medical\n- ecg\n- electrocardiogram\n- embeddings\n- ecgfounder\n"
        f"size_categories:\n- {size}\n{configs}---\n\n"
        f"# ECGFounder embeddings\n\n"
        f"Embeddings of {'electrocardiograms' if n_records != 1 else 'an electrocardiogram'}, made with the ECGFounder network. "
        f"To be completed by whoever shares them: the cohort, its licence, its ethics approval, a contact.\n\n"
        f"| | |\n|---|---|\n{facts}\n{counts}"
        f"## How to read them\n\n{how_to_read}\n\n"
        f"## What they reveal\n\n{_PRIVACY}\n\n{PRETRAINING}\n\n"
        f"## Citation\n\n```bibtex\n{CITATION}\n```\n"
    )


def _counts(name: str, column: pa.ChunkedArray) -> str:
    """A table of the values' counts, rare ones together; empty if all would be."""
    rows = with_rare_together(Counter(map(_shown, column.to_pylist())))
    if not rows:
        return ""
    lines = "".join(f"| {value} | {n:,} |\n" for value, n in rows)
    return f"| {name.replace('_', ' ')} | recordings |\n|---|---|\n{lines}\n"


def _shown(value: str | float | None) -> str:
    return "unknown" if value is None else value if isinstance(value, str) else f"{value:g} Hz"
