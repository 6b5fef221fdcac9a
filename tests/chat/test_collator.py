"""The collator: every token of an ECG has one place in the text, answers alone are learned, and any form of sample is read."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ecgfounder.chat import ChatCollator, collator
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.results.run import open_run
from tests.builders.runs import Made
from tests.builders.tokenizer import LetterTokenizer


def write(path: Path, n_tokens: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng([seed, n_tokens]).standard_normal((n_tokens, channels)).astype(np.float32)
    content = {"embedding": values.tolist(), "shape": [n_tokens, channels], "description": "", "modality": "ecg"}
    path.write_text(json.dumps(content))
    return values


def chat(text: str, answer: str, *paths: Path) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "embeddings": {"m1": [str(path) for path in paths]}}


def with_ecg(**options: Any) -> LetterTokenizer:
    return LetterTokenizer("<ecg>", **options)


def learned(tokenizer: LetterTokenizer, batch: dict[str, torch.Tensor], row: int = 0) -> str:
    labels = batch["labels"][row]
    return tokenizer.decode(labels[labels != -100].tolist())


def test_each_token_has_a_place_and_answers_alone_are_learned(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.json", 2), write(tmp_path / "b.json", 3)
    tokenizer = with_ecg()
    collate = ChatCollator(tokenizer)
    samples = [
        chat("<m1><m1>Why?", "sinus", tmp_path / "b.json", tmp_path / "a.json"),
        chat("<m1>Rhythm?", "AF", tmp_path / "a.json"),
    ]
    batch = collate(samples)
    shown = [
        tokenizer.decode(ids[mask.bool()].tolist())
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    assert shown == ["<s>" + "<ecg>" * 5 + "Why?\nsinus</s>", "<s>" + "<ecg>" * 2 + "Rhythm?\nAF</s>"]
    assert [learned(tokenizer, batch, row) for row in (0, 1)] == ["sinus</s>", "AF</s>"]
    assert batch["ecg_tokens"].shape == (2, 5, 3)
    assert batch["ecg_tokens"].dtype == torch.float32
    assert np.array_equal(batch["ecg_tokens"][0], np.concatenate([second, first]))
    assert np.array_equal(batch["ecg_tokens"][1, :2], first)
    assert not batch["ecg_tokens"][1, 2:].any()
    assert batch["ecg_mask"].tolist() == [[True] * 5, [True, True, False, False, False]]
    assert batch["ecg_places"].sum(dim=1).tolist() == [5, 2]
    assert (batch["labels"][batch["ecg_places"]] == -100).all()
    assert (batch["input_ids"][batch["attention_mask"] == 0] == tokenizer.pad_token_id).all()
    # what a model does with it: every token arrives at its place, in order
    embedded = torch.zeros(*batch["input_ids"].shape, 3)
    embedded[batch["ecg_places"]] = batch["ecg_tokens"][batch["ecg_mask"]]
    assert np.array_equal(embedded[0, 1:6], np.concatenate([second, first]))


def test_both_forms_and_whatever_datasets_makes_of_them_give_the_same(tmp_path: Path) -> None:
    write(tmp_path / "a.json", 2)
    path = str(tmp_path / "a.json")
    parts = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Why?", "m1": ""}, {"type": "m1", "text": "", "m1": path}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "AF", "m1": ""}]},
    ]
    bare = [
        {"role": "user", "content": [{"type": "text", "text": "Why?"}, {"type": "m1", "m1": path, "text": None}]},
        {"role": "assistant", "content": [{"type": "text", "text": "AF"}]},
    ]
    collate = ChatCollator(with_ecg())
    expected = collate([chat("Why?<m1>", "AF", tmp_path / "a.json")])
    for sample in (parts, {"messages": parts}, {"0": parts[0], "1": parts[1]}, {"messages": bare}):
        found = collate([sample])
        assert all(torch.equal(found[name], values) for name, values in expected.items())


def test_a_template_decides_the_text_and_every_answer_is_learned(tmp_path: Path) -> None:
    write(tmp_path / "a.json", 1)
    tokenizer = with_ecg(chat_template="plain")
    sample = chat("<m1>Why?", " AF ", tmp_path / "a.json")
    sample["messages"] += [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes"}]
    batch = ChatCollator(tokenizer)([sample])
    turns = ["<|user|>\n<ecg>Why?<|end|>\n", "AF<|end|>\n", "<|user|>\nSure?<|end|>\n", "Yes<|end|>\n"]
    assert tokenizer.decode(batch["input_ids"][0].tolist()) == "<s>{}<|assistant|>\n{}{}<|assistant|>\n{}".format(
        *turns
    )
    assert learned(tokenizer, batch) == "AF<|end|>\nYes<|end|>\n"
    sample["messages"].pop()
    asked = ChatCollator(tokenizer)([sample])
    assert tokenizer.decode(asked["input_ids"][0].tolist()).endswith("Sure?<|end|>\n<|assistant|>\n")
    forgetful = ChatCollator(with_ecg(chat_template="forgetful"))
    assert learned(tokenizer, forgetful([chat("<m1>Why?", "AF", tmp_path / "a.json")])) == "AF<|end|>\n"
    sample["messages"].append({"role": "assistant", "content": "Yes"})
    with pytest.raises(
        SettingsError, match="sample 0 of the batch: the tokenizer's chat template changes earlier messages"
    ):
        forgetful([sample])


def test_a_tokenizer_without_ends_or_padding_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "a.json", 1)
    tokenizer = with_ecg(with_ends=False, with_padding=False)
    batch = ChatCollator(tokenizer)(
        [chat("<m1>Why?", "AF", tmp_path / "a.json"), chat("<m1>?", "A", tmp_path / "a.json")]
    )
    assert learned(tokenizer, batch) == "AF"
    assert batch["input_ids"].shape == (2, len("ÿWhy?\nAF"))
    assert batch["attention_mask"].sum(dim=1).tolist() == [8, 4]


def test_samples_without_an_ecg_have_no_tokens(tmp_path: Path) -> None:
    batch = ChatCollator(with_ecg())([chat("Why?", "AF")])
    assert batch["ecg_tokens"].shape == (1, 0, 0)
    assert not batch["ecg_places"].any()
    write(tmp_path / "a.json", 2)
    mixed = ChatCollator(with_ecg())([chat("Why?", "AF"), chat("<m1>", "AF", tmp_path / "a.json")])
    assert mixed["ecg_mask"].tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize(
    ("form", "pooling", "n_tokens"), [("json", "none", 3), ("parquet", "none", 3), ("parquet", "mean", 1)]
)
def test_embeddings_of_runs_are_read_wherever_they_are(tmp_path: Path, form: str, pooling: str, n_tokens: int) -> None:
    folder = Made(tmp_path / "run", format=form, pooling=pooling).make()
    run = open_run(folder)
    outputs = [folder / each for each in run.records["output"].to_pylist()]
    batch = ChatCollator(with_ecg())([chat("<m1>", "AF", outputs[0]), chat("<m1><m1>", "AF", outputs[2], outputs[1])])
    assert batch["ecg_mask"].sum(dim=1).tolist() == [n_tokens, 2 * n_tokens]
    expected = [embedding.reshape(-1, 6) for _, embedding in run]
    assert np.array_equal(batch["ecg_tokens"][1], np.concatenate([expected[2], expected[1]]))


def test_a_length_cuts_the_text_and_never_an_ecg(tmp_path: Path) -> None:
    write(tmp_path / "a.json", 4)
    tokenizer = with_ecg()
    sample = chat("Why?<m1>", "atrial fibrillation", tmp_path / "a.json")
    batch = ChatCollator(tokenizer, max_length=16)([sample])
    assert batch["input_ids"].shape == batch["labels"].shape == (1, 16)
    assert learned(tokenizer, batch) == "atrial"
    with pytest.raises(SettingsError, match=r"4 tokens of ECGs, but 3 places in the text. Raise max_length \(now 8\)"):
        ChatCollator(tokenizer, max_length=8)([sample])
    with pytest.raises(SettingsError, match="max_length"):
        ChatCollator(tokenizer, max_length=0)


def test_a_tokenizer_without_the_token_says_how_to_add_it() -> None:
    with pytest.raises(SettingsError, match=r"no single token '<ecg>' .*tokenizer\.add_tokens\(\['<ecg>'\]"):
        ChatCollator(LetterTokenizer())
    assert ChatCollator(LetterTokenizer("[E]"), ecg_token="[E]").ecg_token == "[E]"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sample: sample["embeddings"]["m1"].clear(), r"not one of a chat file: .* \(IndexError\)"),
        (lambda sample: sample["messages"][0].update(content="Why?"), "has embeddings without a tag"),
        (lambda sample: sample["messages"][0].update(content="<m1>a<ecg>"), "its text contains '<ecg>'"),
        (lambda sample: sample["messages"][0].pop("role"), r"not one of a chat file: .* \(KeyError\)"),
        (lambda sample: sample.update(messages=[1, 2]), r"not one of a chat file: .* \(TypeError\)"),
        (lambda sample: sample.update(messages=None), r"not one of a chat file: .* \(TypeError\)"),
        (lambda sample: sample["messages"][0].update(content=[{"type": "m1"}]), r"not one of a chat file"),
    ],
    ids=["no embedding", "no tag", "the token in a text", "no role", "numbers", "null", "no path"],
)
def test_what_is_no_sample_of_a_chat_file_is_refused_by_its_number(tmp_path: Path, change: Any, message: str) -> None:
    write(tmp_path / "a.json", 1)
    good, bad = (chat("<m1>Secret name", "AF", tmp_path / "a.json") for _ in range(2))
    change(bad)
    with pytest.raises(SettingsError, match=f"^sample 1 of the batch.*{message}") as caught:
        ChatCollator(with_ecg())([good, bad])
    assert "Secret" not in str(caught.value)


def test_a_missing_embedding_and_channels_that_differ_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a.json", 1, channels=3)
    write(tmp_path / "b.json", 1, channels=4)
    collate = ChatCollator(with_ecg())
    with pytest.raises(RunError, match=r"gone\.json"):
        collate([chat("<m1>", "AF", tmp_path / "gone.json")])
    with pytest.raises(SettingsError, match="have 3 and 4 channels"):
        collate([chat("<m1>", "AF", tmp_path / "a.json"), chat("<m1>", "AF", tmp_path / "b.json")])
    with pytest.raises(SettingsError, match="sample 0 of the batch: its embeddings have 3 and 4 channels"):
        collate([chat("<m1><m1>", "AF", tmp_path / "a.json", tmp_path / "b.json")])


def test_the_docstrings_example_runs(tmp_path: Path) -> None:
    result = doctest.testmod(collator, extraglobs={"folder": tmp_path, "tokenizer": with_ecg()})
    assert result.attempted > 0
    assert result.failed == 0


def test_writing_a_chat_file_does_not_load_torch() -> None:
    import subprocess
    import sys

    program = "import sys, ecgfounder.commands.chat, ecgfounder.chat; print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"
