"""The benchmarks run from one command, and what they write can be read back and put into the documentation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness.browser import browser_program
from tests.places import ROOT


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The results file and the printed tables of a run of the parts that need no network."""
    folder = tmp_path_factory.mktemp("benchmarks")
    parts = ("stages", "growth", "null_engine", "starting", "analysis", "drift", "probe", "report")
    done = run("benchmarks", "--quick", "--folder", str(folder), "--only", *parts)
    return folder / "results.json", done.stdout


def spreads(facts: Any) -> list[dict[str, float]]:
    """Every measurement below some facts."""
    if isinstance(facts, dict):
        if "median" in facts:
            return [facts]
        return [each for value in facts.values() for each in spreads(value)]
    return [each for value in facts for each in spreads(value)] if isinstance(facts, list) else []


@pytest.mark.slow
def test_results_are_json_with_machine_versions_and_every_part(quick: tuple[Path, str]) -> None:
    results = json.loads(quick[0].read_text())
    assert (
        set(results["parts"])
        == set(results["seconds"])
        == {"stages", "growth", "null_engine", "starting", "analysis", "drift", "probe", "report"}
    )
    assert results["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert {"python", "numpy", "torch"} <= set(results["machine"]["versions"])
    assert [row["recordings"] for row in results["parts"]["growth"]["rows"]] == [10, 20]
    assert [row["used_recordings"] for row in results["parts"]["drift"]["rows"]] == [600, 600]
    assert [row["recordings"] for row in results["parts"]["probe"]["rows"]] == [2000, 2000, 300, 300]


@pytest.mark.slow
def test_every_measurement_has_a_median_within_its_range(quick: tuple[Path, str]) -> None:
    found = spreads(json.loads(quick[0].read_text())["parts"])
    assert len(found) > 15
    assert all(each["min"] <= each["median"] <= each["max"] and each["n"] >= 1 for each in found)


@pytest.mark.slow
def test_the_whole_probe_command_is_measured_with_controls_on_files(tmp_path: Path) -> None:
    flags = ["--random_networks", "1", "--permutations", "1", "--n_draws", "20", "--folds", "2"]
    size = ["--recordings", "900", "--labels", "1", "--folder", str(tmp_path)]
    facts = json.loads(run("benchmarks.probe_command", *size, "--", *flags).stdout)
    assert (facts["status"], facts["recordings"], facts["labels"]) == (0, 900, 1)
    assert facts["cpu_seconds"] > 0
    controls = (tmp_path / "probe_results" / "results.csv").read_text()
    assert "random weights" in controls
    assert "simple features" in controls


@pytest.mark.slow
def test_the_host_is_compared_with_another_commit(tmp_path: Path) -> None:
    cases = ("Philips, recipe filtered, --window 10, pooled Parquet", "Philips, JSON feature maps")
    size = ("--commit", "HEAD", "--rounds", "1", "--sizes", "10", "60", "--folder", str(tmp_path))
    table = run("benchmarks.host", *size, "--cases", *cases).stdout.splitlines()
    assert [line.split("|")[1].strip() for line in table[2:]] == list(cases)
    assert (tmp_path / "commit_HEAD" / ".built").exists()


@pytest.mark.slow
def test_the_tables_go_between_a_pages_markers_and_nowhere_else(quick: tuple[Path, str], tmp_path: Path) -> None:
    from benchmarks.report import BEGIN, END

    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nan earlier table\n{END}\nafter\n")
    for _ in range(2):  # again gives the same page
        run("benchmarks.report", str(quick[0]), str(page))
        text = page.read_text()
        assert text.startswith(f"before\n{BEGIN}\n")
        assert text.endswith(f"{END}\nafter\n")
        assert "an earlier table" not in text
        assert text.count("### Each stage alone") == 1
    assert "### Each stage alone" in quick[1]
    assert "### Drift, 16 features, one core" in quick[1]
    assert "### Linear probe, 16 features, one core" in quick[1]
    assert "### A report by site and year, without UMAP" in quick[1]


def test_a_page_without_markers_is_refused() -> None:
    from benchmarks.report import insert

    with pytest.raises(ValueError, match="expected the markers"):
        insert("a page", "tables")


def test_the_recordings_of_the_benchmark_are_varied_and_as_compressible_as_real_ones() -> None:
    from benchmarks.inputs import LENGTH, counts
    from ecgfounder.demo.philips_encoder import encode_sierra

    one, other = counts(0), counts(1)
    assert one.shape == other.shape == (12, LENGTH)
    assert (one != other).mean() > 0.5
    # Real ones of this length have 32,000 characters of Base64 (sixteen leads, about 1,500 codes in each of twelve).
    assert 28_000 < len(encode_sierra(other, version="1.03")) < 38_000


@pytest.mark.slow
def test_the_whole_job_gives_what_the_plain_way_gives(tmp_path: Path) -> None:
    parts = ("end_to_end", "engines", "scaling")
    run("benchmarks", "--quick", "--folder", str(tmp_path), "--only", *parts)
    results = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert results["end_to_end"]["largest_relative_difference"] <= 1e-5
    assert {row["engine"] for row in results["engines"]["rows"]} >= {"torch"}
    assert all(row["relative_error"] < 0.05 for row in results["engines"]["rows"])
    assert len(spreads(results)) > 15


WITHOUT = """
import sys

from benchmarks.gpu import RUN_PACKAGES

for name in (*RUN_PACKAGES, "huggingface_hub", "matplotlib", "onnx", "onnxruntime", "h5py", "wfdb"):
    sys.modules[name] = None  # what is not installed

from benchmarks.__main__ import main

main(["--quick", "--only", "gpu", "--folder", sys.argv[1]])
"""


@pytest.mark.slow
def test_the_gpu_part_needs_torch_numpy_and_safetensors_and_names_what_else_is_missing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / "results.json").read_text())["parts"]["gpu"]["rows"]
    network = [row for row in rows if "relative_error" in row]
    assert {"torch", "torch, 2-D channels last", "torch, groups of 64"} <= {row["what"] for row in network}
    assert all(row["relative_error"] < 1e-5 and row["per_second"]["median"] > 0 for row in network)
    assert rows[-1]["skipped"].startswith("not installed: accelerate, datasets")
    assert "not installed: accelerate" in done.stdout


@pytest.mark.services
@pytest.mark.xdist_group("browser")
@pytest.mark.skipif(browser_program() is None, reason="no Chromium is installed")
def test_the_viewers_page_is_measured(tmp_path: Path) -> None:
    done = run("benchmarks", "--quick", "--folder", str(tmp_path), "--only", "viewer")
    (row,) = json.loads((tmp_path / "results.json").read_bytes())["parts"]["viewer"]["rows"]
    assert row["recordings"] == 2000
    assert all(
        each["median"] > 0 for name, each in row.items() if name != "recordings" and not name.endswith("core_ms")
    )
    assert "| MB of the browser's process of the page |" in done.stdout
