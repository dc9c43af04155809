"""What nerfstudio's viewer shows of a training while it goes on: terms of the loss, and PSNR group by group."""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Any, Deque, Dict, Optional

import torch
from jaxtyping import Float, Int
from nerfstudio.viewer.viewer_elements import ViewerControl
from torch import Tensor

from dac_nerfstudio.errors import PartitionError
from dac_nerfstudio.kplanes.model import KPlanesModel
from dac_nerfstudio.style import colour
from dac_nerfstudio.training.datamanager import DaCDataManager

EVERY = 1.0
"""Seconds between two looks at a batch, at least. A look waits for the device, as steps do not."""
LOOKS = 10
"""PSNR is of the batches of so many looks: one batch has few rays of a group."""


class ProgressPanel(ViewerControl):
    """Figures of the training in the viewer's panel. Where nobody has the viewer's page open nothing is computed.

    Args:
        manager: knows the training views and their groups.
    """

    def __init__(self, manager: DaCDataManager) -> None:
        self.manager = manager
        self.said: Any = None
        self.next_look = 0.0
        self.looks: Deque[Float[Tensor, "2 groups"]] = deque(maxlen=LOOKS)

    def _setup(self, viewer: Any) -> None:
        super()._setup(viewer)
        if viewer.trainer is not None:
            with self.viser_server.gui.add_folder("Training"):
                self.said = self.viser_server.gui.add_markdown("")

    def look(
        self, model: KPlanesModel, outputs: Dict[str, Any], batch: Dict[str, Tensor], losses: Dict[str, Tensor]
    ) -> None:
        """Show the figures of a step, if somebody looks and has not been shown others just now.

        Args:
            model: compares its outputs with photos.
            outputs: of the batch's rays.
            batch: photos' pixels, and whose they are.
            losses: what the model is trained by, weighted.
        """
        if self.said is None or monotonic() < self.next_look or not self.viser_server.get_clients():
            return
        self.next_look = monotonic() + EVERY
        errors = (outputs["rgb"].detach() - model.true_colour(outputs, batch)).square().mean(dim=-1).cpu()
        groups = groups_of(batch["indices"][:, 0].cpu(), self.homes())
        self.looks.append(by_group(errors, groups))
        self.said.content = f"{psnr_lines(self.looks)}\n\n{loss_lines(losses)}"

    def homes(self) -> Optional[Int[Tensor, "views"]]:
        """Group of each training view, if they are divided."""
        try:
            return None if self.manager.partition is None else self.manager.homes
        except PartitionError:  # the panel of the groups says so
            return None


def groups_of(views: Int[Tensor, "rays"], homes: Optional[Int[Tensor, "views"]]) -> Int[Tensor, "rays"]:
    """Groups of rays by their views; 0 where there are none, and for rendered views, which follow the photos."""
    if homes is None:
        return torch.zeros_like(views)
    return torch.where(views < len(homes), homes[views.clamp(max=len(homes) - 1)], 0)


def by_group(errors: Float[Tensor, "rays"], groups: Int[Tensor, "rays"]) -> Float[Tensor, "2 groups"]:
    """Sum of squared errors and number of rays of each group, from 0 on."""
    return torch.stack((torch.bincount(groups, errors), torch.bincount(groups).to(errors)))


def psnr_lines(looks: Deque[Float[Tensor, "2 groups"]]) -> str:
    """PSNR of all rays and of each group's that had some, in Markdown; viser shows a chip beside a colour's code."""
    sums = torch.zeros(2, max(look.shape[1] for look in looks))
    for look in looks:
        sums[:, : look.shape[1]] += look
    lines = [f"PSNR of training rays: {_psnr(sums.sum(dim=1))}"]
    for group, sum_and_count in enumerate(sums.T):
        if group > 0 and sum_and_count[1] > 0:
            lines.append(f"`{colour(group)}` group {group}: {_psnr(sum_and_count)}")
    return "  \n".join(lines)


def loss_lines(losses: Dict[str, Tensor]) -> str:
    """Terms of the loss, in Markdown."""
    values = torch.stack([loss.detach() for loss in losses.values()]).tolist()
    terms = [f"{name.removesuffix('_loss').replace('_', ' ')}: {value:.2e}" for name, value in zip(losses, values)]
    return "  \n".join([f"Loss: {sum(values):.2e}", *terms])


def _psnr(sum_and_count: Float[Tensor, "2"]) -> str:
    """PSNR of squared errors, by their sum and number."""
    return f"{float(-10 * torch.log10(sum_and_count[0] / sum_and_count[1])):.2f} dB"
