"""The torch dataset: inputs as the network takes them, through any loader, and a network that learns from them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas
import polars
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

from ecgfounder import ft_12lead_ECGFounder
from ecgfounder.dataset import ECGDataset, collate_by_length, collate_cropped, collate_readable
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.errors import CohortError, PrepareError, ReadError, SettingsError
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.signals import prepare
from ecgfounder.readers import read_ecg
from ecgfounder.readers.source import Hints

HINTS = Hints(500.0, "mV", STANDARD_LEADS)
TEN_SECONDS = Preparation(window=10)


@pytest.fixture(scope="module")
def demo(demo_cohort: Path) -> Path:
    return demo_cohort


def write_arrays(folder: Path, lengths: list[int]) -> list[Path]:
    paths = []
    for number, length in enumerate(lengths):
        rng = np.random.default_rng(number)
        samples: npt.NDArray[np.float64] = rng.standard_normal((12, length))
        paths.append(folder / f"{number}.npy")
        np.save(paths[-1], samples)
    return paths


def test_an_input_is_the_prepared_signal(demo: Path) -> None:
    path = demo / "ecg" / "patient_006" / "ecg_0007.xml"
    preparation = Preparation(window=10)
    expected = prepare(read_ecg(path), preparation).inputs[0]
    found = ECGDataset([path], preparation=preparation)[0]
    assert found.shape == (12, 5000)
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy(), expected)


def test_windows_and_leads_stand_in_front(tmp_path: Path) -> None:
    paths = write_arrays(tmp_path, [2500])
    windows = ECGDataset(paths, preparation=Preparation(window=2.0, stride=1.0), hints=HINTS)
    leads = ECGDataset(paths, preparation=Preparation("1lead", lead="all"), hints=HINTS)
    assert windows[0].shape == (4, 12, 1000)
    assert leads[0].shape == (12, 1, 2500)


def test_a_cohorts_rows_become_inputs_with_their_targets(demo: Path, tmp_path: Path) -> None:
    rows = ["patient_001/ecg_0001.xml,0", "patient_002/ecg_0002.xml,1", ",1", "patient_003/ecg_0003.xml,1"]
    (tmp_path / "cohort.csv").write_text("\n".join(["ecg_paths,af", *rows]) + "\n")
    ecgs = ECGDataset.from_cohort(tmp_path / "cohort.csv", target_column="af", data_dir=demo / "ecg")
    assert len(ecgs) == 3
    assert [target for _, target in (ecgs[i] for i in range(3))] == [0, 1, 1]
    saved = ECGDataset.from_cohort(demo / "dataset", data_dir=demo / "ecg")
    assert len(saved) == 13
    assert saved[0].shape == (12, 5000)
    folder = ECGDataset.from_cohort(demo / "ecg")
    assert len(folder) == 13
    assert torch.equal(folder[0], saved[0])


@pytest.mark.parametrize("make", [pa.table, pandas.DataFrame, polars.DataFrame], ids=["pyarrow", "pandas", "polars"])
def test_a_table_in_memory_is_a_cohort_and_may_have_several_targets(demo: Path, make: Any) -> None:
    rows = {
        "path": ["patient_001/ecg_0001.xml", "patient_002/ecg_0002.xml"],
        "af": [0, 1],
        "age": [61.5, 47.0],
        "note": ["a", "b"],
    }
    ecgs = ECGDataset.from_cohort(
        make(rows), path_column="path", target_column=["af", "age"], data_dir=demo / "ecg", preparation=TEN_SECONDS
    )
    signals, targets = next(iter(DataLoader(ecgs, batch_size=2)))
    assert signals.shape == (2, 12, 5000)
    assert targets.tolist() == [[0.0, 61.5], [1.0, 47.0]]
    alone = ECGDataset.from_cohort(make(rows), path_column="path", target_column="af", data_dir=demo / "ecg")
    assert [alone[1][1], len(alone)] == [1, 2]
    with pytest.raises(CohortError, match=r"'sex' column in the dataset; .* the 'target_column' parameter"):
        ECGDataset.from_cohort(make(rows), path_column="path", target_column=["af", "sex"])
    rows["af"] = [0, None]  # type: ignore[list-item]
    with pytest.raises(CohortError, match="row 1 of the table has no value in the column 'af'"):
        ECGDataset.from_cohort(make(rows), path_column="path", target_column=["age", "af"])


def test_a_list_of_paths_is_a_cohort_and_one_path_is_no_list(demo: Path) -> None:
    paths = sorted((demo / "ecg").rglob("*.xml"))[:2]
    assert torch.equal(ECGDataset.from_cohort(paths)[1], ECGDataset(paths)[1])
    for wrong in (str(paths[0]), paths[0], pandas.DataFrame({"ecg_paths": paths})):
        with pytest.raises(SettingsError, match=r"Expected a list of paths, got a .*from_cohort"):
            ECGDataset(wrong)  # type: ignore[arg-type]


def test_a_bad_file_raises_is_left_out_or_replaced(demo: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["patient_001/ecg_0001.xml", "patient_012/ecg_0013.xml", "none.xml", "patient_002/ecg_0002.xml"]
    given = {"data_dir": demo / "ecg", "preparation": TEN_SECONDS}
    with pytest.raises(ReadError, match=r"ecg_0013\.xml"):
        ECGDataset(names, range(4), **given)[1]
    skipping = ECGDataset(names, range(4), errors="skip", **given)
    assert [skipping[1], skipping[2]] == [None, None]
    signals, targets = next(iter(DataLoader(skipping, batch_size=4, collate_fn=collate_readable)))
    assert [signals.shape, targets.tolist()] == [(2, 12, 5000), [0, 3]]
    batches = list(DataLoader(skipping, batch_size=2, collate_fn=collate_cropped))
    assert [targets.tolist() for _, targets in batches] == [[0], [3]]
    assert [len(batch) for batch in DataLoader(skipping, batch_size=4, collate_fn=collate_by_length)] == [1]
    assert [collate([None, None]) for collate in (collate_readable, collate_cropped, collate_by_length)] == [
        None,
        None,
        [],
    ]
    told = [record.getMessage() for record in caplog.records]
    assert [each.partition(": ")[0] for each in told] == ["not used"] * 2
    replacing = ECGDataset(names, range(4), errors="replace", **given)
    assert [target for _, target in DataLoader(replacing, batch_size=None)] == [0, 3, 3, 3]
    assert torch.equal(replacing[1][0], replacing[3][0])
    with pytest.raises(ReadError, match="none of the recordings can be read"):
        ECGDataset(names[1:3], errors="replace", **given)[0]
    with pytest.raises(SettingsError, match="'errors' parameter"):
        ECGDataset(names, errors="ignore", **given)


def test_it_is_shown_in_a_line_and_as_a_table_in_notebooks(demo: Path) -> None:
    ecgs = ECGDataset(["<a>.xml"], [1], preparation=TEN_SECONDS, errors="skip")
    assert repr(ecgs) == "<ECGDataset: 1 recording, with targets, 12lead, zscore v1, window 10 s, errors='skip'>"
    assert "<tr><th>recordings</th><td>1 recording</td></tr>" in ecgs._repr_html_()


def test_a_missing_target_and_a_missing_column_are_refused(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("ecg_paths,af\na.xml,1\nb.xml,\n")
    with pytest.raises(CohortError, match=r"row 1 .*no value in the column 'af'"):
        ECGDataset.from_cohort(tmp_path / "cohort.csv", target_column="af")
    with pytest.raises(CohortError, match="Expected 'label' column"):
        ECGDataset.from_cohort(tmp_path / "cohort.csv", target_column="label")
    with pytest.raises(SettingsError, match="2 paths and 1 targets"):
        ECGDataset(["a.xml", "b.xml"], [0])
    with pytest.raises(SettingsError, match="'keep'"):
        ECGDataset([], preparation=Preparation(window=1.0, stride=1.0, remainder="keep"))


def test_a_bad_file_raises_with_its_path(demo: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "constant.npy", np.ones((12, 1000)))
    with pytest.raises(ReadError, match=r"ecg_0013\.xml"):
        ECGDataset(["patient_012/ecg_0013.xml"], data_dir=demo / "ecg")[0]
    with pytest.raises(PrepareError, match=r"constant\.npy: the signal is constant"):
        ECGDataset([tmp_path / "constant.npy"], hints=HINTS)[0]


def test_lists_of_targets_become_rows_of_a_batch(tmp_path: Path) -> None:
    ecgs = ECGDataset(write_arrays(tmp_path, [500, 500]), [[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]], hints=HINTS)
    signals, targets = next(iter(DataLoader(ecgs, batch_size=2)))
    assert signals.shape == (2, 12, 500)
    assert targets.tolist() == [[0, 1, 0], [1, 1, 0]]


def test_it_travels_to_loader_processes(tmp_path: Path) -> None:
    ecgs = ECGDataset(write_arrays(tmp_path, [500, 500]), [3, 4], hints=HINTS)
    copy = pickle.loads(pickle.dumps(ecgs))
    assert torch.equal(copy[1][0], ecgs[1][0])
    loader: DataLoader[Any] = DataLoader(ecgs, batch_size=1, num_workers=1, multiprocessing_context="spawn")
    assert [int(target) for _, target in loader] == [3, 4]


def test_cropping_cuts_to_the_shortest_and_pads_nothing(tmp_path: Path) -> None:
    ecgs = ECGDataset(write_arrays(tmp_path, [500, 300, 400]), [0, 1, 2], hints=HINTS)
    signals, targets = next(iter(DataLoader(ecgs, batch_size=3, collate_fn=collate_cropped)))
    assert signals.shape == (3, 12, 300)
    assert targets.tolist() == [0, 1, 2]
    for number in range(3):
        assert torch.equal(signals[number], ecgs[number][0][:, :300])
    alone = ECGDataset(ecgs.paths, hints=HINTS)
    assert torch.equal(collate_cropped([alone[0], alone[1]]), signals[:2])


def test_grouping_keeps_every_sample_of_every_input(tmp_path: Path) -> None:
    ecgs = ECGDataset(write_arrays(tmp_path, [500, 300, 500]), [0, 1, 2], hints=HINTS)
    groups = next(iter(DataLoader(ecgs, batch_size=3, collate_fn=collate_by_length)))
    assert [signals.shape for signals, _ in groups] == [(2, 12, 500), (1, 12, 300)]
    assert [targets.tolist() for _, targets in groups] == [[0, 2], [1]]
    assert torch.equal(groups[0][0][1], ecgs[2][0])


def learn(net: torch.nn.Module, ecgs: ECGDataset, steps: int, rate: float) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=rate)
    losses: list[float] = []
    for _ in range(steps):
        for signals, targets in DataLoader(ecgs, batch_size=4):
            loss = torch.nn.functional.cross_entropy(net(signals), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


@pytest.mark.slow
def test_fine_tuning_reaches_every_weight_and_lowers_the_loss(tmp_path: Path, checkpoint_12lead: Path) -> None:
    torch.manual_seed(0)
    ecgs = ECGDataset(write_arrays(tmp_path, [500] * 4), [0, 1, 0, 1], hints=HINTS)
    net = ft_12lead_ECGFounder("cpu", checkpoint_12lead, n_classes=2)
    before = net.first_conv.conv.weight.detach().clone()
    losses = learn(net, ecgs, steps=4, rate=1e-4)
    assert losses[-1] < 0.5 * losses[0]
    assert not torch.equal(net.first_conv.conv.weight.detach(), before)
    silent = [name for name, p in net.named_parameters() if p.grad is None and "bn" not in name]
    assert silent == []


@pytest.mark.slow
def test_a_linear_probe_learns_and_leaves_the_backbone_alone(tmp_path: Path, checkpoint_12lead: Path) -> None:
    torch.manual_seed(0)
    ecgs = ECGDataset(write_arrays(tmp_path, [500] * 4), [0, 1, 0, 1], hints=HINTS)
    net = ft_12lead_ECGFounder("cpu", checkpoint_12lead, n_classes=2, linear_prob=True)
    before = {name: p.detach().clone() for name, p in net.named_parameters() if not name.startswith("dense.")}
    losses = learn(net, ecgs, steps=8, rate=1e-3)
    assert losses[-1] < 0.95 * losses[0]
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters() if name in before)
