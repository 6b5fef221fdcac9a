"""The exceptions that users of the package see; nothing else is raised on purpose.

A message names what was wrong, what was found, and the way out. `ReadError` and `PrepareError` concern one
recording and become recorded failures in a run; the others stop a command before it starts.
"""

from __future__ import annotations


class ECGFounderError(Exception):
    """Base of every exception that this package raises on purpose."""


class ReadError(ECGFounderError):
    """An ECG file that cannot be read: damaged, hostile, of an unknown kind, or not there.

    Raised by the readers with the reason alone; `ecgfounder.readers.read_ecg` puts the path before it.
    """


class UnsupportedFormatError(ReadError):
    """A file whose content no reader recognises, or a variant of a format that is not supported."""


class PrepareError(ECGFounderError):
    """A recording that was read but cannot become a network input: a missing lead, a constant signal."""


class EmbeddingError(ECGFounderError):
    """The network's output for one recording is not usable (not finite)."""


class OutputError(ECGFounderError):
    """An embedding that the output folder cannot hold: its name is too long there, or taken by a folder."""


class CohortError(ECGFounderError):
    """A dataset that cannot be opened, or that lacks the column asked for."""


class CheckpointError(ECGFounderError):
    """A checkpoint that is not there, unsafe, or does not hold the backbone's weights."""


class SettingsError(ECGFounderError):
    """Flags that contradict each other or have values outside what is allowed."""


class RunError(ECGFounderError):
    """A run that cannot start or go on: colliding names, a foreign output folder, a full disk."""


class StorageError(ECGFounderError):
    """A file or object that cannot be had: not there, not allowed, or its store is in trouble (`ecgfounder.storage`)."""


class MissingDependencyError(ECGFounderError):
    """An optional dependency is needed and not installed; the message gives the install command."""

    def __init__(self, package: str, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}: pip install 'ecgfounder[{extra}]'")
        self.package = package
