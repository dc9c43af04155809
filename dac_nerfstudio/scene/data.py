"""A scene as training sees it: the outputs of nerfstudio's own data parser. Nothing else reads poses.

Importing this module imports nerfstudio, which takes seconds.
"""

from __future__ import annotations

import ast
import io
import os
import shlex
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig, DataparserOutputs
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

from dac_nerfstudio.errors import PartitionError, SplitError
from dac_nerfstudio.scene.layout import find_layout, find_model
from dac_nerfstudio.scene.photos import IMAGE_SUFFIXES
from dac_nerfstudio.scene.points import blanks, check_whole, images_of, names_have_blanks, tracks_of
from dac_nerfstudio.scene.problems import missing_photos, photo_problems, why_missing
from dac_nerfstudio.scene.transforms import faults, read_json
from dac_nerfstudio.scene.views import Views, listing, view_name

SPLITS = ("train", "val", "test")
LARGEST_SIDE = 1600
"""Pixels. Of photos with a longer side nerfstudio takes smaller ones, by a power of two."""


class Scene:
    """What a data parser gives of each split, read once.

    Args:
        config: the data parser and its settings, as training has them.
        skip_missing: leave out photos that are not there. The others stay in the split that they are in.
    """

    includes_time = False
    """Asked by nerfstudio's data managers, as of a data parser."""

    def __init__(self, config: DataParserConfig, skip_missing: bool = False) -> None:
        if isinstance(config, ColmapDataParserConfig):
            # No model of ours starts from points, which the parser would refuse to do without.
            config = replace(config, load_3D_points=False)
        self.config: Any = config
        self.skip_missing = skip_missing
        self.data = Path(config.data)
        self.parser: Any = config.setup()
        self._read: dict[str, DataparserOutputs | PartitionError] = {}
        inner = self.file() if self.file().is_dir() else self.folder
        files = [path for folder in {self.folder, inner} if folder.is_dir() for path in (folder, *folder.iterdir())]
        self.marks = {path: _mark(path) for path in files}
        """Of the files that the parser reads, for `open_scene`."""

    @property
    def downscale_factor(self) -> int | None:
        """The number that photos are made smaller by; set by nerfstudio's data managers, as of a data parser."""
        return getattr(self.parser, "downscale_factor", None)

    @downscale_factor.setter
    def downscale_factor(self, factor: int) -> None:
        self.parser.downscale_factor = factor

    @property
    def folder(self) -> Path:
        """The folder that names of views are relative to."""
        return self.data.parent if self.data.is_file() else self.data

    @property
    def is_blender(self) -> bool:
        """Whether it is of Blender's format: its world is upright, and photos alone say how large they are."""
        return isinstance(self.config, BlenderDataParserConfig)

    @property
    def is_json(self) -> bool:
        """Whether a JSON file of a known format says its views."""
        return isinstance(self.config, (BlenderDataParserConfig, NerfstudioDataParserConfig))

    @property
    def is_colmap(self) -> bool:
        """Whether its cameras are those of a COLMAP model."""
        return isinstance(self.config, ColmapDataParserConfig)

    def file(self, split: str = "train") -> Path:
        """What holds the poses of a split: a JSON file, a COLMAP model, or the data where that is not known."""
        if self.is_blender:
            return self.data / f"transforms_{split}.json"
        if isinstance(self.config, NerfstudioDataParserConfig):
            return self.data if self.data.suffix == ".json" else self.data / "transforms.json"
        return self.data / getattr(self.config, "colmap_path", "")

    @property
    def model(self) -> Path | None:
        """The COLMAP model of the views, if there is one."""
        if self.is_colmap:
            return self.file()
        return None if self.is_blender else find_model(self.folder)

    def listed(self, split: str = "train") -> DataparserOutputs:
        """What the data parser gives of a split, whether its photos are there or not.

        Raises:
            SplitError: the scene has no such split.
            PartitionError: the data parser refuses the scene; a line for each reason.
        """
        if split not in self._read:
            try:
                self._read[split] = self._parsed(split)
            except PartitionError as error:
                self._read[split] = error
        found = self._read[split]
        if isinstance(found, PartitionError):
            raise found
        return found

    def get_dataparser_outputs(self, split: str = "train", **settings: Any) -> DataparserOutputs:
        """What is trained on or scored of a split; named as of nerfstudio's data parsers, which a scene stands in for.

        Raises:
            SplitError: the scene has no such split.
            PartitionError: the data parser refuses the scene.
        """
        outputs = self.listed(split)
        if not self.skip_missing:
            return outputs
        kept = [number for number, path in enumerate(outputs.image_filenames) if os.path.exists(path)]
        if not kept:
            raise SplitError(f"None of the photos of the split '{split}' is there. Put them back into {self.data}.")
        masks, depths = outputs.mask_filenames, outputs.metadata.get("depth_filenames")
        return replace(
            outputs,
            image_filenames=[outputs.image_filenames[number] for number in kept],
            cameras=outputs.cameras[torch.tensor(kept)],
            mask_filenames=masks and [masks[number] for number in kept],
            metadata={**outputs.metadata, "depth_filenames": depths and [depths[number] for number in kept]},
        )

    def name_of(self, photo: Path) -> str:
        """The name of a photo's view in partitions and reports."""
        # Either may be given relative to the working directory.
        for path, folder in ((photo, self.folder), *[map(Path, map(os.path.abspath, (photo, self.folder)))]):
            if path.is_relative_to(folder):
                return view_name(path.relative_to(folder))
        return view_name(photo)

    def names(self, split: str = "train") -> tuple[str, ...]:
        """Names of a split's views, in the data parser's order."""
        return tuple(self.name_of(path) for path in self.get_dataparser_outputs(split).image_filenames)

    def views(self, split: str = "train", tracks: bool = True) -> Views:
        """The views of a split, in the frame and the order that training has.

        Args:
            tracks: take the points that photos share from a COLMAP model, which takes a while.

        Raises:
            PartitionError: there are none, or the data parser refuses the scene.
        """
        outputs = self.get_dataparser_outputs(split)
        cameras, names = outputs.cameras, self.names(split)
        columns = (cameras.fx, cameras.fy, cameras.cx, cameras.cy, cameras.width, cameras.height)
        model = self.model if tracks else None
        return Views(
            names=names,
            camera_to_worlds=cameras.camera_to_worlds.numpy().astype(np.float64),
            intrinsics=torch.cat([column.double() for column in columns], dim=-1).numpy(),
            upright=not isinstance(self.config, (NerfstudioDataParserConfig, ColmapDataParserConfig)),
            tracks=None if model is None else tracks_of(model, names),
            photos=tuple(outputs.image_filenames),
        )

    def test_views(self) -> Views | None:
        """The test views, if there are any."""
        try:
            return self.views("test", tracks=False)
        except PartitionError:
            return None

    def left_out(self) -> list[str]:
        """A sentence on the training views that are left out, if any are."""
        kept = set(self.names())
        names = [name for name in map(self.name_of, self.listed().image_filenames) if name not in kept]
        return [f"Left out, as their photos are not there: {listing(names)}."] if names else []

    def _parsed(self, split: str) -> DataparserOutputs:
        first = self._named_photos(split)[:1]
        self.marks.update({photo: _mark(photo) for photo in first})  # parsers open it for its size
        beside = (self.data / self.config.images_path).rglob("*") if self.is_colmap else ()
        for photo in (*first, *beside):
            if os.path.exists(photo) and not (photo.is_file() or (photo.is_dir() and self.is_colmap)):
                raise PartitionError(f"{photo} is no regular file.")  # the parser would wait for ever
        if self.file(split).joinpath("images.bin").is_file():
            check_whole(self.file(split) / "images.bin")
        try:
            outputs = self._asked(split)
        except (Exception, SystemExit) as error:  # whatever a parser stumbles over
            refusal = self._refusal(split, error)
            self.parser = self.config.setup()  # this one has asked its question, and would not ask again
            raise refusal from None
        if not len(outputs.image_filenames):
            raise SplitError(f"{self.file(split)} has too few photos for a split '{split}'. List some for it.")
        if not outputs.cameras.camera_to_worlds.isfinite().all() and not (
            self.is_json and any(faults(self.file(split), self.is_blender))  # the examination lists these
        ):
            raise PartitionError(
                f"{self.file(split)} has cameras whose up directions cancel, so nerfstudio finds no upright frame. Set "
                '"orientation_override": "none" in transforms.json, or end ns-train with: '
                "colmap --orientation-method none"
            )
        factor, seen = self.downscale_factor or 1, outputs.cameras.metadata or {}
        if isinstance(self.config, NerfstudioDataParserConfig) and factor > 1:
            smaller = outputs.image_filenames[0].parent
            if not smaller.is_dir():
                raise self._without_smaller_photos(
                    {photo.parent: smaller for photo in self._named_photos(split)}, smaller
                )
            if "fisheye_crop_radius" in seen:  # the one length in pixels that the parser leaves as it is
                seen["fisheye_crop_radius"] /= factor
        return outputs

    def _asked(self, split: str) -> DataparserOutputs:
        with _quiet():
            try:
                return self.parser.get_dataparser_outputs(split=split)
            except ZeroDivisionError:
                # All cameras stand on one spot, so that there is no size to scale to 1.
                self.parser = replace(self.config, auto_scale_poses=False).setup()
                return self.parser.get_dataparser_outputs(split=split)

    def _named_photos(self, split: str) -> list[Path]:
        """Where a data parser of JSON files looks for photos, as far as the file can be read."""
        meta, _ = read_json(self.file(split)) if self.is_json else (None, "")
        frames = meta.get("frames") if isinstance(meta, dict) else None
        frames = frames if isinstance(frames, list) else []
        files = [frame.get("file_path") for frame in frames if isinstance(frame, dict)]
        named = [file for file in files if isinstance(file, str)]
        if self.is_blender:
            return [self.data / (file.replace("./", "") + ".png") for file in named]
        return [self.folder / file for file in named]

    def _refusal(self, split: str, error: BaseException) -> PartitionError:
        """Why a data parser refuses a scene, in a line for each reason, from what it has raised."""
        path, text = self.file(split), " ".join(str(error).split())
        if not path.exists():
            # Many copies of NeRF-synthetic come without their validation views.
            return (PartitionError if split == "train" else SplitError)(f"There is no {path}.")
        if isinstance(error, RuntimeError) and text.endswith("is missing."):
            return SplitError(f"{path} has no views for the split '{split}', as others have lists. Add its list.")
        if isinstance(error, RuntimeError) and "were not found: {" in text:
            named = str(error).partition("were not found: ")[2].replace("PosixPath(", "(").rstrip(".")
            unknown = sorted(ast.literal_eval(named))
            return PartitionError(
                f"The list of the split '{split}' names photos that {path} does not have: "
                f"{listing(unknown)}. Write each as it is written there, or take it off the list, of which an empty "
                "line counts, too."
            )
        if isinstance(error, EOFError) and self.is_colmap:  # asked whether to make smaller photos
            images = self.data / self.config.images_path
            factor = self.parser._downscale_factor
            smaller = images.with_name(f"{images.name}_{factor}")
            folders = {photo.parent for photo in images.rglob("*") if photo.is_file()}
            return self._without_smaller_photos({one: smaller / one.relative_to(images) for one in folders}, smaller)
        if names_have_blanks(path):
            return PartitionError(blanks(path))
        if isinstance(error, FileNotFoundError) and self.is_colmap:
            if error.filename is not None and Path(error.filename).parent == path:
                return PartitionError(
                    f"There is no {error.filename}. nerfstudio reads text where cameras.txt is there, and binary files "
                    "otherwise: put the missing file there, or remove the cameras file of its kind."
                )
            images = self.data / self.config.images_path
            listed = [images / one.name for one in images_of(path)]
            gone = [photo for photo in listed if not photo.exists()]
            if gone:
                way = ["Photos that are not there can be left out: --skip-missing"] if gone != listed else []
                return PartitionError("\n".join([*way, *missing_photos(gone)]))
        reasons = []
        if self.is_json:
            reasons = [f"{path} {fault}" for fault in faults(path, self.is_blender)]
            photos = self._named_photos(split) if getattr(self.config, "downscale_factor", None) in (None, 1) else []
            gone = [photo for photo in photos if not os.path.exists(photo)]
            if photos and gone == photos and split != "train" and not why_missing(gone[0]):
                return SplitError(f"None of the photos of the split '{split}' is there: {missing_photos(gone)[0]}")
            if self.is_blender and self.skip_missing and photos[:1] == gone[:1] != []:
                reasons.append(f"nerfstudio takes the photos' size from {gone[0]}: put it back, or take its frame out.")
            there = [photo for photo in photos if photo not in gone]
            reasons += missing_photos(gone) + photo_problems(there, None, self.is_blender)
        if not reasons:
            reasons = [f"{path} cannot be used: {_in_words(error, text)}"]
        return PartitionError("\n".join(reasons))

    def _without_smaller_photos(self, targets: dict[Path, Path], smaller: Path) -> PartitionError:
        """There is no `smaller`, and how to make it: in `targets` is where photos of each folder belong."""
        factor, folders = int(smaller.name.rpartition("_")[2]), sorted(targets)
        command = "; ".join(
            'mkdir -p {1}; for photo in {0}/*; do [ -d "$photo" ] || ffmpeg -noautorotate -i "$photo" -q:v 2 '
            '-vf scale=iw/{2}:ih/{2} {1}/"${{photo##*/}}"; done'.format(
                *(shlex.quote(str(path)) for path in (folder, targets[folder])), factor
            )
            for folder in folders
        )
        if self.config.downscale_factor is not None:
            return PartitionError(f"There is no {smaller}. Choose another --downscale, or make it: {command}")
        where = listing([str(folder) for folder in folders])
        return PartitionError(
            f"The photos in {where} have more than {LARGEST_SIDE} pixels on their longer side. nerfstudio takes "
            f"smaller ones, here from {smaller}, which is not there. To take them at their own size, which needs more "
            f"memory and more steps: --downscale 1. To make smaller ones: {command}"
        )


def _in_words(error: BaseException, text: str) -> str:
    """What a data parser has raised, for somebody who does not know Python."""
    if isinstance(error, KeyError):
        what = " (the number of a camera, or of a camera model that nerfstudio does not know)" if text.isdigit() else ""
        return f"it lacks {text}{what}."
    if isinstance(error, ValueError) and Path(text.rstrip("'")).suffix.lower() in IMAGE_SUFFIXES:
        return f"{text}. In images.txt each photo takes two lines; the second lists its features, and may be empty."
    if text.startswith("K4/K5/K6"):
        return (
            "nerfstudio reads k4 of a fisheye lens from its own format alone: ns-process-data images --data IMAGES "
            "--output-dir FOLDER --skip-colmap --colmap-model-path MODEL, the model's absolute path."
        )
    if isinstance(error, (struct.error, OverflowError, MemoryError)):
        return f"a file is truncated or damaged ({text}). Copy it again."
    if isinstance(error, NotImplementedError) or text.startswith("Multiple camera models"):
        return f"{text}{'' if text.endswith('!') else '.'} Undistort the photos first (colmap image_undistorter)."
    if isinstance(error, (AssertionError, RuntimeError, OSError)):
        return text
    return f"{text} ({type(error).__name__})."


@contextmanager
def _quiet() -> Iterator[None]:
    """Without nerfstudio's notes on the console, and without anybody to answer its questions."""
    typed = sys.stdin
    sys.stdin = io.StringIO()
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        sys.stdin = typed


_opened: dict[str, Scene] = {}


def open_scene(config: DataParserConfig, skip_missing: bool = False) -> Scene:
    """The scene of a data parser; the same one while its files stay as they are."""
    key = f"{config} {skip_missing}"
    scene = _opened.get(key)
    if scene is None or any(_mark(path) != mark for path, mark in scene.marks.items()):
        scene = _opened[key] = Scene(config, skip_missing)
    return scene


def _mark(path: Path) -> tuple[int, int] | None:
    """What tells a file or folder from itself after a change."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size


def scene_at(data: Path, downscale: int | None = None, skip_missing: bool = False) -> Scene:
    """The scene in a folder, with the data parser and the settings that ``dac run`` trains it with.

    Raises:
        StageError: the data are not there, of no known layout, or of one size only.
    """
    return open_scene(find_layout(Path(data), downscale, skip_missing).config(), skip_missing)


def read_views(data: Path, split: str = "train", skip_missing: bool = False) -> Views:
    """The views of a split of the scene in a folder, see `Scene.views`."""
    return scene_at(data, skip_missing=skip_missing).views(split)
