"""What commands say on a terminal: lines, one progress line, and what the records of a run came to."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecgfounder.ledger.manifest import Tally


OK, SOME_FAILED, REFUSED = 0, 1, 2
"""Exit statuses of commands; 128 + n where signal n interrupted one."""


_FLAGS = "|".join(
    (
        *(
            "allow_incomplete",
            "batch_size",
            "check_hashes",
            "data_dir",
            "dataset_name",
            "embeddings_dirs",
            "exclude_flags",
        ),
        *(
            "id_column",
            "keep_columns",
            "keep_missing",
            "max_samples",
            "missing_leads",
            "modality_mapping",
            "num_workers",
        ),
        *("output_dir", "output_file", "output_format", "path_column", "read_timeout", "retry_failed", "sampling_rate"),
        *("shard_size", "target_cols", "text_cols", "trim_zero_edges"),
    )
)
_WORDS = (
    "checkpoint|compiled|dataset|device|dtype|engine|format|layout|lead|leads|mode|overwrite|pooling|precision|predictions|"
    "reader|recipe|remainder|resampling|shard|split|statements|stride|unit|window"
)
_SETTING = re.compile(rf"(?<![\w.'\"-])({_FLAGS}|{_WORDS})=(?:(True)\b|'([^']*)'|(\d[\d.]*\d|\d))")
_PARAMETER = re.compile(rf"the '({_FLAGS}|{_WORDS})' parameter")
_NAME = re.compile(rf"(?<![\w/.'\"=-])({_FLAGS})\b(?![\w/'\"=]|\.\w)")


def as_flags(text: str) -> str:
    """A message of the library, which names parameters, as the command line has them.

    >>> as_flags("layout='tree' mirrors the folders below data_dir; use overwrite=True, window=10, or the 'split' parameter")
    '--layout tree mirrors the folders below --data_dir; use --overwrite, --window 10, or --split'
    """

    def setting(found: re.Match[str]) -> str:
        name = "compile" if found[1] == "compiled" else found[1]
        return f"--{name}" if found[2] else f"--{name} {found[3] or found[4]}"

    return _NAME.sub(r"--\1", _PARAMETER.sub(r"--\1", _SETTING.sub(setting, text)))


class Terminal:
    """Lines and one progress line on standard error; in a pipe the progress line is quiet."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._quiet = int(os.environ.get("RANK", "0") or "0") > 0

    def line(self, text: str) -> None:
        text = as_flags(text)
        with suppress(OSError):  # a run goes on where nobody reads its lines any more
            if self._bar is not None:
                self._bar.write(text, file=sys.stderr)
            else:
                print(text, file=sys.stderr, flush=True)

    def progress(self, done: int, failed: int, total: int) -> None:
        if self._quiet or not sys.stderr.isatty():
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="ECG", file=sys.stderr, smoothing=0.05)
        self._bar.set_postfix_str(f"failed {failed}", refresh=False)
        self._bar.update(done + failed - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def print_tally(tally: Tally, output_dir: Path, console: Terminal) -> None:
    """What the records of a run came to."""
    from ecgfounder.ledger.manifest import STAGES

    if tally.seconds:
        stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in tally.seconds.items() if stage in STAGES)
        console.line(f"Time by stage, all processes and threads together: {stages}")
    if pulses := tally.flags.get("calibration_pulse"):
        console.line(
            f"{pulses:,} of {tally.done:,} recordings include a 1 mV calibration pulse in their embedding; "
            "--window 10 leaves it out."
        )
    if tally.likely:
        shares = ", ".join(f"{label} {count / tally.done:.0%}" for label, count in tally.likely.most_common(5))
        console.line(f"Statements with a probability of one half or more: {shares}")
    for record, reason in tally.failures:
        console.line(f"FAILED {record}: {reason}")
    if any("No such file" in reason for _, reason in tally.failures):
        console.line(
            "Relative paths are relative to --data_dir (by default the working directory): check that it is right."
        )
    if tally.failed:
        console.line(f"All failures with their reasons: {output_dir / '_run' / 'failures.csv'}")
