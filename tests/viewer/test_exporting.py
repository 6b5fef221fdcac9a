"""The map for others: what goes out, and what does not unless it is asked for."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ecgfounder.cli import main
from ecgfounder.errors import SettingsError
from ecgfounder.results import open_run
from ecgfounder.storage import locate
from ecgfounder.viewer import Atlas, exporting, open_atlas
from ecgfounder.viewer.files import page_files
from tests.builders.atlas import HOSTILE, Shown
from tests.builders.runs import BROKEN, Made


def blocks_of(page: str) -> dict[str, bytes]:
    found = re.findall(r'<script type="application/octet-stream" id="data-([\w-]+)">([\w+/=]*)</script>', page)
    return {name: base64.b64decode(content) for name, content in found}


def test_a_map_has_places_and_neighbours_alone(atlas: Atlas, tmp_path: Path) -> None:
    exporting.write_map(atlas, locate(tmp_path))
    table = pq.read_table(tmp_path / "map.parquet")
    assert table.column_names == ["x", "y", "neighbors"]
    places = np.column_stack([table["x"].to_numpy(), table["y"].to_numpy()]) * 65_535
    own = atlas.places.coordinates("pca")
    order = [int(np.flatnonzero((own == np.rint(each)).all(axis=1))[0]) for each in places]
    assert sorted(order) == list(range(len(atlas)))
    assert order != sorted(order)  # the order would be a name
    for at in (0, 17, 299):
        rows, similarity, _ = atlas.places.nearest(order[at])
        near = table["neighbors"][at].as_py()
        assert [order[each] for each in near["ids"]] == rows.tolist()
        assert np.allclose(near["distances"], 1 - similarity, atol=1e-5)


def test_columns_that_are_asked_for(atlas: Atlas, shown: Shown, tmp_path: Path) -> None:
    columns = ["record", "rhythm", "flag: clipped", "probability: ATRIAL FIBRILLATION"]
    exporting.write_map(atlas, locate(tmp_path), columns, k=0)
    table = pq.read_table(tmp_path / "map.parquet")
    assert table.column_names == ["x", "y", *columns]
    assert table["record"].to_pylist() == shown.table["ecg"].tolist()
    assert table["rhythm"].to_pylist() == shown.table["rhythm"].tolist()
    with pytest.raises(SettingsError, match="no column 'nothing'"):
        exporting.write_map(atlas, locate(tmp_path), ["nothing"])


def test_what_counts_of_failures_leave_of_all_is_not_told(
    atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = [("ReadError", "no such file", 95), ("ReadError", "damaged", 5)]
    monkeypatch.setitem(atlas.__dict__, "reasons", reasons)
    exporting.write_page(atlas, locate(tmp_path))
    told = json.loads(blocks_of((tmp_path / "index.html").read_text())["about"])
    assert [each["n"] for each in told["reasons"]] == ["about 100", "under 11"]


def test_a_page_tells_no_names_or_labels(atlas: Atlas, shown: Shown, tmp_path: Path) -> None:
    exporting.write_page(atlas, locate(tmp_path))
    page = (tmp_path / "index.html").read_text()
    blocks = blocks_of(page)
    assert set(blocks) == {"about", "map-pca", "near", "similarity"}
    everything = page.encode() + b"".join(blocks.values())
    for word in ("p001", "sub/", "S0004", "PageWriter", "sinus", str(tmp_path), HOSTILE[:8], BROKEN[0]):
        assert word.encode() not in b"".join(blocks.values())
    assert b"sub/00010" not in everything
    told = json.loads(blocks["about"])
    assert told["n_failed"] == "under 11"
    assert told["reasons"] == [{"error": "ReadError", "reason": "no such file", "n": "under 11"}]


def test_a_page_with_names_columns_and_ecgs(shown: Shown, tmp_path: Path) -> None:
    atlas = open_atlas(open_run(shown.folder), data_dir=str(shown.data_dir), where="study_id < 5008")
    exporting.write_page(atlas, locate(tmp_path), ["record", "rhythm", "age"], drawings=True)
    page = (tmp_path / "index.html").read_text()
    blocks = blocks_of(page)
    assert json.loads(blocks["names"]) == shown.table["ecg"][:8].tolist()
    about = json.loads(blocks["column-0"])
    assert [about["categories"][code] for code in blocks["values-0"]] == shown.table["rhythm"][:8].tolist()
    assert np.allclose(np.frombuffer(blocks["values-1"], "<f4"), shown.table["age"][:8])
    assert "rows" in json.loads(blocks["ecg-1"])
    assert json.loads(blocks["ecg-7"]) == {"reason": "a file is not there"}
    assert "<img" not in page  # names are in base64


def test_ecgs_of_many_are_refused(atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "MOST_DRAWN", 100)
    with pytest.raises(SettingsError, match="at most 100"):
        exporting.write_page(atlas, locate(tmp_path), drawings=True)


def test_a_page_runs_its_own_script_alone(atlas: Atlas, tmp_path: Path) -> None:
    exporting.write_page(atlas, locate(tmp_path))
    page = (tmp_path / "index.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy[1]
    assert policy[1].startswith("default-src 'none'; ")
    assert "src=" not in page
    assert "href=" not in page.replace('href="#side"', "").partition("<script>")[0]
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert "import " not in re.sub(r"//.*", "", script)
    assert not re.search(r"^export ", script, re.MULTILINE)


def test_modules_of_the_page_can_be_put_together() -> None:
    """Imports have the one form that the bundle knows, and no two modules use a name for different things."""
    names: list[str] = []
    for path, (content, _) in page_files().items():
        if path.endswith(".js"):
            text = content.decode()
            imports = re.findall(r"^import .*$", text, re.MULTILINE)
            assert len(imports) == len(exporting._IMPORT.findall(text)), path
            names += re.findall(r"^(?:export )?(?:async )?(?:const|let|function|class) (\w+)", text, re.MULTILINE)
    assert len(names) > 40
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    "made",
    [{"rows": [BROKEN], "done_order": []}, {"rows": [("a/1.xml", 101)], "done_order": ["a/1.xml"]}],
    ids=["none", "one"],
)
def test_of_hardly_any_recordings(tmp_path: Path, made: dict) -> None:
    folder = Made(tmp_path / "run", **made).make()
    for to, file in (("map", "map.parquet"), ("page", "index.html")):
        assert main(["export", str(folder), "--to", to, "--output_dir", str(tmp_path / to)]) == 0
        assert (tmp_path / to / file).exists()
    assert pq.read_table(tmp_path / "map" / "map.parquet").column_names == ["x", "y"]


def test_the_command(shown: Shown, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = str(shown.folder), tmp_path / "out"
    words = ["export", run, "--to", "map", "--output_dir", str(out), "--where", "age >= 60", "--columns", "age"]
    assert main(words) == 0
    assert min(pq.read_table(out / "map.parquet")["age"].to_pylist()) >= 60
    assert "recordings written to" in capsys.readouterr().err
    assert main(words) == 0  # an earlier one is replaced
    capsys.readouterr()
    assert main(["export", run, "--to", "page", "--output_dir", str(out)]) == 2
    assert "holds no index.html" in capsys.readouterr().err
    assert main(["export", run, "--to", "map"]) == 2
    assert "--output_dir" in capsys.readouterr().err
    for wrong, flag in (
        (["--to", "npy", "--where", "age > 1"], "--where"),
        (["--to", "map", "--drawings"], "--drawings"),
    ):
        assert main(["export", run, *wrong, "--output_dir", str(tmp_path / "other")]) == 2
        assert flag in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x", "umap_y", "neighbors"])
def test_a_column_does_not_take_the_place_of_the_maps_own(shown: Shown, tmp_path: Path, name: str) -> None:
    labels = shown.table[["study_id"]].assign(**{name: 7})
    atlas = open_atlas(open_run(shown.folder), labels, "study_id")
    with pytest.raises(SettingsError, match=f"column '{name}' of its own"):
        exporting.write_map(atlas, locate(tmp_path), [name])
    atlas.close()


def test_a_page_of_a_part_says_so(tmp_path: Path) -> None:
    made = Made(tmp_path / "run", outcome="interrupted", done_order=["a/1.xml", "a/2.xml", "b/3.xml"])
    atlas = open_atlas(open_run(made.make(), allow_incomplete=True), where='record != "a/1.xml"')
    exporting.write_page(atlas, locate(tmp_path))
    told = json.loads(blocks_of((tmp_path / "index.html").read_text())["about"])
    assert told["is_complete"] is False
    assert told["left_out"] == {"condition": "under 11"}
    assert told["n"] == 2
    atlas.close()


@pytest.mark.parametrize("flag", ["layout", "shard_size"])
def test_flags_of_other_targets_are_refused(
    shown: Shown, tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(shown.folder), "--to", "page", "--output_dir", str(tmp_path / "out")]
    assert main([*words, f"--{flag}", {"layout": "flat", "shard_size": "10"}[flag]]) != 0
    assert f"--{flag} is for --to json, npy" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
