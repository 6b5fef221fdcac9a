"""Which engine is taken, and what is refused before anything is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ecgfounder.engines import choice, create_engine, gpu_available, native_usable
from ecgfounder.errors import MissingDependencyError, SettingsError

pytest.importorskip("onnxruntime", reason="the extra [cpu] is not installed")


def test_auto_takes_the_fastest_engine_that_is_there(checkpoint_12lead: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken() -> str:
        return create_engine("auto", mode="12lead", checkpoint=checkpoint_12lead).name

    monkeypatch.setattr(choice, "gpu_available", lambda: False)  # or whatever this machine has
    if native_usable():
        assert taken() == "native"
    monkeypatch.setattr(choice, "native_usable", lambda: False)
    assert taken() == "onnx"
    monkeypatch.setattr(choice, "onnx_installed", lambda: False)
    assert taken() == "torch"


def test_auto_takes_torch_for_another_precision(checkpoint_12lead: Path) -> None:
    made = create_engine("auto", mode="12lead", checkpoint=checkpoint_12lead, precision="bfloat16", device="cpu")
    assert (made.name, made.precision) == ("torch", "bfloat16")


def test_an_engine_that_is_not_installed_is_named_with_its_extra(
    checkpoint_12lead: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingDependencyError, match=r"ecgfounder\[cpu\]"):
        create_engine("onnx", mode="12lead", checkpoint=checkpoint_12lead)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"choice": "tensorflow"}, "Allowed values are .*'torch'.*but got 'tensorflow'"),
        ({"precision": "int8"}, "Allowed values are .*but got 'int8'"),
        ({"mode": "8lead"}, "but got '8lead'"),
        ({"choice": "onnx", "precision": "bfloat16"}, "float32 only: use engine='torch'"),
        ({"choice": "onnx", "device": "cuda"}, "on the CPU only"),
        ({"choice": "native", "precision": "float16"}, "float32 only: use engine='torch'"),
        ({"choice": "native", "device": "cuda"}, "on the CPU only"),
        ({"choice": "native", "compiled": True}, "compiled=True with engine='torch'"),
        ({"choice": "onnx", "compiled": True}, "compiled=True with engine='torch'"),
        ({"choice": "torch", "device": "cpu", "precision": "float16"}, "float16 needs a GPU"),
        ({"choice": "torch", "device": "nonsense"}, "the device 'nonsense' cannot be used"),
    ],
)
def test_choices_that_cannot_be_are_refused_before_anything_is_loaded(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        create_engine(**({"mode": "12lead", "checkpoint": tmp_path / "none.pth"} | options))


def test_without_a_gpu_driver_torch_is_not_imported_to_look_for_one() -> None:
    if any((Path("/dev") / name).exists() for name in ("nvidiactl", "nvidia0", "nvidia-uvm", "kfd", "dxg")):
        pytest.skip("this machine has a GPU driver")
    code = (
        "import sys; from ecgfounder.engines import gpu_available; "
        "assert not gpu_available(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not gpu_available()
