"""The views that a run is trained on: read by nerfstudio's data parser, checked, and digested."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, List, Tuple

from nerfstudio.cameras.cameras import CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

from dac_nerfstudio.errors import PartitionError
from dac_nerfstudio.partition import Views, as_recorded, listing
from dac_nerfstudio.runs.contents import contents_digest
from dac_nerfstudio.runs.layout import PHOTOS
from dac_nerfstudio.scene.examination import examine, is_there, photo_problems, pose_problems, refuse
from dac_nerfstudio.scene.reading import SPLITS, is_blender, poses_file
from dac_nerfstudio.training.datamanager import DaCDataManager, name_of, views_of, without_missing


class Inputs:
    """The photos of a run, whose configuration it reads.

    Args:
        config: the run's settings.
    """

    data_digest = ""
    """A digest of the training views' poses and photos, once they are read."""
    photos_digest = ""
    """A digest of what the training photos hold, once they are read; empty where they are no files."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def data(self) -> Path:
        """Where the scene's data lie."""
        manager = self.config.pipeline.datamanager
        return Path(manager.data or manager.dataparser.data)

    def parsed(self, split: str) -> DataparserOutputs:
        """What nerfstudio's data parser says of a split."""
        manager = self.config.pipeline.datamanager
        outputs = replace(manager.dataparser, data=self.data).setup().get_dataparser_outputs(split=split)
        return without_missing(outputs) if manager.skip_missing else outputs

    def training_views(self) -> Views:
        """The views that are trained on, as the data's own files know them: these are divided.

        Raises:
            PartitionError: the data cannot be read, or lack photos.
        """
        return as_recorded(self.data, self.read_views())

    def read_views(self) -> Views:
        """The views that are trained on, in the model's frame; ``data_digest`` tells them from others.

        Raises:
            PartitionError: the data cannot be read, or lack photos.
        """
        config, data = self.config, self.data
        # Other data managers may have the data in memory.
        of_files = config.pipeline.datamanager._target is DaCDataManager
        if of_files and not data.exists():
            raise PartitionError(f"There is no data at {data}. Name a scene's folder: --data PATH")
        if of_files and self.files_are_known:
            refuse(examine(data).problems, data)
        try:
            outputs = self.parsed("train")
        except (OSError, AssertionError, KeyError, ValueError, RuntimeError) as error:
            raise PartitionError(
                f"The training views in {data} cannot be read: {error}. Does the data want another data parser? Its "
                f"name ends the command, as in: ns-train {config.method_name} --data {data} blender-data"
            ) from None
        missing = [str(path) for path in outputs.image_filenames if of_files and not path.exists()]
        if missing:
            raise PartitionError(
                f"{len(missing)} of {len(outputs.image_filenames)} training photos are missing: {listing(missing)}. "
                "Put them back, or leave them out: --pipeline.datamanager.skip-missing True (dac run: --skip-missing)."
            )
        if of_files:
            refuse(self.problems(outputs), data)
        self.data_digest = digest_of(outputs)
        self.photos_digest = self.digest_of_photos(outputs) if of_files else ""
        views = views_of(outputs, data)
        return views if of_files else replace(views, photos=None)

    @property
    def files_are_known(self) -> bool:
        """Whether the data parser reads the very file of poses that dividing would."""
        try:
            path = poses_file(self.data, "train")
        except PartitionError:
            return False
        parser = type(self.config.pipeline.datamanager.dataparser).__name__
        if path.is_dir():
            return parser == "ColmapDataParserConfig"
        return parser == ("BlenderDataParserConfig" if is_blender(path) else "NerfstudioDataParserConfig")

    def problems(self, training: DataparserOutputs) -> List[str]:
        """What is wrong with photos and poses of all splits, as the data parser gives them: a sentence for each.

        Args:
            training: what it says of the training views.
        """
        problems: List[str] = []
        for split in SPLITS:
            try:
                outputs = training if split == "train" else self.parsed(split)
            except (OSError, AssertionError, KeyError, ValueError, RuntimeError):
                continue  # there is no such split
            if is_there(split, outputs.image_filenames):
                cameras, names = outputs.cameras, [name_of(path, self.data) for path in outputs.image_filenames]
                sizes = list(zip(cameras.width[:, 0].tolist(), cameras.height[:, 0].tolist()))
                problems += pose_problems(names, cameras.camera_to_worlds.numpy())
                problems += photo_problems(outputs.image_filenames, sizes)
        return list(dict.fromkeys(problems))

    def digest_of_photos(self, outputs: DataparserOutputs) -> str:
        """Tells what the photos of a split hold, and their masks, from what others of the same names do."""
        return contents_digest(
            [*outputs.image_filenames, *(outputs.mask_filenames or ())], self.config.scene_dir / PHOTOS
        )

    def test_digests(self) -> Tuple[str, str]:
        """Digests of the test views, and of what their photos hold.

        Raises:
            FileNotFoundError: there are none.
        """
        try:
            outputs = self.parsed("test")
        except RuntimeError as error:  # what nerfstudio raises where other splits have lists
            raise FileNotFoundError(str(error)) from None
        if not outputs.image_filenames:
            raise FileNotFoundError("none is left for testing")
        return digest_of(outputs), self.digest_of_photos(outputs)


def digest_of(outputs: DataparserOutputs) -> str:
    """Digest of views: of poses, intrinsics, lenses, and names and sizes of the photos' files."""
    cameras = outputs.cameras
    digest = hashlib.sha256()
    for tensor in (cameras.camera_to_worlds, cameras.fx, cameras.fy, cameras.cx, cameras.cy):
        digest.update(tensor.float().numpy().tobytes())
    # Only what is no plain pinhole: records of plain ones are older than this.
    if cameras.distortion_params is not None and cameras.distortion_params.any():
        digest.update(cameras.distortion_params.float().numpy().tobytes())
    if (cameras.camera_type != CameraType.PERSPECTIVE.value).any():
        digest.update(cameras.camera_type.int().numpy().tobytes())
    for path in outputs.image_filenames:
        size = path.stat().st_size if path.exists() else 0
        digest.update(f"{path.name} {size}\n".encode())
    return digest.hexdigest()[:16]
