"""Chat files for training multimodal language models on embeddings."""
