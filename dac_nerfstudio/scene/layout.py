"""Which of nerfstudio's data parsers a scene's folder needs, and with which settings. No torch and no nerfstudio."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.naming import UNBOUNDED

if TYPE_CHECKING:
    from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig

MODEL_FOLDERS = ("colmap/sparse/0", "sparse/0", "colmap/sparse", "sparse", "colmap", ".")
"""Where a COLMAP model may lie in a scene's folder, in the order of the search."""
RECORDINGS = {
    "*.m[po][4v]": "video --data {0}",
    "keyframes": "polycam --data {data}",
    "exr_rgbd": "record3d --data {data}",
    "opensfm": "odm --data {data}",
    "*.xml": "metashape --data PHOTOS --xml {0}",
    "*.csv": "realitycapture --data PHOTOS --csv {0}",
}
"""What other programs leave in a folder, and which command of ns-process-data reads it."""


@dataclass(frozen=True)
class Layout:
    """A data parser and its settings."""

    data: Path
    parser: str
    """The name that ``ns-train`` has for it."""
    settings: Dict[str, Any] = field(default_factory=dict)

    @property
    def suffix(self) -> str:
        """Which methods are for such data: '' for bounded scenes, '-360' for real ones."""
        return "" if self.parser == "blender-data" else UNBOUNDED

    @property
    def flags(self) -> Tuple[str, ...]:
        """The end of a command of ``ns-train``; empty where the method's own data parser will do."""
        if not self.settings:
            return ()
        named = ((f"--{name.replace('_', '-')}", str(value)) for name, value in self.settings.items())
        return (self.parser, *(word for pair in named for word in pair))

    def config(self) -> DataParserConfig:
        """The data parser as nerfstudio configures it, whose import takes seconds."""
        from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
        from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
        from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

        known = {
            "blender-data": BlenderDataParserConfig,
            "nerfstudio-data": NerfstudioDataParserConfig,
            "colmap": ColmapDataParserConfig,
        }
        return known[self.parser](data=self.data, **self.settings)


def find_layout(data: Path, downscale: Optional[int] = None, skip_missing: bool = False) -> Layout:
    """The layout of a scene.

    Args:
        skip_missing: leave out photos that are not there. Left to itself, nerfstudio opens the first one to choose a
            size, so that the photos' own size is taken unless ``downscale`` says otherwise.

    Raises:
        StageError: the data are not there, of no known layout, or of one size only.
    """
    if not data.exists():
        raise StageError(f"There is no data at {data}. Name a scene's folder: --data PATH")
    if downscale is not None and downscale < 1:
        raise StageError(f"--downscale is {downscale}; expected a whole number from 1 up.")
    if (data / "transforms_train.json").exists():
        if downscale is not None:
            raise StageError("--downscale is for real photos; a scene in Blender's format has one size of images.")
        return Layout(data, "blender-data")
    if data.name in ("transforms_train.json", "transforms_val.json", "transforms_test.json"):
        raise StageError(f"Name the scene's folder: --data {data.parent}")
    size = 1 if skip_missing and downscale is None else downscale
    settings: Dict[str, Any] = {} if size is None else {"downscale_factor": size}
    if data.suffix == ".json" or (data / "transforms.json").exists():
        return Layout(data, "nerfstudio-data", settings)
    model = find_model(data)
    near = _scene_near(data) if model is None or (model == data and not (data / "images").exists()) else None
    if near is not None:
        raise StageError(f"Name the scene's folder: --data {near}")
    if model is not None:
        return Layout(data, "colmap", {"colmap_path": model.relative_to(data), **settings})
    files = sorted(data.iterdir()) if data.is_dir() else [data]
    found = f"holds {', '.join(path.name for path in files[:6]) or 'nothing'}" if data.is_dir() else "is a file"
    known = ((file, way) for mark, way in RECORDINGS.items() for file in files if fnmatch(file.name.lower(), mark))
    file, way = next(known, (data, "images --data PHOTOS"))
    raise StageError(
        f"{data} {found}; expected a folder with transforms_train.json (a scene in Blender's format), transforms.json "
        f"(nerfstudio's; to make it: ns-process-data {way.format(file, data=data)} --output-dir FOLDER) or a COLMAP "
        f"model (images.bin or images.txt) in one of {', '.join(MODEL_FOLDERS[:-1])}."
    )


def _scene_near(data: Path) -> Optional[Path]:
    """A scene's folder in which this one lies, or that lies in it; None if there is none."""
    for folder in (data.parent, data.parent.parent, *sorted(data.glob("*/")), *sorted(data.glob("*/*/"))):
        listed = any((folder / f"transforms{split}.json").exists() for split in ("", "_train"))
        if listed or (find_model(folder) and (folder / "images").is_dir()):
            return folder
    return None


def find_model(data: Path) -> Optional[Path]:
    """The folder of the COLMAP model of a scene, if it has one."""
    numbered = (sorted((data / folder).glob("*")) for folder in ("colmap/sparse", "sparse"))
    for folder in (*(data / folder for folder in MODEL_FOLDERS), *chain(*numbered)):
        if is_model(folder):
            return folder
    return None


def is_model(folder: Path) -> bool:
    """Whether a folder holds a COLMAP model."""
    return any((folder / f"images.{suffix}").is_file() for suffix in ("txt", "bin"))
