"""ECGFounder's networks: the two published ones, and networks for fine-tuning.

In: a checkpoint file, or none for the one on the Hugging Face Hub. Out: PyTorch networks with checked weights.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ecgfounder.network.bundles import SPECS, NetworkSpec
from ecgfounder.network.checkpoint import build_network, find_checkpoint, load_backbone

if TYPE_CHECKING:
    import torch

    from ecgfounder.net1d import Net1D


@dataclass(frozen=True)
class Bundle(NetworkSpec):
    """One of the published networks, with the definition of its inputs and outputs.

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

    Examples
    --------
    >>> bundle = BUNDLES["12lead"]
    >>> bundle.in_channels, bundle.sampling_rate, bundle.labels()[3]
    (12, 500, 'SINUS RHYTHM')
    """

    def load(self, checkpoint: str | os.PathLike[str] | None = None) -> Net1D:
        """Load the published network, with the checkpoint's head if it has one, in evaluation mode on the CPU.

        Raises
        ------
        CheckpointError
            As `find_checkpoint` and `load_backbone` do.
        """
        weights, head = load_backbone(find_checkpoint(checkpoint, self.mode), self.mode)
        net = build_network(weights, self.mode, len(self.labels()) if head is None else head.n_classes)
        if head is not None:
            import torch

            net.dense.load_state_dict({"weight": torch.from_numpy(head.weight), "bias": torch.from_numpy(head.bias)})
        return net.eval()


BUNDLES: dict[str, Bundle] = {mode: Bundle(**asdict(spec)) for mode, spec in SPECS.items()}


def ft_12lead_ECGFounder(
    device: torch.device | str, pth: str | os.PathLike[str] | None, n_classes: int, linear_prob: bool = False
) -> Net1D:
    """Load the 12-lead network for fine-tuning: the published backbone with a new head.

    Parameters
    ----------
    device : torch.device or str
        Device of the network.
    pth : str or os.PathLike, optional
        Checkpoint file, in any form that `load_state_dict` accepts; None for the published one on the Hugging Face Hub.
    n_classes : int
        Number of outputs of the new head, whose weights are random.
    linear_prob : bool, default: False
        Freeze everything but the head (a linear probe).

    Returns
    -------
    Net1D
        In training mode. Signature and meaning follow ECGFounder's finetune_model.py, with strict loading: a checkpoint
        without the backbone's weights raises an error; no weights are left random. Every parameter that requires a gradient
        gets one, as `DistributedDataParallel` needs it; the batch-norms, which the network never applies, require none.

    Raises
    ------
    CheckpointError
        As `find_checkpoint` and `load_backbone` do.
    """
    return _fine_tuning(device, pth, n_classes, linear_prob, "12lead")


def ft_1lead_ECGFounder(
    device: torch.device | str, pth: str | os.PathLike[str] | None, n_classes: int, linear_prob: bool = False
) -> Net1D:
    """Load the 1-lead network for fine-tuning; otherwise as `ft_12lead_ECGFounder`."""
    return _fine_tuning(device, pth, n_classes, linear_prob, "1lead")


def _fine_tuning(
    device: torch.device | str, pth: str | os.PathLike[str] | None, n_classes: int, linear_prob: bool, mode: str
) -> Net1D:
    weights, _ = load_backbone(find_checkpoint(pth, mode), mode)
    net = build_network(weights, mode, n_classes)
    if linear_prob:
        net.requires_grad_(False)
        net.dense.requires_grad_(True)
    return net.to(device)
