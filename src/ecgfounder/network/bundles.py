"""Definitions of the published networks, without torch: architecture, leads, sampling rate, labels, files.

In: a mode. Out: the definition of its network.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from ecgfounder.checks import check_choice
from ecgfounder.ecg.leads import STANDARD_LEADS

SAMPLING_RATE = 500
"""Sampling rate of the network's input, in Hz."""

FEATURES = 1024
"""Channels of the feature map."""

N_STATEMENTS = 150
"""Number of diagnostic statements that the published heads predict (`labels.txt`)."""

SAMPLES_PER_TOKEN = 256
"""Samples of the input per token of the feature map: T = ceil(L / SAMPLES_PER_TOKEN)."""


@dataclass(frozen=True)
class Architecture:
    """The parameters of `ecgfounder.net1d.Net1D` that are the same for both published networks."""

    base_filters: int = 64
    ratio: int = 1
    filter_list: tuple[int, ...] = (64, 160, 160, 400, 400, 1024, 1024)
    m_blocks_list: tuple[int, ...] = (2, 2, 2, 3, 3, 4, 4)
    kernel_size: int = 16
    stride: int = 2
    groups_width: int = 16


ARCHITECTURE = Architecture()


@dataclass(frozen=True)
class NetworkSpec:
    """One of the published networks: its inputs, outputs and weights.

    Attributes
    ----------
    mode : str
        "12lead" or "1lead".
    leads : tuple of str
        Lead names in the order of the input's channels.
    filename : str
        File name of the checkpoint in the repository `repo_id` of the Hugging Face Hub.
    sampling_rate : int
        Sampling rate of the input, in Hz.
    """

    mode: str
    leads: tuple[str, ...]
    filename: str
    repo_id: str = "PKUDigitalHealth/ECGFounder"
    sampling_rate: int = SAMPLING_RATE

    @property
    def in_channels(self) -> int:
        return len(self.leads)

    def labels(self) -> tuple[str, ...]:
        """The 150 diagnostic statements that the head predicts, in output order."""
        return published_labels()


SPECS: dict[str, NetworkSpec] = {
    "12lead": NetworkSpec(mode="12lead", leads=STANDARD_LEADS, filename="12_lead_ECGFounder.pth"),
    "1lead": NetworkSpec(mode="1lead", leads=("I",), filename="1_lead_ECGFounder.pth"),
}


@cache
def published_labels() -> tuple[str, ...]:
    """The 150 diagnostic statements that the published heads predict, in output order."""
    return tuple((files("ecgfounder.network") / "labels.txt").read_text(encoding="utf-8").splitlines())


def spec_of(mode: str) -> NetworkSpec:
    """The network of a mode.

    Raises
    ------
    SettingsError
        If the mode is unknown.
    """
    check_choice("mode", mode, SPECS)
    return SPECS[mode]
