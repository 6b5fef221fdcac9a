"""A tokenizer with the interface of transformers' that needs no package and no file: a token per letter, and added ones."""

from __future__ import annotations

import re
from typing import Any

SPECIAL = ("<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>")


class LetterTokenizer:
    """Ids are numbers of letters, and of added tokens after them.

    Attributes
    ----------
    chat_template : "" for none, "plain" for tags around each message, "forgetful" for one that drops earlier answers.
    """

    def __init__(self, *added: str, chat_template: str = "", with_ends: bool = True, with_padding: bool = True) -> None:
        self.added = [*SPECIAL, *added]
        self.chat_template = chat_template
        known = self.get_vocab()
        self.pad_token_id = known["<pad>"] if with_padding else None
        self.bos_token_id, self.eos_token_id = (known["<s>"], known["</s>"]) if with_ends else (None, None)

    def get_vocab(self) -> dict[str, int]:
        return {token: 0x110000 + number for number, token in enumerate(self.added)}

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        known = self.get_vocab()
        pieces = re.split("(" + "|".join(map(re.escape, self.added)) + ")", text)
        ids: list[int] = []
        for piece in pieces:
            ids += [known[piece]] if piece in known else [ord(letter) for letter in piece]
        if add_special_tokens and self.bos_token_id is not None:
            ids = [self.bos_token_id, *ids]
        return {"input_ids": ids}

    def decode(self, ids: list[int]) -> str:
        names = {number: token for token, number in self.get_vocab().items()}
        return "".join(names.get(number) or chr(number) for number in ids)

    def apply_chat_template(self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool) -> str:
        assert not tokenize
        kept = list(conversation)
        if self.chat_template == "forgetful":
            kept = [each for each in kept[:-1] if each["role"] != "assistant"] + kept[-1:]
        text = "<s>" + "".join(f"<|{each['role']}|>\n{each['content'].strip()}<|end|>\n" for each in kept)
        return text + ("<|assistant|>\n" if add_generation_prompt else "")
