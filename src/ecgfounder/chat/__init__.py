"""Chat files for training multimodal language models on embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecgfounder.chat.forms import ECG_QUESTIONS, QUESTIONS_OF_SEVERAL

if TYPE_CHECKING:
    from ecgfounder.chat.collator import ChatCollator

__all__ = ["ECG_QUESTIONS", "QUESTIONS_OF_SEVERAL", "ChatCollator"]


def __getattr__(name: str) -> Any:
    if name != "ChatCollator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ecgfounder.chat.collator import ChatCollator  # torch is needed for it, and not for writing a file

    return ChatCollator
