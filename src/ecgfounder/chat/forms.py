"""The forms of a sample in a chat file: OpenAI style, and embedding-chat (messages beside embeddings).

In: a row. Out: dictionaries and lists for JSON. All rows have the same keys, so that a library of tables has nothing to fill with
nulls.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from ecgfounder.chat.rows import ChatRow

ECG_QUESTIONS: tuple[str, ...] = (
    "What does this ECG show?",
    "Write the report for this ECG.",
    "Please interpret this electrocardiogram.",
    "Which findings would you report for this tracing?",
    "What is the rhythm, and what else do you notice?",
    "Is this ECG normal? If it is not, say what is abnormal.",
    "Describe rhythm, conduction and repolarisation in this recording.",
    "Give the diagnostic statements that fit this ECG.",
    "Summarise this ECG for the physician in charge.",
    "Are there signs of ischaemia, infarction, hypertrophy or a conduction disturbance?",
    "Read this ECG as a cardiologist would.",
    "List every abnormality that you can see in this ECG.",
)
"""Questions about one ECG; `create_mimic_ecg_inputs` adds one of them after each user's text."""

QUESTIONS_OF_SEVERAL: tuple[str, ...] = (
    "What do these ECGs show?",
    "Write the report for these ECGs.",
    "Please interpret these electrocardiograms.",
    "Which findings would you report for these tracings?",
    "What is the rhythm in each of these ECGs, and what else do you notice?",
    "Are these ECGs normal? If they are not, say what is abnormal.",
    "Describe rhythm, conduction and repolarisation in these recordings.",
    "Give the diagnostic statements that fit these ECGs.",
    "Summarise these ECGs for the physician in charge.",
    "Do these ECGs show signs of ischaemia, infarction, hypertrophy or a conduction disturbance?",
    "Read these ECGs as a cardiologist would.",
    "List every abnormality that you can see in these ECGs.",
)
"""The same questions about several ECGs."""


def conversation(sample: ChatRow) -> list[dict[str, Any]]:
    """A row in the OpenAI style: text parts, and a part for each ECG, with the modality's name as type and key.

    Every part has all keys; those of other types are empty texts.
    """
    empty = dict.fromkeys(("text", *sample.modalities), "")
    parts: list[dict[str, str]] = [{"type": "text", **empty, "text": " ".join(sample.text)}] if sample.text else []
    parts += [{"type": modality, **empty, modality: path} for modality, path in sample.embeddings]
    answer = [{"type": "text", **empty, "text": " ".join(sample.target)}]
    return [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]


def embedding_chat(sample: ChatRow, question: str | None = None) -> dict[str, Any]:
    """A row in the embedding-chat style: a tag for each ECG before the user's text, embeddings beside the messages.

    `embeddings` has all modalities; one that the row lacks is an empty list.
    """
    embeddings: dict[str, list[str]] = {modality: [] for modality in sample.modalities}
    for modality, path in sample.embeddings:
        embeddings[modality].append(path)
    tags = "".join(f"<{modality}>" * len(paths) for modality, paths in embeddings.items())
    user = "\n\n".join(part for part in (" ".join(sample.text), question) if part)
    messages = [
        {"role": "user", "content": tags + user},
        {"role": "assistant", "content": "\n".join(sample.target)},
    ]
    return {"messages": messages, "embeddings": embeddings}


def question_for(sample: ChatRow, seed: int) -> str:
    """The question of a row, in the plural for several ECGs: depends only on seed and row, not on other rows or flags."""
    draw = int.from_bytes(blake2b(f"{seed}:{sample.row}".encode(), digest_size=8).digest(), "little")
    questions = ECG_QUESTIONS if len(sample.embeddings) == 1 else QUESTIONS_OF_SEVERAL
    return questions[draw % len(questions)]
