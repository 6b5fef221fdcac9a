"""What several test modules need: the folder of reference material, and checkpoints of the official layout."""

from __future__ import annotations

import functools
import signal
import sys
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ecgfounder.storage import Location, locate, release_commits
from tests.builders.weights import drawn_state, overlapping_state
from tests.harness.browser import Browser, browser_program, running_browser
from tests.harness.hub_server import Hub, running_hub
from tests.harness.object_server import Gateway, ObjectServer, gateway_to, program, running
from tests.places import SHARED

if TYPE_CHECKING:
    from tests.harness.finished_demo import FinishedDemo


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that fork hundreds of times come first: a fork takes twice as long once networks are in memory."""
    items.sort(key=lambda item: item.path.name != "test_faults.py")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings and golden figures, which is not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"the reference material is not here ({SHARED})")
    return SHARED


def _checkpoint(tmp_path_factory: pytest.TempPathFactory, mode: str, filename: str) -> Path:
    import torch

    path = tmp_path_factory.mktemp("checkpoint") / filename
    torch.save({"state_dict": drawn_state(mode)}, path)
    return path


@pytest.fixture(scope="session")
def checkpoint_12lead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 12-lead checkpoint of the official layout with the golden figures' weights; not to be changed."""
    return _checkpoint(tmp_path_factory, "12lead", "12_lead_ECGFounder.pth")


@pytest.fixture(scope="session")
def checkpoint_1lead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for one lead."""
    return _checkpoint(tmp_path_factory, "1lead", "1_lead_ECGFounder.pth")


@pytest.fixture(scope="session")
def checkpoint_steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 12-lead checkpoint whose smaller residual branches do not amplify rounding; not to be changed."""
    import torch

    path = tmp_path_factory.mktemp("steady") / "weights.pth"
    torch.save({name: t * 0.3 if ".conv3.conv." in name else t for name, t in drawn_state("12lead").items()}, path)
    return path


@pytest.fixture(scope="session")
def checkpoint_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 12-lead checkpoint in a small file, for tests in which any network will do; not to be changed."""
    import torch

    path = tmp_path_factory.mktemp("small") / "weights.pth"
    torch.save({"state_dict": overlapping_state("12lead")}, path)
    return path


@pytest.fixture(scope="session")
def demo_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo cohort: 13 Philips recordings, one damaged, one with a calibration pulse; not to be changed."""
    from ecgfounder.demo.demo import write_demo_cohort

    folder = tmp_path_factory.mktemp("demo")
    write_demo_cohort(folder)
    return folder


@pytest.fixture(scope="session")
def finished_demo(tmp_path_factory: pytest.TempPathFactory, graph_cache: Path) -> FinishedDemo:
    """What `ecgfounder demo demo` left and said, run once; not to be changed."""
    from tests.harness.finished_demo import run_demo_once

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGFOUNDER_CACHE", str(graph_cache))
        patch.chdir(tmp_path_factory.mktemp("finished"))
        return run_demo_once()


@pytest.fixture(scope="session", autouse=True)
def _light_main() -> Iterator[None]:
    """A reading process imports the program's main module anew: not pytest, which the user's program is not."""
    main = sys.modules["__main__"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "__spec__", None)
        patch.delattr(main, "__file__", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _versions_once() -> Iterator[None]:
    """Versions of packages are looked up in files; hundreds of short runs note them twice each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata, "version", functools.cache(metadata.version))
        yield


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Programs that tests start receive SIGINT, even if the tests run in the background of a script, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def graph_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that the whole test session shares, so that a graph is built once."""
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(autouse=True)
def _own_cache(graph_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own cache."""
    monkeypatch.setenv("ECGFOUNDER_CACHE", str(graph_cache))


@pytest.fixture
def known_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process hash a checkpoint and read its packed weights once for all tests with this fixture."""
    from tests.harness.known_files import know_files

    know_files(monkeypatch)


@pytest.fixture(scope="session")
def _hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def hub(_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stand-in for the Hugging Face Hub, which programs reach through HF_ENDPOINT, without a token."""
    monkeypatch.setenv("HF_ENDPOINT", _hub.endpoint)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    _hub.repositories, _hub.requests, _hub.elsewhere = {}, [], []
    _hub.rule, _hub.advice, _hub.page = lambda _request: None, {}, 1000
    release_commits()
    yield _hub
    release_commits()


@pytest.fixture(scope="session")
def object_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """A real object store, started once; tests that use it are marked `services`."""
    pytest.importorskip("obstore", reason="obstore is not installed (make test-services)")
    weed = program()
    if weed is None:
        pytest.skip("SeaweedFS is not installed (make test-services)")
    with running(tmp_path_factory.mktemp("objects"), weed) as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real browser without a window, started once; tests that use it are marked `services`."""
    chromium = browser_program()
    if chromium is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    with running_browser(chromium) as opened:
        yield opened


@pytest.fixture
def bucket(object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket, and the environment with which it is read and written."""
    for name, value in object_server.environment.items():
        monkeypatch.setenv(name, value)
    return object_server.new_bucket()


@pytest.fixture
def gateway(object_server: ObjectServer, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """A gateway before the object store, to which the environment leads."""
    with gateway_to(object_server) as opened:
        monkeypatch.setenv("AWS_ENDPOINT_URL", opened.endpoint)
        yield opened


@pytest.fixture
def elsewhere() -> Location:
    """A folder that is not on this machine's disk."""
    return locate(f"memory://{uuid.uuid4().hex}/data")
