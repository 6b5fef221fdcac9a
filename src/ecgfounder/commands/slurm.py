"""A script for a SLURM array from the flags of `ecgfounder embed`, which have been checked.

In: parsed flags. Out: the script's text: one task per shard, interrupted before its time limit and queued again.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ecgfounder._version import __version__
from ecgfounder.errors import SettingsError
from ecgfounder.escaping import one_line
from ecgfounder.storage import StorageOptions

MARK = "# Written by ecgfounder"
"""How the second line of a script begins; only such files are replaced."""

_LEAST_CORES = 4
_NOT_SECRET = frozenset(
    (
        *("region", "endpoint", "base_url", "account_name", "skip_signature", "unsigned_payload", "request_payer"),
        *("virtual_hosted_style_request", "allow_http", "connect_timeout", "read_timeout", "timeout"),
    )
)
_LEFT_OUT = ("work", "write_slurm", "dry_run", "shard")

_SCRIPT = r"""#!/bin/bash
{mark} {version}. Submit it:
#   sbatch {name}
# After a loss, submit the shards that `ecgfounder status` names:
#   sbatch --array=3,4 {name}
# Give partition, account, time and memory to sbatch, or add them here.
#SBATCH --job-name=ecgfounder
#SBATCH --array=1-{n_shards}
#SBATCH --cpus-per-task={cores}{gpu}
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=ecgfounder-%A_%a.log

# A literal: SLURM counts only the tasks that are submitted now, 2 for --array=3,4.
SHARDS={n_shards}
RESTARTS=100  # times that a task is queued again, at most

task=${{SLURM_ARRAY_TASK_ID:?is not set: submit this script with sbatch}}
if [ "$task" -gt "$SHARDS" ]; then
  echo "There is no shard $task of $SHARDS" >&2
  exit 2
fi
shard=$task
[ "$shard" -eq 0 ] && shard=$SHARDS  # of an array that begins at 0

cd {folder} || exit 2

child=
pass_on() {{ [ -n "$child" ] && kill -s "$1" "$child"; }}
trap 'pass_on USR1' USR1  # SLURM, two minutes before the time limit
trap 'pass_on TERM' TERM

{command} \
  --shard "$shard/$SHARDS" &
child=$!
wait "$child"
status=$?
# After a signal only the wait has ended.
while [ "$status" -gt 128 ] && kill -0 "$child" 2>/dev/null; do
  wait "$child"
  status=$?
done

# Finished recordings are committed: the task goes on where it was.
limit=$((128 + $(kill -l USR1)))
if [ "$status" -eq "$limit" ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt "$RESTARTS" ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""


def script_of(
    arguments: argparse.Namespace, defaults: Mapping[str, Any], n_shards: int, options: StorageOptions
) -> str:
    """The script.

    Parameters
    ----------
    arguments, defaults : argparse.Namespace, mapping
        The flags of `ecgfounder embed`, and their defaults.
    options : StorageOptions
        Options of object stores, as they were parsed.

    Raises
    ------
    SettingsError
        If there is only one shard, or options of object stores may be secret.
    """
    if n_shards < 2:
        raise SettingsError("write_slurm needs the number of tasks in the 'shard' parameter: 1/16 gives 16 of them.")
    secret = [name for name, _ in options.items if name not in _NOT_SECRET]
    if secret:
        raise SettingsError(
            f"the 'storage_options' parameter may be secret ({', '.join(secret)}) and is not written to a script: set the "
            "store's environment variables instead, which sbatch passes on."
        )
    words = [shlex.join([sys.executable, "-m", "ecgfounder.cli", "embed"])]
    words += [shlex.join(each) for each in _flags(vars(arguments), defaults)]
    device = arguments.device or ""
    return _SCRIPT.format(
        mark=MARK,
        version=__version__,
        name=one_line(shlex.quote(arguments.write_slurm)),
        n_shards=n_shards,
        cores=max(_LEAST_CORES, arguments.num_workers + 2),
        gpu="\n#SBATCH --gres=gpu:1" if device.startswith("cuda") else "",
        folder=shlex.quote(os.getcwd()),
        command=" \\\n  ".join(words),
    )


def _flags(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[list[str]]:
    """The flags that differ from their defaults, as words."""
    for name, value in given.items():
        if name in _LEFT_OUT or value == defaults.get(name):
            continue
        flag = f"--{name}"
        if value is True:
            yield [flag]
        elif isinstance(value, list):
            yield [flag, *map(str, value)]
        else:
            yield [f"{flag}={value}"] if str(value).startswith("-") else [flag, str(value)]


def write_script(path: Path, text: str) -> None:
    """Write the script; another file of that name is not replaced.

    Raises
    ------
    SettingsError
        If there is one, or the file cannot be written.
    """
    from ecgfounder.storage.replace import replace_file

    try:
        if path.exists() and MARK.encode() not in path.read_bytes()[:200]:
            raise SettingsError(
                f"{path} exists and is not a script of this command: choose another name for write_slurm."
            )
        replace_file(path, text.encode("utf-8", "surrogateescape"))
        path.chmod(0o755)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror or error}") from error
