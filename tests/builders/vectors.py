"""Embeddings without a network, and their similarities computed plainly."""

from __future__ import annotations

import numpy as np


def made_up(n: int, d: int, latent: int, *, noise: float = 0.3, seed: int = 0) -> np.ndarray:
    """Vectors in a few directions, with noise in all, far from zero."""
    rng = np.random.default_rng(seed)
    spread = np.linspace(3, 0.3, latent)
    vectors = (rng.standard_normal((n, latent)) * spread) @ rng.standard_normal((latent, d))
    return (vectors + noise * rng.standard_normal((n, d)) + 5).astype(np.float32)


def brute(vectors: np.ndarray, whiten: bool = False) -> np.ndarray:
    """All similarities, computed plainly in float64."""
    x = vectors.astype(np.float64) - vectors.astype(np.float64).mean(axis=0)
    if whiten:
        values, directions = np.linalg.eigh(np.cov(x.T, bias=True))
        x = x @ directions / np.sqrt(values)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x @ x.T)
