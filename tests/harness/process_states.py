"""What the kernel says of a process (Linux).

In: its number. Out: whether it runs.
"""

from __future__ import annotations

from pathlib import Path


def is_running(pid: int | None) -> bool:
    """Whether a process exists and has not ended; one that nobody has waited for has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
