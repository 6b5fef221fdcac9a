"""What commands say on a terminal: lines, one progress line, and what the records of a run came to."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecgfounder.ledger.manifest import Tally


OK, SOME_FAILED, REFUSED = 0, 1, 2
"""Exit statuses of commands; 128 + n where signal n interrupted one."""


class Terminal:
    """Lines and one progress line on standard error; in a pipe the progress line is quiet."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._quiet = int(os.environ.get("RANK", "0") or "0") > 0

    def line(self, text: str) -> None:
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
        console.line("Relative paths start from --data_dir (by default the working directory): is it the right one?")
    if tally.failed:
        console.line(f"All failures with their reasons: {output_dir / '_run' / 'failures.csv'}")
