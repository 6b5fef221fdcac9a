"""A URL that is not supported is refused by name, for every path that a command takes, and nothing is written in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecgfounder.cli import main
from ecgfounder.commands.chat import dummy_main
from ecgfounder.errors import SettingsError
from ecgfounder.readers import read_ecg
from ecgfounder.storage.paths import absolute_path

EMBED = ["embed", "--dataset", "data.csv", "--checkpoint", "w.pth", "--output_dir", "out"]
CHAT = [
    *(
        "--dataset_name",
        "data.csv",
        "--text_cols",
        "q",
        "--target_cols",
        "a",
        "--modality_mapping",
        '{"ecg_paths": "ecg"}',
    ),
    *("--embeddings_dirs", "out", "--output_file", "chat.json"),
]
URL = "s3://bucket/x"
UNKNOWN = "sftp://host/x"


def given(command: list[str], flag: str, url: str = URL) -> list[str]:
    at = command.index(flag) + 1
    return [*command[:at], url, *command[at + 1 :]]


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "a.xml", "--plot", URL],
        ["demo", URL],
    ],
    ids=lambda command: " ".join(command)[:60],
)
def test_a_url_that_is_not_supported_is_refused_by_name(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.csv").write_text("ecg_paths,q,a\na.xml,q,a\n")
    monkeypatch.chdir(tmp_path)
    status = main(command)
    said = capsys.readouterr().err
    assert (status, "s3:// is not supported" in said) == (2, True), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv"]


@pytest.mark.parametrize(
    "command",
    [
        [*EMBED, "--data_dir", UNKNOWN],
        [*EMBED[:2], UNKNOWN, *EMBED[3:]],
        [*EMBED, "--checkpoint", UNKNOWN],
        ["inspect", UNKNOWN],
        ["verify", UNKNOWN],
        ["doctor", "--checkpoint", UNKNOWN],
        given(EMBED, "--output_dir", UNKNOWN),
        ["merge", UNKNOWN],
        ["upgrade", UNKNOWN],
        ["export", UNKNOWN, "--output_dir", "o", "--to", "npy"],
        ["doctor", "--output_dir", UNKNOWN],
    ],
    ids=lambda command: " ".join(command)[:60],
)
def test_a_scheme_that_is_not_known_is_refused(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.csv").write_text("ecg_paths,q,a\na.xml,q,a\n")
    monkeypatch.chdir(tmp_path)
    status = main(command)
    said = capsys.readouterr().err
    assert (status, "sftp:// is not supported" in said) == (2, True), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv"]


@pytest.mark.parametrize(("flag", "url"), [("--embeddings_dirs", UNKNOWN), ("--output_file", URL)])
def test_the_chat_commands_refuse_it_too(
    flag: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.csv").write_text("ecg_paths,q,a\na.xml,q,a\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    status = dummy_main(given(CHAT, flag, url))
    said = capsys.readouterr().err
    assert (status, f"{url.partition(':')[0]}:// is not supported" in said) == (2, True), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "out"]


def test_a_url_in_a_dataset_stays_one_and_its_record_fails_by_its_name() -> None:
    assert absolute_path("sftp://host/a.xml", "/data") == "sftp://host/a.xml"
    with pytest.raises(SettingsError, match="sftp:// is not supported"):
        read_ecg(absolute_path("sftp://host/a.xml", "/data"))
