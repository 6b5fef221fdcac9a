"""What a sample looks like in a chat file: conversations in the OpenAI style, messages beside embeddings."""

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
"""Questions of which `create_mimic_ecg_inputs` puts one after each user's text."""


def conversation(sample: ChatRow) -> list[dict[str, Any]]:
    """A row in the OpenAI style: text parts, and one part for each ECG whose type and key are the modality's name."""
    parts: list[dict[str, str]] = [{"type": "text", "text": " ".join(sample.text)}] if sample.text else []
    parts += [{"type": modality, modality: path} for modality, path in sample.embeddings]
    answer = [{"type": "text", "text": " ".join(sample.target)}]
    return [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]


def embedding_chat(sample: ChatRow, question: str | None = None) -> dict[str, Any]:
    """A row in the embedding-chat style: a tag for each ECG before the user's text, the files beside the messages."""
    embeddings: dict[str, list[str]] = {}
    for modality, path in sample.embeddings:
        embeddings.setdefault(modality, []).append(path)
    tags = "".join(f"<{modality}>" * len(paths) for modality, paths in embeddings.items())
    user = "\n\n".join(part for part in (" ".join(sample.text), question) if part)
    messages = [
        {"role": "user", "content": tags + user},
        {"role": "assistant", "content": "\n".join(sample.target)},
    ]
    return {"messages": messages, "embeddings": embeddings}


def question_for(row: int, seed: int) -> str:
    """The question that a row gets: drawn by seed and row alone, so that no other row or flag moves it."""
    draw = int.from_bytes(blake2b(f"{seed}:{row}".encode(), digest_size=8).digest(), "little")
    return ECG_QUESTIONS[draw % len(ECG_QUESTIONS)]
