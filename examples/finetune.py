"""Fine-tune ECGFounder for labels of your own; a recipe to copy and change. Run it with Python or with `accelerate launch`.

In: a cohort with paths, labels of 0 and 1, and patients; a checkpoint. Out: `finetuned.pth` (weights and label names, for
`ecgfounder embed --checkpoint`, `--predictions`, `ecgfounder doctor`) and `metrics.json` with the results on the test part.

- Patients, never ECGs, are divided into training, validation and test; or a column says where each row belongs.
- Several labels at once, with a weight for the rare class of each, counted in the training part.
- The validation part decides when to stop and where thresholds are. The test part is used once, at the end.
- Beside it, a linear probe on the frozen network's embeddings, chosen in the same way: is fine-tuning worth it?
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from scipy.stats import rankdata
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Subset

import ecgfounder
from ecgfounder import ECGDataset, Net1D, Preparation, collate_readable

PARTS = ("train", "validation", "test")
MOST_WEIGHT = 20.0
"""The rare class of a label weighs at most this much: more makes the loss depend on a few recordings."""
PROBE_PENALTIES = (1e-4, 1e-2, 1.0)
N_RESAMPLED = 500
LEAST_PATIENTS = 5
"""Patients with, and without, a label that an interval needs."""

Array = npt.NDArray[np.float64]
Scores = tuple[Array, Array, list[str]]
"""Logits [N, n_labels], targets [N, n_labels], and patients of the recordings of a part."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--dataset", required=True, help="as for `ecgfounder embed`")
    add("--data_dir", help="folder that relative paths are relative to")
    add("--path_column", default="ecg_paths")
    add("--label_columns", nargs="+", required=True, help="columns of 0 and 1")
    add("--patient_column", required=True, help="identifies patients; all ECGs of a patient are in the same part")
    add("--part_column", help=f"column with {', '.join(PARTS)}; without it, patients are divided at random")
    add("--fractions", nargs=3, type=float, default=(0.7, 0.15, 0.15), help="of patients in the three parts")
    add("--mode", choices=("12lead", "1lead"), default="12lead")
    add("--checkpoint", help="the published weights if it is left out")
    add("--output_dir", required=True, type=Path)
    add("--recipe", choices=tuple(ecgfounder.RECIPES), default="zscore")
    add("--window", type=float, default=10.0, help="seconds from the start of each recording")
    add("--epochs", type=int, default=20, help="at most")
    add("--patience", type=int, default=3, help="epochs without improvement on the validation part")
    add("--batch_size", type=int, default=32, help="per process")
    add("--learning_rate", type=float, default=1e-4, help="of the backbone; the new head's is ten times this")
    add("--weight_decay", type=float, default=1e-2)
    add("--mixed_precision", choices=("no", "bf16", "fp16"), default="no")
    add("--num_workers", type=int, default=4)
    add("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    told = arguments()
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=told.mixed_precision)
    set_seed(told.seed)
    parts, patients = divided(told)
    for name in PARTS:
        counts = np.sum([np.asarray(target) for target in parts[name].targets or ()], axis=0).astype(int)
        accelerator.print(
            f"{name}: {len(parts[name])} recordings of {len(set(patients[name]))} patients; with "
            + ", ".join(f"{label}: {count}" for label, count in zip(told.label_columns, counts.tolist(), strict=True))
        )
    weights = rare_class_weights(parts["train"], told.label_columns)

    make = ecgfounder.ft_12lead_ECGFounder if told.mode == "12lead" else ecgfounder.ft_1lead_ECGFounder
    net = make("cpu", told.checkpoint, n_classes=len(told.label_columns))
    probed = {name: scores(net, parts[name], patients[name], accelerator, told, features=True) for name in PARTS}
    probe_scores, penalty = probe(probed, weights)
    tuned, history = fine_tuned(net, parts, patients, weights, accelerator, told)
    final = {name: scores(tuned, parts[name], patients[name], accelerator, told) for name in PARTS[1:]}

    if accelerator.is_main_process:
        told.output_dir.mkdir(parents=True, exist_ok=True)
        out = told.output_dir / "finetuned.pth"
        aside = out.with_name(f"{out.name}.part")
        torch.save({"state_dict": tuned.state_dict(), "labels": list(told.label_columns)}, aside)
        os.replace(aside, out)
        metrics = {
            "labels": list(told.label_columns),
            "recordings": {name: len(parts[name]) for name in PARTS},
            "used": {name: len(values[0]) for name, values in probed.items()},
            "patients": {name: len(set(patients[name])) for name in PARTS},
            "processes": accelerator.num_processes,
            "history": history,
            "fine_tuned": report(final, told),
            "frozen_probe": {"penalty": penalty} | report(probe_scores, told),
        }
        (told.output_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        for label in told.label_columns:
            for method in ("fine_tuned", "frozen_probe"):
                found = metrics[method]["test"][label]
                print(f"test, {label}, {method}: AUROC {found['auroc']} (95 % interval {found['interval']})")
        flags = f"--mode {told.mode} --recipe {told.recipe} --window {told.window:g}"
        print(f"written: {out}. Use it with: ecgfounder embed --predictions --checkpoint {out} {flags}")
    accelerator.end_training()


# --- the cohort ------------------------------------------------------------------------------------------------------


def divided(told: argparse.Namespace) -> tuple[dict[str, ECGDataset], dict[str, list[str]]]:
    """A dataset for each part, and the patient of each of its recordings."""
    columns = [*told.label_columns, told.patient_column, *([told.part_column] if told.part_column else [])]
    preparation = Preparation(mode=told.mode, recipe=ecgfounder.RECIPES[told.recipe], window=told.window)
    every = ECGDataset.from_cohort(
        told.dataset, path_column=told.path_column, target_column=columns, data_dir=told.data_dir
    )
    rows = list(every.targets or ())
    n_labels = len(told.label_columns)
    for number, row in enumerate(rows):
        if not all(value in (0, 1) for value in row[:n_labels]):
            raise SystemExit(f"recording {number}: labels must be 0 or 1, or true and false")
    patients = [str(row[n_labels]) for row in rows]
    if told.part_column:
        part_of = [str(row[n_labels + 1]) for row in rows]
        wrong = sorted(set(part_of) - set(PARTS))
        if wrong:
            raise SystemExit(f"{told.part_column} must hold {', '.join(PARTS)}; it holds {', '.join(wrong[:5])}")
    else:
        labels = np.array([row[:n_labels] for row in rows], dtype=bool).reshape(-1, n_labels)
        by_patient = patient_parts(patients, labels, told.fractions, told.seed)
        part_of = [by_patient[patient] for patient in patients]
    seen: dict[str, str] = {}
    for patient, part in zip(patients, part_of, strict=True):
        if seen.setdefault(patient, part) != part:
            raise SystemExit(f"a patient of {told.part_column} is in {seen[patient]} and in {part}")
    parts, patients_of = {}, {}
    for name in PARTS:
        chosen = [row for row, part in enumerate(part_of) if part == name]
        if not chosen:
            raise SystemExit(f"no patient is in the part {name}: use other --fractions or another --seed")
        parts[name] = ECGDataset(
            [every.paths[row] for row in chosen],
            [[float(value) for value in rows[row][:n_labels]] for row in chosen],
            preparation=preparation,
            data_dir=every.data_dir,
            errors="replace" if name == "train" else "skip",
        )
        patients_of[name] = [patients[row] for row in chosen]
    return parts, patients_of


def patient_parts(
    patients: Sequence[str], labels: npt.NDArray[np.bool_], fractions: Sequence[float], seed: int
) -> dict[str, str]:
    """A part for each patient: at random, and alike for patients with the same labels, so that rare ones are in every part."""
    findings: dict[str, npt.NDArray[np.bool_]] = {}
    for patient, row in zip(patients, labels, strict=True):
        findings[patient] = findings.get(patient, np.zeros_like(row)) | row
    wanted = np.array(fractions) / sum(fractions)
    dealt: dict[tuple[bool, ...], npt.NDArray[np.int64]] = {}
    part_of = {}
    for patient in np.random.default_rng(seed).permutation(sorted(findings)).tolist():
        count = dealt.setdefault(tuple(findings[patient].tolist()), np.zeros(3, np.int64))
        place = int(np.argmax(wanted * (count.sum() + 1) - count))
        count[place] += 1
        part_of[patient] = PARTS[place]
    return part_of


def rare_class_weights(train: ECGDataset, labels: Sequence[str]) -> torch.Tensor:
    """For each label, negative recordings per positive one in the training part: the weight of the positive ones."""
    targets = np.array(train.targets)
    positive = targets.sum(axis=0)
    for label, count in zip(labels, positive.tolist(), strict=True):
        if count in (0, len(targets)):
            raise SystemExit(
                f"the training part has {int(count)} of {len(targets)} recordings with {label}: nothing to learn"
            )
    weights = np.clip((len(targets) - positive) / positive, 1 / MOST_WEIGHT, MOST_WEIGHT)
    return torch.from_numpy(weights).float()


# --- training --------------------------------------------------------------------------------------------------------


def fine_tuned(
    net: Net1D,
    parts: dict[str, ECGDataset],
    patients: dict[str, list[str]],
    weights: torch.Tensor,
    accelerator: Accelerator,
    told: argparse.Namespace,
) -> tuple[Net1D, list[dict[str, float]]]:
    """Train all weights; returns the network of the best epoch on the validation part, and the losses of all epochs."""
    loader = DataLoader(
        parts["train"],
        batch_size=told.batch_size,
        shuffle=True,
        num_workers=told.num_workers,
        generator=torch.Generator().manual_seed(told.seed),
    )
    head = [parameter for name, parameter in net.named_parameters() if name.startswith("dense.")]
    backbone = [parameter for name, parameter in net.named_parameters() if not name.startswith("dense.")]
    optimizer = torch.optim.AdamW(
        [
            {"params": [each for each in backbone if each.requires_grad], "lr": told.learning_rate},
            {"params": head, "lr": 10 * told.learning_rate},
        ],
        weight_decay=told.weight_decay,
    )
    trained, optimizer, batches = accelerator.prepare(net, optimizer, loader)
    weights = weights.to(accelerator.device)
    history: list[dict[str, float]] = []
    best: dict[str, Any] = {}
    lowest, since = float("inf"), 0
    for epoch in range(1, told.epochs + 1):
        trained.train()
        losses = []
        for signals, targets in batches:
            with accelerator.autocast():
                logits = trained(signals)
            loss = binary_cross_entropy_with_logits(logits.float(), targets.float(), pos_weight=weights)
            optimizer.zero_grad()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(trained.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        plain = accelerator.unwrap_model(trained)
        logits, targets, _ = scores(plain, parts["validation"], patients["validation"], accelerator, told)
        validation = weighted_loss(logits, targets, weights.cpu())
        train = float(np.mean([each for rank in gather_object([losses]) for each in rank]))
        history.append({"epoch": epoch, "train": round(train, 5), "validation": round(validation, 5)})
        accelerator.print(f"epoch {epoch}: loss {train:.4f}, on the validation part {validation:.4f}")
        if validation < lowest:
            lowest, since = validation, 0
            best = {name: value.detach().cpu().clone() for name, value in plain.state_dict().items()}
        else:
            since += 1
        if since >= told.patience:  # every process has the same losses, so that all stop together
            break
    if not best:
        raise SystemExit(
            "the loss on the validation part is not a number: use a lower --learning_rate, or no --mixed_precision"
        )
    plain = accelerator.unwrap_model(trained, keep_fp32_wrapper=False).cpu()
    plain.load_state_dict(best)
    return plain, history


def scores(
    net: Net1D,
    part: ECGDataset,
    patients: Sequence[str],
    accelerator: Accelerator,
    told: argparse.Namespace,
    *,
    features: bool = False,
) -> Scores:
    """Logits (or embeddings) and targets of a part, in every process; each recording once, unreadable ones left out.

    A prepared loader would repeat recordings to fill its last batches. Here each process takes every n-th recording.
    """
    numbered = Numbered(part)
    mine = Subset(numbered, range(accelerator.process_index, len(part), accelerator.num_processes))
    loader = DataLoader(mine, batch_size=told.batch_size, num_workers=told.num_workers, collate_fn=collate_readable)
    was_training, device = net.training, next(net.parameters()).device
    net.eval()
    net.to(accelerator.device)
    found: list[tuple[int, list[float], list[float]]] = []
    with torch.inference_mode(), accelerator.autocast():
        for batch in filter(None, loader):
            signals, (rows, targets) = batch
            signals = signals.to(accelerator.device)
            values = net.features(signals).mean(-1) if features else net(signals)
            found += zip(rows.tolist(), values.double().cpu().tolist(), targets.tolist(), strict=True)
    net.to(device)
    net.train(was_training)
    every = sorted(each for rank in gather_object([found]) for each in rank)
    if not every:
        raise SystemExit("none of the recordings of a part can be read; the log has the reasons")
    return (
        np.array([values for _, values, _ in every]),
        np.array([targets for _, _, targets in every]),
        [patients[row] for row, _, _ in every],
    )


class Numbered(torch.utils.data.Dataset[Any]):
    """A dataset whose targets come with the item's number."""

    def __init__(self, part: ECGDataset) -> None:
        self.part = part

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> Any:
        item = self.part[index]
        return None if item is None else (item[0], (index, item[1]))


def weighted_loss(logits: Array, targets: Array, weights: torch.Tensor) -> float:
    loss = binary_cross_entropy_with_logits(
        torch.from_numpy(logits), torch.from_numpy(targets), pos_weight=weights.double()
    )
    return float(loss)


# --- the frozen network ----------------------------------------------------------------------------------------------


def probe(embedded: dict[str, Scores], weights: torch.Tensor) -> tuple[dict[str, Scores], float]:
    """A linear classifier on standardised embeddings; its penalty is the one that is best on the validation part."""
    train = embedded["train"][0]
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-6
    scaled = {name: torch.from_numpy((values - mean) / deviation) for name, (values, _, _) in embedded.items()}
    targets = {name: torch.from_numpy(each) for name, (_, each, _) in embedded.items()}
    tried = []
    for penalty in PROBE_PENALTIES:
        layer = nn.Linear(train.shape[1], len(weights), dtype=torch.float64)
        fit(layer, scaled["train"], targets["train"], weights.double(), penalty)
        with torch.inference_mode():
            logits = {name: layer(scaled[name]).numpy() for name in PARTS}
        tried.append((weighted_loss(logits["validation"], embedded["validation"][1], weights), penalty, logits))
    _, penalty, logits = min(tried, key=lambda each: each[0])
    return {name: (logits[name], *embedded[name][1:]) for name in PARTS}, penalty


def fit(layer: nn.Linear, features: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, penalty: float) -> None:
    """Minimise the weighted loss plus the penalty on the squares of the layer's weights."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(layer(features), targets, pos_weight=weights)
        loss = loss + penalty * layer.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    optimizer.step(closure)  # type: ignore[no-untyped-call]


# --- results ---------------------------------------------------------------------------------------------------------


def report(found: dict[str, Scores], told: argparse.Namespace) -> dict[str, Any]:
    """For each label: the threshold from the validation part, and the results on the test part."""
    validation, validation_targets, _ = found["validation"]
    logits, targets, patients = found["test"]
    results: dict[str, Any] = {"thresholds": {}, "test": {}}
    for column, label in enumerate(told.label_columns):
        threshold = best_threshold(validation[:, column], validation_targets[:, column])
        positive, called = targets[:, column] > 0.5, logits[:, column] >= threshold
        results["thresholds"][label] = round(float(1 / (1 + np.exp(-threshold))), 4)
        results["test"][label] = {
            "positive": int(positive.sum()),
            "of": len(positive),
            "auroc": rounded(auroc(logits[:, column], positive)),
            "interval": interval(logits[:, column], positive, patients, told.seed),
            "sensitivity": rounded(share(called[positive])),
            "specificity": rounded(share(~called[~positive])),
        }
    return results


def best_threshold(logits: Array, targets: Array) -> float:
    """The logit with the highest sensitivity plus specificity; 0 if there is only one class."""
    positive = targets > 0.5
    if positive.all() or not positive.any():
        return 0.0
    places = np.unique(logits)
    middles = (places[1:] + places[:-1]) / 2 if len(places) > 1 else places
    gains = [(logits[positive] >= each).mean() + (logits[~positive] < each).mean() for each in middles]
    return float(middles[int(np.argmax(gains))])


def auroc(logits: Array, positive: npt.NDArray[np.bool_]) -> float | None:
    """The probability that a recording with the label has a higher logit than one without; None if there is only one class."""
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return None
    ranks = rankdata(logits)
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def interval(logits: Array, positive: npt.NDArray[np.bool_], patients: Sequence[str], seed: int) -> list[float] | None:
    """A 95 % interval of the AUROC: patients, not ECGs, are drawn again. None if too few have or lack the label."""
    names, of_row = np.unique(np.array(patients), return_inverse=True)
    if min(len(np.unique(of_row[which])) for which in (positive, ~positive)) < LEAST_PATIENTS:
        return None
    rows_of = [np.flatnonzero(of_row == number) for number in range(len(names))]
    found = [
        value
        for drawn in draws(len(names), seed)
        if (value := auroc(logits[rows := np.concatenate([rows_of[each] for each in drawn])], positive[rows]))
        is not None
    ]
    low, high = np.quantile(found, [0.025, 0.975])
    return [round(float(low), 4), round(float(high), 4)]


def draws(n_patients: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    for _ in range(N_RESAMPLED):
        yield random.integers(n_patients, size=n_patients)


def share(hits: npt.NDArray[np.bool_]) -> float | None:
    return float(hits.mean()) if len(hits) else None


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


if __name__ == "__main__":
    main()
