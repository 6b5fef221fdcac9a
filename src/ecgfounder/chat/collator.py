"""Samples of a chat file as a batch for training: token ids with a place for each token of an ECG, and these tokens.

In: samples of either form, from `datasets` or `json`, and a tokenizer of Hugging Face's transformers. Out: tensors. Embeddings
are read when their batch is made, from JSON files or Parquet shards, wherever they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ecgfounder.checks import check_least
from ecgfounder.errors import SettingsError
from ecgfounder.escaping import counted
from ecgfounder.results.store import read_embedding
from ecgfounder.storage import storage_options as make_options

IGNORED = -100
"""The label of a token that is not to be learned, as in PyTorch's cross-entropy and in transformers."""

ECG_TOKEN = "<ecg>"

FloatArray = npt.NDArray[np.float32]


class Tokenizer(Protocol):
    """What is used of a tokenizer (`transformers.PreTrainedTokenizerBase`)."""

    pad_token_id: Any
    eos_token_id: Any
    bos_token_id: Any
    chat_template: Any

    def __call__(self, text: str, *, add_special_tokens: bool) -> Mapping[str, Any]: ...

    def get_vocab(self) -> dict[str, int]: ...

    def apply_chat_template(self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool) -> Any: ...


@dataclass(frozen=True)
class _Turn:
    """A message: its text with a mark for each ECG, and the references of these ECGs in order."""

    role: str
    text: str
    references: tuple[str, ...]


class ChatCollator:
    """Collate samples of a chat file for a language model that takes ECG tokens; for `DataLoader(collate_fn=...)`.

    Each token of an ECG (T of a feature map, 1 of a mean, W x T of several windows) has a place in the text: the id of
    `ecg_token`.
    A model puts its projection of the tokens there:
    `embedded[batch["ecg_places"]] = project(batch["ecg_tokens"][batch["ecg_mask"]])`.
    The tokens of a sample with several ECGs are in the order of its text. Labels are the assistant's answers, and -100 elsewhere.

    The text is that of the tokenizer's chat template. A tokenizer without one gets the messages with a line break after each, and
    its end-of-text token after an answer.

    Parameters
    ----------
    tokenizer : Tokenizer
        A tokenizer of transformers, to which `ecg_token` has been added:
        `tokenizer.add_tokens(["<ecg>"], special_tokens=True)`, then `model.resize_token_embeddings(len(tokenizer))`.
    ecg_token : str, default: "<ecg>"
        The token that stands for a token of an ECG. It must not be in the texts.
    max_length : int, optional
        Maximum number of ids; the end of a longer sample is left out. None for no maximum.
    storage_options : mapping, optional
        Options of object stores, if the embeddings are in one; see `embed_cohort`.

    Raises
    ------
    SettingsError
        If the tokenizer does not know `ecg_token` as one token, or `max_length` is not positive.

    Examples
    --------
    >>> import json
    >>> embedding = {"embedding": [[0.5, 1.0], [0.0, 2.0]], "shape": [2, 2], "description": "a", "modality": "ecg"}
    >>> _ = (folder / "a.json").write_text(json.dumps(embedding))
    >>> sample = {
    ...     "messages": [{"role": "user", "content": "<m1>Rhythm?"}, {"role": "assistant", "content": "sinus"}],
    ...     "embeddings": {"m1": [str(folder / "a.json")]},
    ... }
    >>> batch = ChatCollator(tokenizer)([sample])
    >>> batch["ecg_tokens"].tolist(), int(batch["ecg_places"].sum())
    ([[[0.5, 1.0], [0.0, 2.0]]], 2)
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        ecg_token: str = ECG_TOKEN,
        max_length: int | None = None,
        storage_options: Mapping[str, object] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.ecg_token = ecg_token
        self.max_length = max_length
        self._options = make_options(storage_options)
        if max_length is not None:
            check_least("max_length", max_length, 1)
        known = tokenizer.get_vocab().get(ecg_token)
        if known is None or self._ids(ecg_token) != [known]:
            raise SettingsError(
                f"The tokenizer has no single token {ecg_token!r} for the tokens of an ECG. Add it: "
                f"tokenizer.add_tokens([{ecg_token!r}], special_tokens=True), then model.resize_token_embeddings(len(tokenizer))."
            )
        self._ecg_id = known

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        """Collate a batch.

        Parameters
        ----------
        samples : sequence of Any
            Samples of a chat file: {"messages": ..., "embeddings": ...}, {"messages": [...]} with parts, or such a list of
            messages alone.

        Returns
        -------
        dict of str to Tensor
            input_ids, attention_mask, labels : int64 [B, L].
            ecg_tokens : float32 [B, N, C], N the most tokens of ECGs in a sample; zeros after a sample's own.
            ecg_mask : bool [B, N], where there is a token.
            ecg_places : bool [B, L], where a token belongs, as many in each row as in `ecg_mask`.

        Raises
        ------
        SettingsError
            If a sample has another form, a text contains `ecg_token`, or `max_length` cuts off tokens of an ECG.
        RunError
            If an embedding does not exist or is damaged, or embeddings differ in their number of channels.
        """
        made = [self._sample(sample, number) for number, sample in enumerate(samples)]
        padding = self.tokenizer.pad_token_id
        if padding is None:
            padding = self.tokenizer.eos_token_id or 0
        ids = _padded([ids for ids, _, _ in made], int(padding))
        lengths = torch.tensor([len(ids) for ids, _, _ in made])
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        counts = torch.tensor([len(tokens) for _, _, tokens in made])
        channels = {tokens.shape[1] for _, _, tokens in made if len(tokens)}
        if len(channels) > 1:
            raise SettingsError(f"The embeddings of a batch have {' and '.join(map(str, sorted(channels)))} channels.")
        tokens = torch.zeros(len(made), int(counts.max()), channels.pop() if channels else 0)
        for row, (_, _, found) in enumerate(made):
            if len(found):
                tokens[row, : len(found)] = torch.from_numpy(found)
        return {
            "input_ids": ids,
            "attention_mask": mask.long(),
            "labels": _padded([labels for _, labels, _ in made], IGNORED),
            "ecg_tokens": tokens,
            "ecg_mask": torch.arange(tokens.shape[1]) < counts[:, None],
            "ecg_places": (ids == self._ecg_id) & mask,
        }

    def _sample(self, sample: Any, number: int) -> tuple[list[int], list[int], FloatArray]:
        """Ids, labels and ECG tokens of one sample."""
        turns = list(_turns(sample, number))
        if any(self.ecg_token in turn.text for turn in turns):
            raise SettingsError(
                f"sample {number} of the batch: its text contains {self.ecg_token!r}; use another ecg_token."
            )
        references = [reference for turn in turns for reference in turn.references]
        embeddings = [self._tokens_of(reference) for reference in references]
        channels = sorted({tokens.shape[1] for tokens in embeddings})
        if len(channels) > 1:
            raise SettingsError(
                f"sample {number} of the batch: its embeddings have {' and '.join(map(str, channels))} channels."
            )
        lengths = iter([len(tokens) for tokens in embeddings])
        messages = [
            {"role": turn.role, "content": _MARK.sub(lambda _: self.ecg_token * next(lengths), turn.text)}
            for turn in turns
        ]
        ids, labels = self._tokenized(messages, number)
        tokens = np.concatenate(embeddings) if embeddings else np.zeros((0, 0), np.float32)
        places = ids.count(self._ecg_id)
        if places != len(tokens):
            raise SettingsError(
                f"sample {number} of the batch: {counted(len(tokens), 'token')} of ECGs, but {counted(places, 'place')} in the "
                f"text. Raise max_length (now {self.max_length}), use embeddings of pooling='mean', or a chat template that "
                "keeps the texts of messages."
            )
        return ids, labels, tokens

    def _tokens_of(self, reference: str) -> FloatArray:
        embedding = read_embedding(reference, storage_options=self._options)
        return embedding.reshape(-1, embedding.shape[-1])

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _tokenized(self, messages: list[dict[str, str]], number: int) -> tuple[list[int], list[int]]:
        """Ids, and labels for what the assistant says."""
        ids: list[int] = []
        labels: list[int] = []
        for text, is_answer in self._stretches(messages, number):
            part = self._ids(text)
            ids += part
            labels += part if is_answer else [IGNORED] * len(part)
        if not self.tokenizer.chat_template:
            ids, labels = self._with_ends(ids, labels)
        return ids[: self.max_length], labels[: self.max_length]

    def _with_ends(self, ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
        """With the tokenizer's own begin and end, which no template adds."""
        if self.tokenizer.bos_token_id is not None:
            ids, labels = [self.tokenizer.bos_token_id, *ids], [IGNORED, *labels]
        if self.tokenizer.eos_token_id is not None and labels[-1:] != [IGNORED]:
            ids, labels = [*ids, self.tokenizer.eos_token_id], [*labels, self.tokenizer.eos_token_id]
        return ids, labels

    def _stretches(self, messages: list[dict[str, str]], number: int) -> Iterator[tuple[str, bool]]:
        """The text of a sample in stretches, and whether each is an answer."""
        if not self.tokenizer.chat_template:
            for place, message in enumerate(messages):
                is_last = place == len(messages) - 1
                yield message["content"] + ("" if is_last else "\n"), message["role"] == "assistant"
            return
        done = ""
        for place, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._templated(messages[:place], generating=True)
            after = self._templated(messages[: place + 1], generating=False)
            start = _n_in_common(before, after)  # a template may add a space, or leave out a thought
            if start < len(done) or not after.startswith(done):
                raise SettingsError(
                    f"sample {number} of the batch: the tokenizer's chat template changes earlier messages when later ones are "
                    "added, so that answers have no certain place. Set tokenizer.chat_template to one that does not."
                )
            yield after[len(done) : start], False
            yield after[start:], True
            done = after
        if messages[-1]["role"] != "assistant":
            yield self._templated(messages, generating=True)[len(done) :], False

    def _templated(self, messages: list[dict[str, str]], *, generating: bool) -> str:
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generating))


def _n_in_common(one: str, other: str) -> int:
    """The number of characters at the beginning that are the same."""
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)


# --- samples ---------------------------------------------------------------------------------------------------------

# Stands in a turn's text for an ECG: no text of JSON that was written by a program has a lone noncharacter.
_ECG_MARK = "\ufdd0"
_MARK = re.compile(_ECG_MARK)


def _turns(sample: Any, number: int) -> Iterator[_Turn]:
    """The messages of a sample of either form.

    Raises
    ------
    SettingsError
        If it has another form, or its tags and embeddings differ in number.
    """
    try:
        messages, embeddings = _messages_of(sample)
        left = {modality: list(paths or ()) for modality, paths in (embeddings or {}).items()}
        for message in messages:
            yield _turn_of(message, left)
    except (TypeError, KeyError, AttributeError, ValueError, IndexError) as error:
        raise SettingsError(
            f"sample {number} of the batch is not one of a chat file: expected messages with a role and a content, and an "
            f"embedding for each tag ({type(error).__name__})."
        ) from error
    if any(left.values()):
        raise SettingsError(f"sample {number} of the batch has embeddings without a tag in its messages.")


def _messages_of(sample: Any) -> tuple[Sequence[Any], Mapping[str, Any] | None]:
    """Messages, and the embeddings beside them if they are of that form."""
    if isinstance(sample, Mapping):
        if "messages" in sample:
            return sample["messages"], sample.get("embeddings")
        # A list of messages in an array of lists, of which `datasets` makes columns "0", "1" ...
        return [sample[str(place)] for place in range(len(sample))], None
    return list(sample), None


def _turn_of(message: Mapping[str, Any], left: Mapping[str, list[str]]) -> _Turn:
    """One message; references that belong to it are taken from `left`."""
    content = message["content"]
    found: list[str] = []
    if isinstance(content, str):
        tag = re.compile("|".join(f"<({re.escape(modality)})>" for modality in left) or "(?!)")

        def mark(match: re.Match[str]) -> str:
            found.append(left[match[0][1:-1]].pop(0))
            return _ECG_MARK

        text = tag.sub(mark, content.replace(_ECG_MARK, ""))
        return _Turn(str(message["role"]), text, tuple(found))
    parts: list[str] = []
    for part in content:
        if part["type"] == "text":
            parts.append(str(part["text"]).replace(_ECG_MARK, ""))
        else:
            found.append(str(part[part["type"]]))
            parts.append(_ECG_MARK)
    return _Turn(str(message["role"]), "".join(parts), tuple(found))


def _padded(rows: Sequence[list[int]], value: int) -> Tensor:
    """int64 [B, L], `value` after each row's own."""
    out = torch.full((len(rows), max(map(len, rows))), value)
    for row, ids in enumerate(rows):
        out[row, : len(ids)] = torch.tensor(ids)
    return out
