"""Embed every ECG of a dataset with ECGFounder: the same as `ecgfounder embed`."""

from __future__ import annotations

import sys

try:
    from ecgfounder.cli import embed_main
except ModuleNotFoundError as error:
    if error.name != "ecgfounder":
        raise
    sys.exit("The package ecgfounder is not installed. From the repository's root: pip install -e '.[cpu]'")

if __name__ == "__main__":
    sys.exit(embed_main())
