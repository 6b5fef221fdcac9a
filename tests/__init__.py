"""Tests in folders that mirror the packages; `builders` make what they need, `harness` runs and hurts it."""
