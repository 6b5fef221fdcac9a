"""Tables of results as files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from ecgfounder.analysis.pages.tables import write_table
from ecgfounder.storage import locate


@pytest.mark.parametrize(
    "texts",
    [
        pa.array(["=1+1", None, "b"]),
        pa.array(["=1+1", None, "b"], pa.large_string()),
        pa.array(["=1+1", None, "b"], pa.string_view()),
        pa.array(["=1+1", None, "b"]).dictionary_encode(),
    ],
    ids=lambda texts: str(texts.type).partition("<")[0],
)
def test_no_kind_of_text_is_a_formula_in_a_csv(texts: pa.Array, tmp_path: Path) -> None:
    write_table(pa.table({"text": texts}), locate(str(tmp_path)), "made")
    assert pd.read_csv(tmp_path / "made.csv", skip_blank_lines=False)["text"].tolist()[::2] == ["'=1+1", "b"]
