"""Dataset rows and their ECG embeddings to the embedding-chat style. See docs/chat.md."""

from __future__ import annotations

import sys

try:
    from ecgfounder.commands.chat import mimic_main
except ModuleNotFoundError as error:
    print(f"{error.name} is not installed. In the repository's folder, run: pip install -e .", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    sys.exit(mimic_main())
