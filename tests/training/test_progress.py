"""Figures of a training in the viewer: those of the batch, group by group, and none where nobody looks."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dac_nerfstudio.training import progress
from dac_nerfstudio.training.progress import ProgressPanel

HOMES = torch.tensor([1, 2, 1])
MODEL: Any = SimpleNamespace(true_colour=lambda outputs, batch: batch["image"])


class Viewer:
    """Stands for nerfstudio's viewer of a training, with as many pages open."""

    def __init__(self, pages: int = 1, trainer: Any = "a trainer") -> None:
        self.shown = SimpleNamespace(content="")
        gui = SimpleNamespace(add_folder=lambda _: nullcontext(), add_markdown=lambda _: self.shown)
        self.viser_server = SimpleNamespace(gui=gui, get_clients=lambda: dict.fromkeys(range(pages)))
        self.trainer = trainer


def opened(viewer: Viewer, homes: Any = HOMES) -> ProgressPanel:
    partition = None if homes is None else "a partition"
    panel = ProgressPanel(SimpleNamespace(partition=partition, homes=homes))  # type: ignore[arg-type]
    panel._setup(viewer)
    return panel


def look(panel: ProgressPanel, views: list[int], errors: list[float]) -> None:
    """Show a batch of rays of these views, wrong by so much in all channels."""
    image = torch.full((len(views), 3), 0.5)
    outputs = {"rgb": image + torch.tensor(errors)[:, None]}
    batch = {"image": image, "indices": torch.tensor([[view, 0, 0] for view in views])}
    panel.look(MODEL, outputs, batch, {"rgb_loss": torch.tensor(0.02), "plane_tv_loss": torch.tensor(0.0005)})


def test_each_group_has_the_psnr_of_its_rays_and_each_loss_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    viewer = Viewer()
    panel = opened(viewer)
    look(panel, [0, 1, 2], [0.1, 0.01, -0.1])
    lines = viewer.shown.content.split("\n")
    assert [line.strip() for line in lines] == [
        "PSNR of training rays: 21.74 dB", "`#0072B2` group 1: 20.00 dB", "`#E69F00` group 2: 40.00 dB", "",
        "Loss: 2.05e-02", "rgb: 2.00e-02", "plane tv: 5.00e-04",
    ]  # fmt: skip
    # Looks are averaged as errors; a rendered view, which follows the views, has no group.
    look(panel, [1, 3], [0.1, 1.0])
    assert "group 1: 20.00 dB" in viewer.shown.content and "group 2: 22.97 dB" in viewer.shown.content
    assert "rays: 6.86 dB" in viewer.shown.content and "group 0" not in viewer.shown.content
    for _ in range(progress.LOOKS):
        look(panel, [1], [0.1])
    assert "rays: 20.00 dB" in viewer.shown.content and "group 1" not in viewer.shown.content, "older ones are let go"


def test_undivided_views_have_one_psnr() -> None:
    viewer = Viewer()
    look(opened(viewer, homes=None), [0, 1], [0.1, 0.1])
    assert "PSNR of training rays: 20.00 dB" in viewer.shown.content and "group" not in viewer.shown.content


def test_nothing_is_computed_where_nobody_looks() -> None:
    nothing: Any = {}  # a look at it would fail
    ProgressPanel(nothing).look(nothing, nothing, nothing, nothing)
    for viewer in (Viewer(pages=0), Viewer(trainer=None)):
        opened(viewer).look(nothing, nothing, nothing, nothing)
    viewer = Viewer()
    panel = opened(viewer)
    look(panel, [0], [0.1])
    panel.look(nothing, nothing, nothing, nothing)  # within the same second
    panel.next_look = 0.0
    with pytest.raises(KeyError):
        panel.look(nothing, nothing, nothing, nothing)
