"""What nerfstudio's viewer shows of a division: training cameras in the colours of their groups, and whose view it is.

The viewer looks for ``ViewerControl``s among a pipeline's attributes and hands itself to each. Where there is no
viewer, nothing is done; where there is no partition, nothing is shown.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional, Tuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.viewer_elements import ViewerControl
from PIL import Image
from torch import Tensor

from dac_nerfstudio.errors import PartitionError, PhotoError
from dac_nerfstudio.messages import say
from dac_nerfstudio.partition import Partition
from dac_nerfstudio.style import address, colour

ALL = "all"
"""The choice of no group in particular."""
FADED = (205, 205, 205)
"""Cameras of groups that were not chosen."""
DEPTH = 0.14
"""How far a frustum reaches ahead of its camera, in units of the cameras' mean distance from their middle."""
AHEAD = 0.16
"""How far ahead of a training view its visitors stand, in the same unit: its frustum is behind them."""
PANE = 40
"""Opacity of the pane in a frustum, of 255."""
MOST = 512
"""Cameras to draw, evenly spread over the views: as many as nerfstudio's own."""
PHOTO = 400
"""Pixels along the longer side of a photo in the panel, at most."""


class GroupsPanel(ViewerControl):
    """Frustums by group, a legend, a choice of one group, which is flown to, the group of the current viewpoint, and
    the photo of the camera that was clicked.

    Who opens the page stands at a training view: nerfstudio's own place, near the origin, is inside the object that
    bounded scenes show, before their near plane, where there is nothing to see.
    """

    def __init__(self, manager: Any, inverse_temperature: Callable[[], float]) -> None:
        self.manager = manager
        self.inverse_temperature = inverse_temperature
        self.partition: Optional[Partition] = None

    def _setup(self, viewer: Any) -> None:
        super()._setup(viewer)
        try:
            self.partition = self.manager.partition
        except PartitionError as error:
            say(CONSOLE, (f"The viewer shows no groups: {error}", "yellow"))
        if self.partition is None:
            return
        gui = self.viser_server.gui
        with gui.add_folder("Groups"):
            gui.add_markdown(legend(self.partition))
            choice = gui.add_dropdown("Show", (ALL, *map(str, range(1, self.partition.num_groups + 1))))
            self.here = gui.add_markdown("")
            # Photos come with their bytes; without a root for others viser would warn of its own.
            self.photo = gui.add_markdown("A click on a camera shows its photo.", image_root=Path())
        self.draw(None)
        choice.on_update(lambda _: self.choose(None if choice.value == ALL else int(choice.value)))
        self.viser_server.on_client_connect(self.follow)

    def choose(self, group: Optional[int]) -> None:
        """Fade the other groups, and take everybody to a view in the middle of this one."""
        self.draw(group)
        if group is not None:
            for client in self.viser_server.get_clients().values():
                self.fly(client, group)

    def draw(self, chosen: Optional[int]) -> None:
        """Draw the training cameras, those of other groups than the chosen one faded.

        Colours of frustums cannot be changed: one of the same name takes the place of the last.
        """
        from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO
        from viser.transforms import SO3

        depth = DEPTH * VISER_NERFSTUDIO_SCALE_RATIO * self.distance()
        cameras, homes = self.manager.train_dataset.cameras, self.manager.homes.tolist()
        with self.viser_server.atomic():
            for view in np.unique(np.linspace(0, len(homes) - 1, min(MOST, len(homes))).astype(int)):
                camera = cameras[int(view)]
                pose = camera.camera_to_worlds.cpu().numpy()
                slope, aspect = float(camera.cy / camera.fy), float(camera.cx / camera.cy)
                # viser's cameras look along +z.
                turned = SO3.from_matrix(pose[:, :3]) @ SO3.from_x_radians(np.pi)
                tint = rgb(homes[view]) if chosen in (None, homes[view]) else FADED
                frustum = self.viser_server.scene.add_camera_frustum(
                    f"/groups/{homes[view]}/{view}",
                    fov=float(2 * np.arctan(slope)),
                    aspect=aspect,
                    # viser's frustums of one scale have one volume, however wide they are.
                    scale=depth * float(np.cbrt(slope**2 * aspect / 3)),
                    color=tint,
                    # A pane, as lines are too thin to be hit.
                    image=np.array([[[*tint, PANE]]], np.uint8),
                    format="png",
                    wxyz=turned.wxyz,
                    position=pose[:, 3] * VISER_NERFSTUDIO_SCALE_RATIO,
                )
                frustum.on_click(partial(self.show_photo, int(view)))

    def show_photo(self, view: int, _: Any = None) -> None:
        """Show the photo of a training view in the panel, or say why it cannot be read."""
        name, group = self.manager.train_names[view], int(self.manager.homes[view])
        try:
            image = as_markdown(self.manager.train_dataset.get_numpy_image(view))
        except PhotoError as error:
            image = f"`{error}`"
        self.photo.content = f"{image}\n\n`{name}`, of group {group}"

    def fly(self, client: Any, group: int) -> None:
        """Put a client's camera before the place where the most typical training view of a group was taken."""
        from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO

        poses = self.manager.train_dataset.cameras.camera_to_worlds.cpu()
        weights = self.manager.blend(poses, 1.0)[:, group - 1]
        pose = poses[int(torch.where(self.manager.homes == group, weights, -1).argmax())].numpy()
        ahead, distance = -pose[:, 2], self.distance()
        with client.atomic():
            client.camera.position = VISER_NERFSTUDIO_SCALE_RATIO * (pose[:, 3] + AHEAD * distance * ahead)
            # One turns round what lies about as far ahead as the cameras' middle.
            client.camera.look_at = VISER_NERFSTUDIO_SCALE_RATIO * (pose[:, 3] + distance * ahead)

    def distance(self) -> float:
        """Mean distance of the training cameras from their middle, at least 0.1."""
        centres = self.manager.train_dataset.cameras.camera_to_worlds[:, :, 3]
        return max(float((centres - centres.mean(dim=0)).norm(dim=1).mean()), 0.1)

    def follow(self, client: Any) -> None:
        """Say whose view it is whenever a client's camera moves."""

        def tell(_: Any) -> None:
            self.here.content = self.whose(self.viewer.get_camera_state(client).c2w)

        client.camera.on_update(tell)
        self.fly(client, 1)

    def whose(self, camera_to_world: Float[Tensor, "3 4"]) -> str:
        """The group of a viewpoint, and how much each group's expert has to say there, as a line of Markdown."""
        pose = camera_to_world.float()[None]
        group = int(self.manager.route(pose))
        text = f"This view is of group {group} {mark(group)}"
        inverse_temperature = self.inverse_temperature()
        if not np.isfinite(inverse_temperature):
            return f"{text}."
        (weights,) = self.manager.blend(pose, inverse_temperature)
        shares = [f"{one}: {100 * float(weights[one - 1]):.0f} %" for one in (1 + torch.argsort(-weights)).tolist()]
        return f"{text}. Weights of the experts: {', '.join(shares)}."


def legend(partition: Partition) -> str:
    """Each group with its colour and size."""
    sizes = [(group, int((partition.homes == group).sum())) for group in range(1, partition.num_groups + 1)]
    return "  \n".join(f"{mark(group)} group {group}, {size} views" for group, size in sizes)


def mark(group: int) -> str:
    """A square of a group's colour. viser reads Markdown as MDX, where a style is an expression."""
    return f'<span style={{{{color: "{colour(group)}"}}}}>■</span>'


def as_markdown(photo: UInt8[np.ndarray, "height width channels"]) -> str:
    """A photo, on white where it is transparent, as an image in Markdown that brings its bytes along."""
    image = Image.fromarray(photo)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    image.thumbnail((PHOTO, PHOTO))
    return f"![photo]({address(image, 'JPEG')})"


def rgb(group: int) -> Tuple[int, int, int]:
    """Colour of a group as bytes."""
    red, green, blue = bytes.fromhex(colour(group)[1:])
    return red, green, blue
