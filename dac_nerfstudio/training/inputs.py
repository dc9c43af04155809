"""The views that a run is trained on: read by nerfstudio's data parser, checked, and digested."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Tuple

from nerfstudio.cameras.cameras import CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.utils.rich_utils import CONSOLE

from dac_nerfstudio.errors import PartitionError
from dac_nerfstudio.messages import say
from dac_nerfstudio.naming import MethodName
from dac_nerfstudio.partition import Views, listing
from dac_nerfstudio.runs.contents import contents_digest
from dac_nerfstudio.runs.layout import PARTITION, PHOTOS
from dac_nerfstudio.scene.data import Scene, open_scene
from dac_nerfstudio.scene.examination import examine, refuse
from dac_nerfstudio.scene.layout import find_layout
from dac_nerfstudio.training.datamanager import DaCDataManager


class Inputs:
    """The photos of a run, whose configuration it reads."""

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
        return Path(manager.data or self.config.data or manager.dataparser.data)

    @property
    def of_files(self) -> bool:
        """Whether the data are files: other data managers may have them in memory."""
        return self.config.pipeline.datamanager._target is DaCDataManager

    @property
    def scene(self) -> Scene:
        """The scene, with the data parser of this run."""
        manager = self.config.pipeline.datamanager
        if self.of_files and not self.data.exists():
            raise PartitionError(f"There is no data at {self.data}. Name a scene's folder: --data PATH")
        return open_scene(replace(manager.dataparser, data=self.data), manager.skip_missing)

    def examine(self) -> None:
        """Stop before anything long if the data cannot be trained on.

        Raises:
            PartitionError: what is wrong with them, a line for each.
            StageError: they are of no known layout.
        """
        if self.of_files:
            found, skip = examine(self.scene), self.config.pipeline.datamanager.skip_missing
            problems = found.problems if skip else found.all_problems
            if not self.scene.file().exists():
                layout = find_layout(self.data)
                method = MethodName.parse(self.config.method_name)._replace(suffix=layout.suffix)
                way = " ".join(map(str, ("ns-train", method, "--data", self.data, *layout.flags)))
                problems.append(f"For what is there: {way}")
            refuse(problems, self.data)
            for remark in found.remarks:
                say(CONSOLE, (remark, "yellow"))

    def read_views(self) -> Views:
        """The views that are trained on, in the model's frame; ``data_digest`` tells them from others.

        Raises:
            PartitionError: the data cannot be read, or lack photos.
        """
        config, scene = self.config, self.scene
        outputs = scene.get_dataparser_outputs("train")
        missing = [str(path) for path in outputs.image_filenames if self.of_files and not path.exists()]
        if missing:
            raise PartitionError(
                f"{len(missing)} of {len(outputs.image_filenames)} training photos are missing: {listing(missing)}. "
                "Put them back, or leave them out: --pipeline.datamanager.skip-missing True (dac run: --skip-missing)."
            )
        self.data_digest = digest_of(outputs)
        self.photos_digest = self.digest_of_photos(outputs) if self.of_files else ""
        # The points that photos share are for dividing, which is done once.
        divided = config.partition is not None or (config.scene_dir / PARTITION).exists()
        views = scene.views(tracks=not divided)
        return views if self.of_files else replace(views, photos=None)

    def digest_of_photos(self, outputs: DataparserOutputs) -> str:
        """Tells what the photos of a split hold, and their masks, from what others of the same names do."""
        return contents_digest(
            [*outputs.image_filenames, *(outputs.mask_filenames or ())], self.config.scene_dir / PHOTOS
        )

    def test_digests(self) -> Tuple[str, str]:
        """Digests of the test views, and of what their photos hold.

        Raises:
            SplitError: there are none.
        """
        outputs = self.scene.get_dataparser_outputs("test")
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
