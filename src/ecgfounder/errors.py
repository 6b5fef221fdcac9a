"""The exceptions that the package raises deliberately.

A message states what was expected, what was found, and how to fix it. `ReadError` and `PrepareError` concern a single
recording, which fails in a run; the other errors stop a command before it starts.
"""

from __future__ import annotations


class ECGFounderError(Exception):
    """Base class of all exceptions that this package raises deliberately."""


class ReadError(ECGFounderError):
    """An ECG file that cannot be read: damaged, unsafe, of an unknown format, or missing.

    Readers raise it with the reason alone; `ecgfounder.readers.read_ecg` adds the path in front.

    A reason never quotes text of the file, which may identify a patient: no value of a field, no name of an element, attribute,
    array or channel that the file chose, and no bytes. It states what was expected and where: the format's own name of an element
    or field, a section, a line, the number of a channel. Of what was found it may state quantities (sizes, counts, rates, units
    per bit) and values of a closed list (leads in `ecgfounder.ecg.leads.KNOWN_LEADS`, formats, types of samples). The message of
    a library is not passed on, only the name of its exception, because such messages quote what they could not parse.
    """


class UnsupportedFormatError(ReadError):
    """A file whose content no reader recognises, or a variant of a format that is not supported."""


class PrepareError(ECGFounderError):
    """A recording that was read but cannot be prepared as an input: for example a missing lead or a constant signal."""


class EmbeddingError(ECGFounderError):
    """The network's output for one recording is not usable (not finite)."""


class OutOfMemoryError(EmbeddingError):
    """A recording that alone is too long for the memory of the device on which the network is computed."""


class OutputError(ECGFounderError):
    """An embedding that cannot be written to the output folder: its name is too long, or a folder has that name."""


class CohortError(ECGFounderError):
    """A dataset that cannot be opened, or that lacks a required column."""


class CheckpointError(ECGFounderError):
    """A checkpoint that is missing, unsafe, or does not hold the backbone's weights."""


class SettingsError(ECGFounderError):
    """Parameters with values that are not allowed or contradict each other."""


class RunError(ECGFounderError):
    """A run that cannot start or resume: colliding names, an output folder with other files, a full disk."""


class StorageError(ECGFounderError):
    """A file that cannot be read or written: missing, not permitted, or its store is unavailable (`ecgfounder.storage`)."""


class MissingDependencyError(ECGFounderError):
    """A required optional dependency is not installed; the message gives the install command."""

    def __init__(self, package: str, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}: pip install 'ecgfounder[{extra}]'")
        self.package = package
