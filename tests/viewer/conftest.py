"""A run to look at, made once for the tests of the viewer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecgfounder.results import open_run
from ecgfounder.viewer import Atlas, open_atlas
from tests.builders.atlas import Shown, write_shown
from tests.harness.viewed import Served, served


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What fixtures of the session keep, which are made outside of any test, is in a folder of the tests too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGFOUNDER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """A run of 300 recordings in three clusters; not to be changed."""
    return write_shown(tmp_path_factory.mktemp("shown"))


@pytest.fixture(scope="session")
def atlas(shown: Shown) -> Atlas:
    """The run opened, its map ready."""
    opened = open_atlas(open_run(shown.folder), group="subject", data_dir=str(shown.data_dir))
    opened.places.wait(60)
    return opened


@pytest.fixture(scope="session")
def viewed(atlas: Atlas) -> Iterator[Served]:
    """A server of that run, entered."""
    with served(lambda: atlas) as running:
        running.enter()
        yield running
