"""Training rays: which photo they come from, and which group draws them."""

import json
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dac_nerfstudio.demo import make_demo_scene
from dac_nerfstudio.errors import PartitionError
from dac_nerfstudio.partition import Partition, Transform, divide
from dac_nerfstudio.sampling.pixels import PixelSchedule
from dac_nerfstudio.scene.data import read_views
from dac_nerfstudio.training.datamanager import DaCDataManager, DaCDataManagerConfig, Photos
from dac_nerfstudio.training.pipeline import DaCPipeline

Manager = Callable[..., DaCDataManager]


@pytest.fixture
def manager() -> Manager:
    """Makes a data manager of a Blender scene, in the data's own frame unless `scale_factor` is given."""

    def make(
        data: Path, scale_factor: float = 1.0, rays: int = 64, split: Any = "val", **settings: Any
    ) -> DaCDataManager:
        parser = BlenderDataParserConfig(data=data, alpha_color=None, scale_factor=scale_factor)
        config = DaCDataManagerConfig(data=data, dataparser=parser, train_num_rays_per_batch=rays, **settings)
        return config.setup(device="cpu", test_mode=split)

    return make


@pytest.fixture
def partition_file(demo: Path, tmp_path: Path) -> Path:
    """Two halves of the demo scene's views."""
    path = tmp_path / "partition.json"
    divide(read_views(demo), groups=2).save(path)
    return path


def test_colours_are_the_photos_bytes_and_rays_go_through_their_pixels(demo: Path, manager: Manager) -> None:
    made = manager(demo)
    rays, batch = made.next_train(3)
    frames = json.loads((demo / "transforms_train.json").read_text())
    focal = 8 / np.tan(frames["camera_angle_x"] / 2)
    assert batch["image"].shape == (64, 4) and batch["indices"].shape == (64, 3)
    assert len(set(batch["indices"][:, 0].tolist())) > 4
    for ray, (view, row, column) in enumerate(batch["indices"].tolist()):
        picture = np.asarray(Image.open(demo / made.train_names[view]))
        assert (batch["image"][ray] * 255).round().int().tolist() == picture[row, column].tolist()
        pose = np.array(frames["frames"][view]["transform_matrix"])
        direction = pose[:3, :3] @ [(column + 0.5 - 8) / focal, -(row + 0.5 - 8) / focal, -1]
        np.testing.assert_allclose(rays.directions[ray], direction / np.linalg.norm(direction), atol=1e-5)
        np.testing.assert_allclose(rays.origins[ray], pose[:3, 3], atol=1e-5)
    # Neither all transparent nor all opaque, or the comparison would say little.
    assert 0.1 < batch["image"][:, 3].mean() < 0.9


def test_a_scene_may_be_without_test_or_validation_views(demo: Path, tmp_path: Path, manager: Manager) -> None:
    data = shutil.copytree(demo, tmp_path / "demo")
    assert len(manager(data, split="test").eval_dataset) == 2
    (data / "transforms_test.json").unlink()
    assert manager(data, split="test").eval_dataset is None
    assert manager(data).views_to_choose_on(5) == [0, 1]
    (data / "transforms_val.json").unlink()
    made = manager(data)
    assert made.eval_dataset is None
    assert torch.equal(made.next_train(0)[1]["image"], manager(demo).next_train(0)[1]["image"])


def test_a_step_draws_the_same_rays_in_every_run_of_the_seed(demo: Path, manager: Manager) -> None:
    first, again, other = manager(demo), manager(demo), manager(demo, seed=7)
    for step in range(5):
        first.next_train(step)
    torch.manual_seed(123)
    rays, batch = again.next_train(4)
    expected_rays, expected = first.next_train(4)
    assert torch.equal(batch["indices"], expected["indices"]) and torch.equal(batch["image"], expected["image"])
    assert torch.equal(rays.directions, expected_rays.directions)
    assert not torch.equal(other.next_train(4)[1]["indices"], batch["indices"])
    assert again.get_train_rays_per_batch() == len(rays) == 64


def test_a_batch_is_the_same_whether_it_was_made_ahead_or_not(
    demo: Path, manager: Manager, partition_file: Path
) -> None:
    steadily = manager(demo, partition=partition_file, sort_by_group=True)
    for step in [*range(6), 3, 4, 0]:  # ahead but for the first and after each jump
        rays, batch = steadily.next_train(step)
        fresh_rays, fresh = manager(demo, partition=partition_file, sort_by_group=True).next_train(step)
        for name in ("origins", "directions", "pixel_area", "camera_indices"):
            assert torch.equal(getattr(rays, name), getattr(fresh_rays, name))
        assert torch.equal(rays.metadata["group"], fresh_rays.metadata["group"])
        assert torch.equal(batch["indices"], fresh["indices"]) and torch.equal(batch["image"], fresh["image"])


def test_whoever_asks_for_one_step_again_and_again_outside_of_training_gets_new_rays(
    demo: Path, manager: Manager
) -> None:
    made = manager(demo).eval()
    made.train_pixel_sampler.num_rays_per_batch = 256
    drawn = torch.cat([made.next_train(0)[1]["indices"] for _ in range(7)])
    assert len(drawn.unique(dim=0)) == len(drawn) == 7 * 256
    # A size that is set later counts from the next call on, though a batch of the old one is made already.
    made.train_pixel_sampler.num_rays_per_batch = 32
    assert len(made.next_train(0)[0]) == 32
    # Within training a step is a step.
    made.train()
    assert torch.equal(made.next_train(0)[1]["indices"], made.next_train(0)[1]["indices"])


@pytest.mark.parametrize("distortion", [None, [0.1, -0.02, 0.0, 0.0, 1e-3, 0.0]], ids=["pinhole", "distorted"])
def test_a_batch_takes_few_operations_and_none_that_waits_for_the_device(
    demo: Path, manager: Manager, partition_file: Path, distortion: list[float] | None
) -> None:
    made = manager(demo, partition=partition_file, sort_by_group=True)
    if distortion is not None:
        made.train_dataset.cameras.distortion_params = torch.tensor(distortion).expand(8, 6)
    called: list[str] = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    made.next_train(0)
    made.batches = lambda number, size: made.prepare(number)  # type: ignore[assignment]
    with Record():
        made.next_train(1)
    assert 5 < len(called) <= 40
    assert not {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "bincount"} & set(called)


def test_a_data_managers_error_names_the_line_that_failed(
    demo: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = manager(demo)
    made.next_train(0)
    monkeypatch.setattr(made.photos, "starts", None)
    with pytest.raises(TypeError) as error:
        made.next_train(5)
    assert [frame.name for frame in traceback.extract_tb(error.value.__traceback__)][-1] == "locate"


def test_processes_that_train_together_draw_other_pixels_on_every_machine(
    demo: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = manager(demo).next_train(4)[1]["indices"]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 8)  # the first process of a second machine
    second = manager(demo)
    assert second.local_rank == 0
    assert not torch.equal(second.next_train(4)[1]["indices"], alone)


@pytest.mark.parametrize("group", [1, 2])
def test_an_expert_draws_all_of_its_groups_views_and_no_other(
    demo: Path, manager: Manager, partition_file: Path, group: int
) -> None:
    made = manager(demo, partition=partition_file, group=group, rays=256)
    members = set(Partition.load(partition_file).members(group))
    assert 0 < len(members) < 8
    drawn = torch.cat([made.next_train(step)[1]["indices"] for step in range(len(members))])
    assert {made.train_names[view] for view in drawn[:, 0].tolist()} == members
    assert len(drawn.unique(dim=0)) == len(members) * 256
    # Photos of the other group are not even held.
    assert len(made.photos.pixels) == len(members) * 256
    rays, batch = made.next_train(0)
    for ray in range(0, 256, 16):
        view, row, column = batch["indices"][ray].tolist()
        picture = np.asarray(Image.open(demo / made.train_names[view]))
        assert (batch["image"][ray] * 255).round().int().tolist() == picture[row, column].tolist()


def test_partial_membership_is_the_share_of_a_views_pixels(demo: Path, manager: Manager, tmp_path: Path) -> None:
    soft = divide(read_views(demo), groups=2, softness=0.2)
    soft.save(tmp_path / "soft.json")
    made = manager(demo, partition=tmp_path / "soft.json", group=1, rays=256)
    weights = dict(zip(soft.views.names, soft.membership[0], strict=True))
    assert {weights[name] for name in soft.members(1)} == {1.0}
    length = made.train_pixel_sampler.epoch_length
    assert length == sum(round(256 * weight) for weight in weights.values())
    drawn = torch.cat([made.next_train(step)[1]["indices"] for step in range(length // 256 + 1)])[:length]
    counts = drawn[:, 0].bincount(minlength=8).tolist()
    assert counts == [round(256 * weights[name]) for name in made.train_names]
    foreign = sum(count for count, name in zip(counts, made.train_names, strict=True) if name not in soft.members(1))
    assert foreign / length == pytest.approx(0.2, abs=0.01)


def test_batches_for_distillation_are_sorted_by_group_and_say_so(
    demo: Path, manager: Manager, partition_file: Path
) -> None:
    made, plain = manager(demo, partition=partition_file, sort_by_group=True), manager(demo)
    partition = Partition.load(partition_file)
    home = dict(zip(partition.views.names, partition.homes.tolist(), strict=True))
    for step in range(3):
        rays, batch = made.next_train(step)
        groups = rays.metadata["group"]
        assert groups.shape == (64, 1) and set(groups[:, 0].tolist()) == {1, 2}
        assert groups[:, 0].tolist() == [home[made.train_names[view]] for view in batch["indices"][:, 0].tolist()]
        assert (groups[:, 0].diff() >= 0).all()
        # The same rays as without sorting, colours and directions with them.
        plain_rays, unsorted = plain.next_train(step)
        assert "group" not in plain_rays.metadata
        columns = [batch["indices"], batch["image"] * 255, rays.origins, rays.directions]
        plain_columns = [unsorted["indices"], unsorted["image"] * 255, plain_rays.origins, plain_rays.directions]
        rows, plain_rows = (
            sorted(torch.cat([c.double() for c in each], dim=1).tolist()) for each in (columns, plain_columns)
        )
        assert rows == plain_rows


def test_missing_test_views_do_stop_evaluation() -> None:
    pipeline: Any = SimpleNamespace(datamanager=SimpleNamespace(eval_dataset=None))
    with pytest.raises(FileNotFoundError, match="There are no views to score"):
        DaCPipeline.score_views(pipeline)


def test_cameras_are_in_single_precision(demo: Path, manager: Manager) -> None:
    made = manager(demo)
    for dataset in (made.train_dataset, made.eval_dataset):
        assert {getattr(dataset.cameras, name).dtype for name in ("fx", "fy", "cx", "cy")} == {torch.float32}


def test_a_partition_of_other_views_is_refused(demo: Path, manager: Manager, tmp_path: Path) -> None:
    other = make_demo_scene(tmp_path / "other", size=2, train=9, val=1, test=1)
    divide(read_views(other), groups=2).save(tmp_path / "other.json")
    made = manager(demo, partition=tmp_path / "other.json", group=1)
    with pytest.raises(PartitionError) as error:
        made.next_train(0)
    assert str(error.value) == (
        f"{tmp_path}/other.json divides 9 views, the data has 8 training views, and they differ (for example in "
        f"train/r_8.png). Divide this data: dac split --data {demo}, or name its partition with --partition."
    )


# Routing


@pytest.mark.parametrize("scale_factor", [1.0, 0.3])
def test_cameras_are_routed_as_in_the_datas_frame(
    demo: Path, manager: Manager, partition_file: Path, scale_factor: float
) -> None:
    made = manager(demo, partition=partition_file, scale_factor=scale_factor)
    partition = Partition.load(partition_file)
    # A training view to its home,
    home = dict(zip(partition.views.names, partition.homes.tolist(), strict=True))
    routed = made.route(made.train_dataset.cameras.camera_to_worlds)
    assert routed.tolist() == made.homes.tolist() == [home[name] for name in made.train_names]
    # any other to the half in which it stands: azimuths from 0 to 180 degrees belong to group 1.
    centres = torch.tensor([[0.1, 3.0, 1.0], [-2.0, -0.5, 0.0], [3.0, 0.2, 2.0], [3.0, -0.2, 2.0]]) * scale_factor
    poses = torch.cat((torch.eye(3).expand(4, 3, 3), centres[:, :, None]), dim=2)
    assert made.route(poses).tolist() == [1, 2, 1, 2]


def test_cameras_are_routed_in_a_frame_that_was_turned_shifted_and_scaled(
    demo: Path, manager: Manager, partition_file: Path
) -> None:
    made = manager(demo, partition=partition_file)
    cameras = made.train_dataset.cameras
    turn = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    moved = Transform(0.3, turn, np.array([1.0, -2.0, 3.0])).apply(cameras.camera_to_worlds.numpy().astype(np.float64))
    cameras.camera_to_worlds = torch.from_numpy(moved).float()
    assert set(made.homes.tolist()) == {1, 2}
    assert made.route(cameras.camera_to_worlds).tolist() == made.homes.tolist()


def test_without_a_partition_cameras_have_no_group(demo: Path, manager: Manager) -> None:
    with pytest.raises(PartitionError, match="No partition is known here, so cameras have no group."):
        manager(demo).route(torch.eye(4)[None, :3])


# Photos


class FakeDataset:
    """Photos given as arrays [height, width, channels], with masks [height, width, 1] where there are any."""

    def __init__(self, images: list[Tensor], masks: list[Tensor] | None = None) -> None:
        self.images, self.masks, self.read = images, masks, []
        self.cameras = SimpleNamespace(width=torch.tensor([[image.shape[1]] for image in images]))

    def __len__(self) -> int:
        return len(self.images)

    def get_data(self, view: int, image_type: str) -> dict[str, Tensor]:
        assert image_type == "uint8"
        self.read.append(view)
        mask = {} if self.masks is None else {"mask": self.masks[view]}
        return {"image": self.images[view], **mask}


def random_image(height: int, width: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(100 * height + width)
    return torch.randint(0, 256, (height, width, channels), dtype=torch.uint8, generator=generator)


def test_photos_of_different_size_are_read_at_row_and_column() -> None:
    images = [random_image(3, 5), random_image(4, 2), random_image(6, 7)]
    photos = Photos(FakeDataset(images), [True] * 3)
    assert photos.sizes == [15, 8, 42]
    for view, size in enumerate(photos.sizes):
        colours, rows, columns = read(photos, torch.full((size,), view), torch.arange(size))
        assert colours.dtype == torch.uint8
        assert torch.equal(colours, images[view].flatten(0, 1))
        assert torch.equal(images[view][rows, columns], colours)
    views, pixels = torch.tensor([2, 0, 1]), torch.tensor([8, 14, 3])
    _, rows, columns = read(photos, views, pixels)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(1, 1), (2, 4), (1, 1)]


def test_photos_that_are_not_wanted_are_not_read() -> None:
    dataset = FakeDataset([random_image(3, 5), random_image(4, 2), random_image(6, 7)])
    photos = Photos(dataset, [False, True, True])
    assert dataset.read == [1, 2] and photos.sizes == [0, 8, 42] and len(photos.pixels) == 50
    colours, rows, columns = read(photos, torch.tensor([1, 2]), torch.tensor([0, 41]))
    assert colours.tolist() == [dataset.images[1][0, 0].tolist(), dataset.images[2][5, 6].tolist()]
    assert (rows.tolist(), columns.tolist()) == ([0, 5], [0, 6])


def test_masked_pixels_are_never_drawn_and_all_others_are() -> None:
    images = [random_image(6, 5), random_image(4, 4), random_image(3, 3)]
    masks = [torch.rand(6, 5, 1) > 0.4, torch.ones(4, 4, 1, dtype=torch.bool), torch.zeros(3, 3, 1, dtype=torch.bool)]
    photos = Photos(FakeDataset(images, masks), [True] * 3)
    assert photos.sizes == [int(mask.sum()) for mask in masks]
    schedule = PixelSchedule(photos.sizes, [1.0] * 3, num_rays_per_batch=schedule_batch(photos), seed=0)
    views, pixels = schedule.draw(0)
    colours, rows, columns = read(photos, views, pixels)
    drawn = torch.zeros(3, 6, 5, dtype=torch.long)
    drawn.index_put_((views, rows, columns), torch.ones(len(views), dtype=torch.long), accumulate=True)
    for view, (image, mask) in enumerate(zip(images, masks, strict=True)):
        height, width = image.shape[:2]
        assert torch.equal(drawn[view, :height, :width], mask[..., 0].long())
        mine = views == view
        assert torch.equal(image[rows[mine], columns[mine]], colours[mine])


def read(photos: Photos, views: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Colours, rows and columns of pixels."""
    places, rows, columns = photos.locate(views, pixels)
    return photos.pixels[places], rows, columns


def schedule_batch(photos: Photos) -> int:
    """One batch for the whole epoch."""
    return sum(photos.sizes)


def test_photos_without_alpha_become_opaque_beside_those_with_it() -> None:
    images = [random_image(2, 3, channels=3), random_image(3, 2, channels=4)]
    photos = Photos(FakeDataset(images), [True, True])
    colours, _, _ = read(photos, torch.tensor([0, 1]), torch.tensor([4, 5]))
    assert colours.tolist() == [[*images[0][1, 1].tolist(), 255], images[1][2, 1].tolist()]
