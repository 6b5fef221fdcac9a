"""Rows of reports and notes with their embeddings, and the flags of a command over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets

from ecgfounder.cohort.naming import Naming

ROWS: list[dict[str, Any]] = [
    {"ecg_paths": [["a/x1.xml"]], "note": " chest pain ", "age": 61, "report_0": "Sinus rhythm", "report_1": "Normal"},
    {"ecg_paths": [["b/x2.xml", "b/x3.xml.gz"]], "note": "nan", "age": None, "report_0": "AF", "report_1": None},
    {"ecg_paths": [["a/x1.xml"]], "note": "", "age": 1, "report_0": "  ", "report_1": "NaN"},  # no target
    {"ecg_paths": None, "note": "n", "age": 2, "report_0": "no ECG", "report_1": None},
    {"ecg_paths": [[]], "note": "n", "age": 3, "report_0": "no ECG either", "report_1": None},
    {"ecg_paths": [["a/x1.xml"], ["a/gone.xml"]], "note": "n", "age": 4, "report_0": "one is gone", "report_1": None},
    {"ecg_paths": [["c/x.4.xml"]], "note": None, "age": 77, "report_0": None, "report_1": "Übergang ≥ V4 \U0001f493"},
    {"ecg_paths": [["a/x1.xml"]], "note": "see <m1>", "age": 5, "report_0": "tag in text", "report_1": None},
]
KEPT = [0, 1, 6]
INPUTS = ["a/x1.xml", "b/x2.xml", "b/x3.xml.gz", "c/x.4.xml"]


def write_rows(folder: Path) -> Path:
    """A save_to_disk folder with rows of every kind."""
    datasets.Dataset.from_list(ROWS).save_to_disk(folder)
    return folder


def write_embeddings(folder: Path, naming: Naming, paths: list[str] = INPUTS) -> Path:
    for path in paths:
        file = folder / naming.name(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            json.dumps({"embedding": [[0.5, 1.0]], "shape": [1, 2], "description": path, "modality": "ecg"})
        )
    return folder


def flags(cohort: Path, embeddings: Path, output: Path, *more: str) -> list[str]:
    return [
        *("--dataset_name", str(cohort), "--text_cols", '["note", "age"]', "--target_cols", '["report_0", "report_1"]'),
        *("--modality_mapping", '{"ecg_paths": "m1"}', "--embeddings_dirs", json.dumps({"ecg_paths": str(embeddings)})),
        *("--output_file", str(output), *more),
    ]
