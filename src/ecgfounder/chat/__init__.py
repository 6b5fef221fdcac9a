"""Chat files for training multimodal language models on embeddings."""

from ecgfounder.chat.forms import ECG_QUESTIONS

__all__ = ["ECG_QUESTIONS"]
