"""Engines that stay open from run to run: to open one takes longer than to embed a few recordings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from ecgfounder.engines import Engine, create_engine


@contextmanager
def kept_engines(module: ModuleType) -> Iterator[None]:
    """Within it, a module that calls `create_engine` with the same arguments again gets the same engine, still open."""
    made: dict[str, tuple[Engine, Any]] = {}

    def create(*given: Any, **named: Any) -> Engine:
        key = repr((given, sorted(named.items())))
        if key not in made:
            engine = create_engine(*given, **named)
            made[key] = engine, engine.close
            engine.close = lambda: None  # type: ignore[method-assign]
        return made[key][0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "create_engine", create)
        yield
    for _, close in made.values():
        close()
