"""The viewer's panel: cameras where they stand in the colours of their groups, and whose view one looks from."""

import base64
import io
import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer.utils import parse_object
from nerfstudio.viewer.viewer_elements import ViewerControl
from PIL import Image
from viser.transforms import SO3

from dac_nerfstudio.errors import PartitionError, PhotoError
from dac_nerfstudio.partition import blending_weights, divide
from dac_nerfstudio.scene.data import read_views
from dac_nerfstudio.scene.photos import read_photo
from dac_nerfstudio.viewer.groups import FADED, GroupsPanel, rgb


class Recorder:
    """Stands for viser's server: takes whatever is added to scene and panel."""

    def __init__(self) -> None:
        self.frustums: dict[str, dict[str, Any]] = {}
        self.added: dict[str, Any] = {}
        self.clients: list[Any] = []
        self.connected: dict[int, Any] = {}
        self.gui = self.scene = self

    def atomic(self) -> Any:
        return nullcontext()

    def add_folder(self, label: str) -> Any:
        self.added["folder"] = label
        return nullcontext()

    def add_markdown(self, content: str, **_: Any) -> Any:
        handle = SimpleNamespace(content=content)
        self.added["here" if content == "" else "photo" if "photo" in content else "legend"] = handle
        return handle

    def add_dropdown(self, label: str, options: tuple[str, ...]) -> Any:
        handle = SimpleNamespace(value=options[0], options=options, on_update=lambda f: setattr(handle, "update", f))
        self.added["choice"] = handle
        return handle

    def add_camera_frustum(self, name: str, **settings: Any) -> Any:
        self.frustums[name] = settings
        return SimpleNamespace(on_click=lambda f: settings.update(click=f))

    def get_clients(self) -> dict[int, Any]:
        return self.connected

    def on_client_connect(self, callback: Any) -> None:
        self.clients.append(callback)


@pytest.fixture
def manager(demo: Path) -> Any:
    """What the panel asks of a data manager, in the data's own frame."""
    views = read_views(demo)
    partition = divide(views, groups=2, strategy="azimuth")
    poses = torch.from_numpy(views.camera_to_worlds).float()
    return SimpleNamespace(
        partition=partition,
        homes=torch.from_numpy(np.asarray(partition.homes)).long(),
        train_names=list(views.names),
        train_dataset=SimpleNamespace(
            cameras=Cameras(poses, 20.0, 20.0, 8.0, 8.0, 16, 16),
            get_numpy_image=lambda view: np.array(read_photo(demo / f"{views.names[view]}", (16, 16))),
        ),
        route=lambda poses: torch.from_numpy(np.asarray(partition.route(poses.numpy().astype(float)))),
        blend=lambda poses, at: torch.from_numpy(blending_weights(partition, poses.numpy(), at)),
    )


def client_of(on_update: Any = None) -> Any:
    camera = SimpleNamespace(on_update=on_update, position=None, look_at=None)
    return SimpleNamespace(camera=camera, atomic=nullcontext)


def viewer_of(server: Recorder, **parts: Any) -> Any:
    return SimpleNamespace(viser_server=server, **parts)


def test_every_training_camera_stands_where_it_was_in_the_colour_of_its_group(manager: Any) -> None:
    server, panel = Recorder(), GroupsPanel(manager, lambda: 4.0)
    panel._setup(viewer_of(server))
    assert len(server.frustums) == 8 and server.added["folder"] == "Groups"
    assert server.added["choice"].options == ("all", "1", "2")
    for view, home in enumerate(manager.partition.homes):
        shown = server.frustums[f"/groups/{home}/{view}"]
        assert shown["color"] == rgb(home)
        pose = manager.train_dataset.cameras.camera_to_worlds[view].numpy()
        np.testing.assert_allclose(shown["position"] / 10, pose[:, 3], rtol=1e-5)
        ahead = SO3(shown["wxyz"]).as_matrix() @ [0, 0, 1]
        np.testing.assert_allclose(ahead, -pose[:, 2], atol=1e-5)
        assert shown["fov"] == pytest.approx(2 * np.arctan(8 / 20))
    shown = server.added["legend"].content
    assert '<span style={{color: "#0072B2"}}>■</span> group 1' in shown and "views" in shown


def test_the_other_groups_fade_and_come_back(manager: Any) -> None:
    server = Recorder()
    GroupsPanel(manager, lambda: 4.0)._setup(viewer_of(server))
    choice = server.added["choice"]
    choice.value = "2"
    choice.update(None)
    for name, shown in server.frustums.items():
        assert shown["color"] == (rgb(2) if name.startswith("/groups/2/") else FADED)
    choice.value = "all"
    choice.update(None)
    assert len(server.frustums) == 8 and not any(shown["color"] == FADED for shown in server.frustums.values())


def test_a_client_is_told_whose_view_it_has(manager: Any) -> None:
    server, poses = Recorder(), manager.train_dataset.cameras.camera_to_worlds
    seen: dict[str, Any] = {}
    viewer = viewer_of(server, get_camera_state=lambda client: SimpleNamespace(c2w=seen["pose"]))
    panel = GroupsPanel(manager, lambda: 4.0)
    panel._setup(viewer)
    moved: list[Any] = []
    (connect,) = server.clients
    connect(client_of(moved.append))
    for view, home in enumerate(manager.partition.homes):
        seen["pose"] = poses[view].double()
        moved[0](None)
        text = server.added["here"].content
        assert text.startswith(f"This view is of group {home} ")
        (weights,) = manager.blend(poses[view : view + 1], 4.0)
        assert f"experts: {home}: {100 * float(weights[home - 1]):.0f} %" in text
    panel.inverse_temperature = lambda: float("inf")
    assert "experts" not in panel.whose(poses[0])


def test_a_chosen_group_is_flown_to(manager: Any) -> None:
    server, client = Recorder(), client_of()
    GroupsPanel(manager, lambda: 4.0)._setup(viewer_of(server))
    server.connected[0] = client
    choice, poses = server.added["choice"], manager.train_dataset.cameras.camera_to_worlds
    for group in (2, 1):
        choice.value = str(group)
        choice.update(None)
        near = (poses[:, :, 3] - torch.from_numpy(client.camera.position / 10)).norm(dim=1)
        pose = poses[int(near.argmin())].numpy()
        frustum = server.frustums[f"/groups/{group}/{int(near.argmin())}"]
        reach = frustum["scale"] / np.cbrt(np.tan(frustum["fov"] / 2) ** 2 * frustum["aspect"] / 3)
        assert reach / 10 < float(near.min()), "nor is its frustum's pane"
        assert 0 < float(near.min()) < 0.17 * 4.04, "a step ahead of a training view, which is not in the way"
        assert int(manager.route(torch.from_numpy(pose)[None])) == group
        ahead = client.camera.look_at - client.camera.position
        np.testing.assert_allclose(ahead / np.linalg.norm(ahead), -pose[:, 2], atol=1e-5)
    before = client.camera.position
    choice.value = "all"
    choice.update(None)
    assert client.camera.position is before


def test_a_click_on_a_camera_shows_its_photo(manager: Any) -> None:
    server = Recorder()
    GroupsPanel(manager, lambda: 4.0)._setup(viewer_of(server))
    for name, frustum in server.frustums.items():
        _, _, home, view = name.split("/")
        frustum["click"](None)
        image, _, said = server.added["photo"].content.partition("\n\n")
        assert said == f"`{manager.train_names[int(view)]}`, of group {home}"
        data = re.fullmatch(r"!\[photo\]\(data:image/jpeg;base64,(.*)\)", image)
        assert data is not None
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1])))).astype(float)
        photo = manager.train_dataset.get_numpy_image(int(view)).astype(float)
        alpha = photo[..., 3:] / 255
        assert np.abs(shown - (alpha * photo[..., :3] + 255 * (1 - alpha))).mean() < 12, (
            "on white, but for JPEG's losses"
        )


def test_a_photo_that_is_gone_is_told_of(manager: Any) -> None:
    def gone(view: int) -> None:
        raise PhotoError("r_0.png is gone.")

    server, manager.train_dataset.get_numpy_image = Recorder(), gone
    GroupsPanel(manager, lambda: 4.0)._setup(viewer_of(server))
    next(iter(server.frustums.values()))["click"](None)
    assert server.added["photo"].content.startswith("`r_0.png is gone.`")


def test_without_a_partition_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    server = Recorder()
    GroupsPanel(SimpleNamespace(partition=None), lambda: 4.0)._setup(viewer_of(server))  # type: ignore[arg-type]

    class Wrong:
        @property
        def partition(self) -> None:
            raise PartitionError("it divides other views.")

    GroupsPanel(Wrong(), lambda: 4.0)._setup(viewer_of(server))  # type: ignore[arg-type]
    assert not server.frustums and not server.added and not server.clients
    assert "The viewer shows no groups: it divides other views." in " ".join(capsys.readouterr().out.split())


def test_the_viewer_finds_the_panel_of_a_pipeline(manager: Any) -> None:
    panel = GroupsPanel(manager, lambda: 4.0)
    found = parse_object(SimpleNamespace(groups_panel=panel), ViewerControl, "Custom Elements")
    assert found == [("Custom Elements/groups_panel", panel)]
