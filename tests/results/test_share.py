"""A copy for sharing has every embedding and nothing that leads back; the card and the findings quote nobody."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ecgfounder.commands.export import add_export_arguments, run_export
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.results import share
from ecgfounder.results.dataset_card import CARD_NAME, dataset_card
from ecgfounder.results.revealed import identifying, what_it_reveals
from ecgfounder.results.run import open_run
from ecgfounder.results.share import share_run
from ecgfounder.results.small_cells import FEWEST, OTHERS, with_rare_together
from tests.builders.runs import BROKEN, FORMS, PATHS, STUDIES, Made

CANARIES = ("Miller", "MRN-8675309", "20210304", "MegaCart 9000", "Saint Nowhere", "4242424242")
NAMED = ("Miller/MRN-8675309_20210304.xml", "Miller/MRN-8675309_20210305.xml")


def made(folder: Path, **form: Any) -> Made:
    """A run with names of patients, places and devices wherever a run can have them."""
    return Made(
        folder,
        rows=((NAMED[0], 4242424242), (NAMED[1], 101), BROKEN),
        done_order=NAMED,
        kept={
            NAMED[0]: {"site": "Saint Nowhere", "age": 51, "subject": 4242424242},
            NAMED[1]: {"site": "Saint Nowhere", "age": None, "subject": 4242424242},
            BROKEN[0]: {"site": "elsewhere", "age": 3, "subject": None},
        },
        facts={path: {"device": {"device_model": "MegaCart 9000"}} for path in NAMED},
        flags={NAMED[0]: ("clipped:V1", "nan_share:0.0314159")},
        **form,
    )


def rows_of(copy: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(shard) for shard in sorted(copy.glob("*.parquet"))])


def array_of(row: dict[str, Any]) -> np.ndarray:
    return np.array(row["embedding"], np.float32)


@pytest.mark.parametrize("stored", ["json", "parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_a_copy_has_all_embeddings_of_each_recording(tmp_path: Path, form: str, stored: str) -> None:
    run = Made(tmp_path / "run", format=stored, **FORMS[form])
    run.make()
    keys = tmp_path / "keys.parquet"
    assert share_run(run.folder, tmp_path / "copy", keys=keys, shard_size=3) == len(PATHS)
    named = {row["key"]: row["record"] for row in pq.read_table(keys).to_pylist()}
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(tmp_path / "copy").to_pylist():
        found.setdefault(named[row["key"]], []).append(row)
    assert sorted(found) == sorted(PATHS)
    for path, rows in found.items():
        for row, expected in zip(rows, run.embeddings(path), strict=True):
            np.testing.assert_array_equal(array_of(row), expected)
            assert row["shape"] == list(expected.shape)
        places = [(row["window"], row["lead"]) for row in rows]
        assert len(set(places)) == len(places)
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [
        CARD_NAME,
        "embeddings-00000-of-00002.parquet",
        "embeddings-00001-of-00002.parquet",
    ]


def test_maps_and_means_and_halves_stay_what_they_are(tmp_path: Path) -> None:
    run = Made(tmp_path / "run", format="parquet", pooling="both", dtype="float16")
    run.make()
    share_run(run.folder, tmp_path / "copy")
    copied, stored = (
        rows_of(tmp_path / "copy"),
        pa.concat_tables([pq.read_table(p) for p in run.folder.glob("*.parquet")]),
    )
    for column in ("embedding", "embedding_mean"):
        assert copied.schema.field(column).type == stored.schema.field(column).type
        assert sorted(map(str, copied[column].to_pylist())) == sorted(map(str, stored[column].to_pylist()))


@pytest.mark.parametrize("stored", ["json", "parquet"])
@pytest.mark.parametrize("id_column", [None, "study_id"])
def test_nothing_in_a_copy_leads_back(tmp_path: Path, stored: str, id_column: str | None) -> None:
    run = made(tmp_path / "run", format=stored, id_column=id_column)
    run.make()
    share_run(run.folder, tmp_path / "copy", columns=["age", "flags", "sampling_rate"], group="subject")
    opened = open_run(run.folder)
    hidden = [*CANARIES, *map(run.key, NAMED), "0.0314159", "made_up_dataset", str(tmp_path), "/data", "no such file"]
    hidden += [value for value in opened.manifest["input_sha256"].to_pylist() if value]
    names = [path.name for path in (tmp_path / "copy").rglob("*")]
    contents = [path.read_bytes() for path in (tmp_path / "copy").iterdir()]
    tables = [pq.read_table(shard) for shard in (tmp_path / "copy").glob("*.parquet")]
    readable = [str(names), *(str(each.drop_columns(["embedding"]).to_pylist()) for each in tables)]
    readable += [str(each.schema.to_string(show_schema_metadata=True)) for each in tables]
    readable += [str(pq.read_metadata(shard).metadata) for shard in (tmp_path / "copy").glob("*.parquet")]
    readable += [dataset_card(opened), *map(str, what_it_reveals(opened))]
    for text in hidden:
        assert not any(text.encode() in content for content in contents), text
        assert not any(text in each for each in readable[:-1] if text != str(tmp_path)), text
    assert {path.stat().st_mtime for path in (tmp_path / "copy").iterdir()} == {share._ONE_TIME}
    table = rows_of(tmp_path / "copy")
    assert table.column_names[-4:] == ["group", "age", "flags", "sampling_rate"]
    by_age = {row["age"]: row for row in table.to_pylist()}
    assert set(by_age) == {51, None}
    assert by_age[51]["flags"] == ["clipped", "nan_share"]
    assert by_age[51]["group"] == by_age[None]["group"] != "4242424242"
    assert by_age[51]["key"] != by_age[None]["key"]


def test_keys_groups_and_order_are_drawn_anew(tmp_path: Path) -> None:
    paths = tuple(f"{number}.xml" for number in range(40))
    rows = tuple((path, number) for number, path in enumerate(paths))
    kept = {path: {"subject": None if number == 0 else number // 2} for number, path in enumerate(paths)}
    run = Made(tmp_path / "run", pooling="mean", rows=rows, done_order=paths, kept=kept)
    run.make()
    copies, orders = [], []
    for name in ("one", "two"):
        keys = tmp_path / f"{name}.parquet"
        share_run(run.folder, tmp_path / name, group="subject", keys=keys, shard_size=7)
        named = {row["key"]: row["record"] for row in pq.read_table(keys).to_pylist()}
        copies.append(rows_of(tmp_path / name).to_pylist())
        orders.append([named[row["key"]] for row in copies[-1]])
        assert sorted(orders[-1]) == sorted(paths)
        assert len(list((tmp_path / name).glob("*.parquet"))) == 6
        groups = {named[row["key"]]: row["group"] for row in copies[-1]}
        assert groups["0.xml"] is None
        assert groups["2.xml"] == groups["3.xml"] != groups["4.xml"]
        assert len(set(groups.values())) == 21
        assert keys.stat().st_mode & 0o777 == 0o600
    assert orders[0] != orders[1]
    assert list(paths) not in orders
    for column in ("key", "group"):
        assert {row[column] for row in copies[0] if row[column]}.isdisjoint({row[column] for row in copies[1]})


def test_a_recording_that_several_rows_name_is_copied_once(tmp_path: Path) -> None:
    run = Made(tmp_path / "run", rows=(*zip(PATHS, STUDIES, strict=True), (PATHS[0], 999)))
    run.make()
    assert share_run(run.folder, tmp_path / "copy") == len(PATHS)
    assert rows_of(tmp_path / "copy").num_rows == len(PATHS)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"columns": ["record"]}, "'record' leads back to the recordings' files"),
        ({"columns": ["input_sha256"]}, "leads back"),
        ({"columns": ["seconds_read"]}, "leads back"),
        ({"columns": ["nothing"]}, "does not exist"),
        ({"columns": ["subject"], "group": "subject"}, "gets random names"),
        ({"columns": ["name_again"]}, "holds the recordings' names"),
        ({"group": "device_model"}, "Expected a column of keep_columns"),
        ({"shard_size": 0}, "shard_size"),
        ({"keys": "copy/keys.parquet"}, "must stay with you"),
        ({"keys": "keys.csv"}, r"NAME\.parquet"),
        ({"output_dir": "s3://bucket/copy"}, "a folder on this machine"),
    ],
)
def test_what_would_lead_back_is_refused(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    kept = {path: {"subject": 5, "name_again": path} for path in (*PATHS, BROKEN[0])}
    run = Made(tmp_path / "run", kept=kept)
    run.make()
    settings = {"output_dir": str(tmp_path / "copy"), **settings}
    if "keys" in settings:
        settings["keys"] = str(tmp_path / settings["keys"])
    with pytest.raises(SettingsError, match=reason):
        share_run(run.folder, settings.pop("output_dir"), **settings)
    assert not (tmp_path / "copy").exists()
    assert not list(tmp_path.glob("keys*"))


def test_it_is_written_to_a_new_folder_and_a_new_file(tmp_path: Path) -> None:
    run = Made(tmp_path / "run").make()
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    for folder in (taken, tmp_path / "run" / "copy", taken / "mine.txt"):
        with pytest.raises(RunError, match=r"is not empty|is inside the run"):
            share_run(run, folder)
    for keys, reason in ((tmp_path / "no" / "k.parquet", "no folder"), (tmp_path / "there.parquet", "exists")):
        (tmp_path / "there.parquet").touch()
        with pytest.raises(RunError, match=reason):
            share_run(run, tmp_path / "copy", keys=keys)
    with pytest.raises(RunError, match="no embeddings"):
        share_run(Made(tmp_path / "none", rows=(BROKEN,), done_order=()).make(), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert (taken / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("exists", [False, True])
def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool) -> None:
    run = Made(tmp_path / "run", format="parquet").make()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(share, "write_table", full)
    if exists:
        (tmp_path / "copy").mkdir()
    with pytest.raises(RunError, match=r"could not be written: No space left"):
        share_run(run, tmp_path / "copy", keys=tmp_path / "keys.parquet")
    assert not (tmp_path / "keys.parquet").exists()
    assert (tmp_path / "copy").exists() == exists
    assert not exists or not any((tmp_path / "copy").iterdir())


def test_a_folder_or_a_file_that_another_process_has_made_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Made(tmp_path / "run", format="parquet").make()
    theirs, keys, whole = tmp_path / "copy" / "theirs", tmp_path / "keys.parquet", share.card_of_copy

    def meanwhile(path: Path) -> None:
        def card(*arguments: Any) -> str:
            path.parent.mkdir(exist_ok=True)
            path.write_text("theirs")
            return whole(*arguments)

        monkeypatch.setattr(share, "card_of_copy", card)

    meanwhile(theirs)
    with pytest.raises(RunError, match="could not be written: another process"):
        share_run(run, tmp_path / "copy", keys=keys)
    assert not keys.exists()
    meanwhile(keys)
    with pytest.raises(RunError, match="could not be written: File exists"):
        share_run(run, tmp_path / "other", keys=keys)
    assert theirs.read_text() == keys.read_text() == "theirs"
    assert not (tmp_path / "other").exists()
    assert not list(tmp_path.glob(".*"))


# --- the card and the findings ----------------------------------------------------------------------------------------


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 40)))
def test_no_count_below_the_fewest_is_shown_or_told_by_the_others(counts: dict[str, int]) -> None:
    shown = dict(with_rare_together(counts))
    total = sum(counts.values())
    assert all(n >= FEWEST for n in shown.values())
    assert sum(shown.values()) == total or (not shown and total < FEWEST)
    alone = {value: n for value, n in counts.items() if value in shown}
    assert all(shown[value] == n for value, n in alone.items())
    together = [n for value, n in counts.items() if value not in shown]
    assert OTHERS not in shown or len(together) > 1 or not shown
    assert len(together) != 1 or not shown


@pytest.mark.parametrize("stored", ["json", "parquet"])
def test_the_card_has_the_metadata_of_the_hub(tmp_path: Path, stored: str) -> None:
    opened = open_run(Made(tmp_path / "run", format=stored).make())
    share_run(tmp_path / "run", tmp_path / "copy", columns=["study_id"])
    for card in (dataset_card(opened), (tmp_path / "copy" / CARD_NAME).read_text()):
        _, front, body = card.split("---\n", 2)
        told = yaml.safe_load(front)
        assert told["size_categories"] == ["n<1K"]
        assert told["license"] == "other"
        assert told["task_categories"] == ["feature-extraction"]
        assert told["configs"][0]["data_files"][0].endswith(stored if card.count("open_run") else "parquet")
        assert "fewer than 11" in body
        assert "0" * 64 in body
        assert "does not make them anonymous" in body
    assert "| `study_id` | as in the cohort |" in (tmp_path / "copy" / CARD_NAME).read_text()


def test_two_tables_of_a_card_tell_no_small_number(tmp_path: Path) -> None:
    paths = [f"{number:02d}.xml" for number in range(60)]
    facts = {
        path: {"format": "wfdb" if number < 30 else "ge_muse", "sampling_rate": 250.0 if number < 26 else 500.0}
        for number, path in enumerate(paths)
    }  # 4 of wfdb have another rate
    rows = [(path, number) for number, path in enumerate(paths)]
    made = Made(
        tmp_path / "run", rows=rows, done_order=paths, facts=facts, format="parquet", pooling="mean", shard_size=60
    )
    card = dataset_card(open_run(made.make()))
    for line in ("| wfdb | about 30 |", "| ge_muse | about 30 |", "| 250 Hz | about 30 |", "| 500 Hz | about 30 |"):
        assert line in card


def test_findings_name_the_parts_of_a_folder(tmp_path: Path) -> None:
    run = made(tmp_path / "run", format="parquet", id_column="study_id")
    run.make()
    opened = open_run(run.folder)
    told = "\n".join(map(str, what_it_reveals(opened)))
    for what in ("shards, column identifier", "8-digit number", "run.json", "ledger", "reason", "patient data", "site"):
        assert what in told
    assert "columns of devices: 1 values of fewer than 11 recordings" in told
    as_json = open_run(made(tmp_path / "json").make())
    plain = "\n".join(map(str, what_it_reveals(as_json)))
    assert "2 with what looks like a date" in plain
    assert "names of the JSON files" in plain
    assert identifying(opened, ["age", "site", "subject"]) == []
    assert identifying(as_json, ["study_id", "age"]) == ["study_id"]


# --- the command --------------------------------------------------------------------------------------------------------


def export(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_export_arguments(parser)
    return run_export(parser.parse_args(list(map(str, arguments))))


def test_the_command_copies_and_warns_of_telling_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path / "run").make()
    out = tmp_path / "copy"
    assert export(tmp_path / "run", "--to", "share", "--output_dir", out, "--columns", "site", "subject", "age") == 0
    told = capsys.readouterr().err
    assert "2 recordings copied" in told
    assert "not anonymous" in told
    assert "column site has 1 value of fewer than 11 recordings" in told
    assert not any(canary in told for canary in CANARIES)


def test_the_command_writes_a_card_to_standard_output_or_a_new_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path / "run").make()
    assert export(tmp_path / "run", "--to", "card") == 0
    told = capsys.readouterr()
    assert told.out == dataset_card(open_run(tmp_path / "run"))
    assert "would reveal" in told.err
    assert not any(canary in told.err + told.out for canary in CANARIES)
    assert export(tmp_path / "run", "--to", "card", "--output_dir", tmp_path / "card") == 0
    assert (tmp_path / "card" / CARD_NAME).read_text() == told.out
    with pytest.raises(RunError, match="could not be written: File exists"):
        export(tmp_path / "run", "--to", "card", "--output_dir", tmp_path / "card")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--to", "share"], "needs --output_dir"),
        (["--to", "json"], "needs --output_dir"),
        (["--to", "json", "--output_dir", "o", "--keys", "k.parquet"], "--keys is for --to share"),
        (["--to", "card", "--names", "one"], "takes one run"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tmp_path: Path, arguments: list[str], reason: str) -> None:
    run = Made(tmp_path / "run").make()
    with pytest.raises(SettingsError, match=reason):
        export(run, *arguments)


def test_counts_are_of_all_values() -> None:
    assert with_rare_together(Counter({"a": 20, "b": 20})) == [("a", 20), ("b", 20)]
