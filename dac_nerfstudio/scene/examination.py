"""Examination of a scene before anything long: what the data parser gives is judged, and all problems are one list.

Every photo and mask is opened, every pose and every lens judged. `dac split`, `dac run`, `ns-train` and
`dac check --data` share it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs, transform_poses_to_original_space

from dac_nerfstudio.errors import PartitionError, PhotoError, SplitError
from dac_nerfstudio.scene.data import SPLITS, Scene
from dac_nerfstudio.scene.frames import where_axes_meet
from dac_nerfstudio.scene.photos import IMAGE_SUFFIXES, read_photo
from dac_nerfstudio.scene.points import blanks, larger_model, names_have_blanks
from dac_nerfstudio.scene.problems import mask_problems, missing_photos, photo_problems, pose_problem
from dac_nerfstudio.scene.transforms import INTRINSICS, contradictions, faults, has_times
from dac_nerfstudio.scene.views import listing

MOST = 20
"""Sentences of a message."""
LEAST_SPREAD = 1e-5
"""Of cameras, relative to how far from the origin they are: the parsers' single precision rounds at 6e-8."""
SEEN = (2.0, 6.0)
"""How far from a camera the methods for Blender's format look for the scene."""
WIDEST = 150.0
"""Degrees that a photo without a fisheye lens may show without a remark."""
OUTWARD = 0.95
"""Share of cameras that look away from where their axes meet, to within 45 degrees, from which on that is remarked
upon."""
ROLLED = (0.05, 0.1)
"""Of the axes that point to a photo's right, their least extent in any direction (root mean square): the largest for
cameras held upright, and the least for cameras that are not."""
PARALLEL = 0.9
"""Length of the mean viewing direction from which on cameras look the same way, as those of a drone or a forward-facing
scene: which side of them their axes meet on is chance."""
FARTHEST, FEW = 30, 0.25
"""Distance of a camera from the middle of all, in medians of theirs, from which on it is remarked upon; the largest
share of cameras so far away that is remarked upon: more of them are a part of the scene, as another room is."""
MOST_DISTORTION = 3
"""Factor by which a lens may move the corners of a photo, outwards or inwards, without a remark."""


@dataclass
class Findings:
    """What an examination has found."""

    problems: list[str] = field(default_factory=list)
    """What keeps a scene from being trained on: a sentence each."""
    missing: list[str] = field(default_factory=list)
    """Photos that are not there: training can do without them if that is asked for."""
    remarks: list[str] = field(default_factory=list)
    """What may be meant: a sentence each."""
    views: dict[str, int] = field(default_factory=dict)
    """How many views each split has, val and test together where they are the same; where photos may be missing, those
    that are there."""

    @property
    def all_problems(self) -> list[str]:
        """What keeps the scene from being trained on as a whole, and how to do without photos that are not there."""
        some = self.missing and self.views.get("train")
        way = ["Photos that are not there can be left out: --skip-missing"] if some else []
        return [*way, *self.problems, *self.missing]


def examine(scene: Scene, thorough: bool = False) -> Findings:
    """Look at what the data parser gives of all splits, whether their photos are there or not.

    Args:
        thorough: decode photos and masks to the last byte, instead of reading what their headers say.
    """
    found, listed = Findings(), {}
    if scene.is_json:
        files = [path for path in dict.fromkeys(map(scene.file, SPLITS)) if path.exists()]
        found.problems += [f"{path} {fault}" for path in files for fault in faults(path, scene.is_blender)]
    readable = not found.problems
    for split in SPLITS:
        try:
            outputs = scene.listed(split)
        except SplitError as error:
            if split == "train":
                found.problems.append(str(error))
            elif split == "test":
                found.remarks.append(f"There are no test views, so nothing will be scored: {error}")
            elif scene.is_blender and scene.file(split).exists():
                found.remarks.append(str(error))
            continue
        except PartitionError as error:
            found.problems += str(error).splitlines()
            continue
        there = sum(map(os.path.exists, outputs.image_filenames))
        if split != "train" and not there:
            # Many copies of NeRF-synthetic come without their validation views' photos.
            found.remarks.append(f"None of the photos of the split '{split}' is there.")
            continue
        listed[split] = outputs
        found.views[split] = there if scene.skip_missing else len(outputs.image_filenames)
    if "val" in listed and "test" in listed and listed["val"].image_filenames == listed["test"].image_filenames:
        found.views["val and test"] = found.views.pop("val")
        del found.views["test"]
    lenses = [problem for split, outputs in listed.items() for problem in _lens_problems(scene, split, outputs)]
    found.problems += lenses
    if not lenses:
        found.remarks += _odd_cameras(scene, listed)
    _examine_files(scene, listed, found, thorough)
    if listed:
        if readable:
            _examine_poses(scene, listed, found)
        _examine_beside(scene, listed, found)
        if readable and not lenses:
            _examine_said(scene, listed, found)
    for sentences in (found.problems, found.missing, found.remarks):
        sentences[:] = dict.fromkeys(sentences)
    return found


def _examine_files(scene: Scene, listed: dict[str, DataparserOutputs], found: Findings, thorough: bool) -> None:
    """Look at all photos and masks, those of several splits once."""
    judged: set[Path] = set()
    for split, outputs in listed.items():
        width, height = outputs.cameras.width, outputs.cameras.height
        sizes = list(zip(width[:, 0].tolist(), height[:, 0].tolist()))
        photos = {path: size for path, size in zip(outputs.image_filenames, sizes) if path not in judged}
        judged |= set(photos)
        masks = {path: size for path, size in zip(outputs.mask_filenames or (), sizes) if path not in judged}
        judged |= set(masks)
        covered = {path: size for path, size in masks.items() if os.path.exists(path)}
        found.problems += missing_photos([path for path in masks if path not in covered])
        found.problems += mask_problems(list(covered), list(covered.values()), thorough, needed=split == "train")
        there = {path: size for path, size in photos.items() if os.path.exists(path)}
        found.missing += missing_photos([path for path in photos if path not in there])
        # In Blender's format the first photo sets the size of all cameras, and may be the odd one.
        known = None if scene.is_blender else list(there.values())
        found.problems += photo_problems(list(there), known, scene.is_blender, thorough)
        twice = [name for name, count in Counter(map(scene.name_of, outputs.image_filenames)).items() if count > 1]
        if twice:
            found.problems.append(
                f"{scene.file(split)} has several frames of these names: {listing(twice)}. A folder images or "
                "images_<number> does not count, nor a sub-folder at a --downscale. Rename the photos, or remove all "
                "but one of each."
            )
    if found.missing and names_have_blanks(scene.file()):
        found.problems.append(blanks(scene.file()))


def _lens_problems(scene: Scene, split: str, outputs: DataparserOutputs) -> list[str]:
    """What is wrong with focal lengths, principal points, sizes and lenses."""
    cameras, problems = outputs.cameras, []
    names = list(map(scene.name_of, outputs.image_filenames))
    positive = torch.cat((cameras.fx, cameras.fy, cameras.width, cameras.height), dim=1)
    usable = (positive.isfinite() & (positive > 0)).all(dim=1)
    usable &= torch.cat((cameras.cx, cameras.cy), dim=1).isfinite().all(dim=1)
    if not usable.all():
        bad = [name for name, good in zip(names, usable.tolist()) if not good]
        problems.append(
            f"{scene.file(split)} gives these a focal length or image size that is not a positive number: "
            f"{listing(bad)}."
        )
    lens = cameras.distortion_params
    if lens is not None:
        expected = 12 if (cameras.camera_type == CameraType.FISHEYE624.value).any() else 6
        if lens.shape[-1] != expected:
            problems.append(
                f"{scene.file(split)} gives lenses of {lens.shape[-1]} distortion parameters; expected {expected}"
                + (": k1, k2, k3, k4, p1, p2." if expected == 6 else ".")
            )
        elif not lens.isfinite().all():
            problems.append(f"{scene.file(split)} gives lenses with distortion parameters that are not finite.")
    return problems


def _odd_cameras(scene: Scene, listed: dict[str, DataparserOutputs]) -> list[str]:
    """Remarks on cameras whose numbers are possible, and those of hardly any photo: one for all splits of a file."""
    names: dict[tuple[Path, str], list[str]] = {}
    for split, outputs in listed.items():
        cameras = outputs.cameras
        size, centre = torch.cat((cameras.width, cameras.height), dim=1), torch.cat((cameras.cx, cameras.cy), dim=1)
        perspective = (cameras.camera_type == CameraType.PERSPECTIVE.value).squeeze(1)
        angles = 2 * torch.atan(size / 2 / torch.cat((cameras.fx, cameras.fy), dim=1)).rad2deg()
        wide = f"focal lengths (fl_x, fl_y, in pixels) that make a photo show more than {WIDEST:g} degrees"
        odd = {
            "principal points (cx, cy) at the photo's edge or outside": ((centre < 1) | (centre > size - 1)).any(dim=1),
            wide: (angles > WIDEST).any(dim=1) & perspective,
        }
        lens = cameras.distortion_params
        if lens is not None and lens.shape[-1] == 6:
            corner = torch.maximum(centre, size - centre) / torch.cat((cameras.fx, cameras.fy), dim=1)
            radius = corner.square().sum(dim=1, keepdim=True)
            factor = 1 + (lens[:, :4] * radius ** torch.arange(1, 5)).sum(dim=1)
            beyond = (factor < 1 / MOST_DISTORTION) | (factor > MOST_DISTORTION)
            # A fisheye's polynomial is one of the angle, and its corners may show nothing.
            beyond &= perspective
            odd[f"lenses (k1 to k4) that move a photo's corners by more than a factor of {MOST_DISTORTION}"] = beyond
        for what, which in odd.items():
            of_these = names.setdefault((scene.file(split), what), [])
            of_these += [scene.name_of(outputs.image_filenames[index]) for index in which.nonzero().flatten()]
    return [
        f"{file} has {what}: {listing(list(dict.fromkeys(which)))}. Training takes them as they are; correct them if "
        "they are wrong."
        for (file, what), which in names.items()
        if which
    ]


def _out_of_sight(path: Path, train: DataparserOutputs) -> list[str]:
    """A remark where most cameras have the scene, in Blender's format at the origin, too near or too far."""
    poses = train.cameras.camera_to_worlds
    ahead = (poses[:, :, 2] * poses[:, :, 3]).sum(dim=1)
    missed = int(((ahead < SEEN[0]) | (ahead > SEEN[1])).sum())
    if missed <= len(ahead) / 2:
        return []
    return [
        f"{path} has {missed} of {len(ahead)} cameras that do not have the origin {SEEN[0]:g} to {SEEN[1]:g} ahead of "
        f"them (median: {float(ahead.median()):.3g}), where methods for this format look for the scene by default. "
        "Shift all positions until the scene's middle is the origin, and scale them to a distance of about 4, or set "
        "--pipeline.model.near-plane, --pipeline.model.far-plane and --pipeline.model.scene-radius."
    ]


def _looking(poses: np.ndarray) -> int:
    """Whether cameras [views, 3, 4] look at the place where their axes meet, 1, away from it, -1, or neither, 0."""
    met = where_axes_meet(poses)
    if met is None or np.linalg.norm(poses[:, :, 2].mean(axis=0)) > PARALLEL:
        return 0
    return next((way for way in (1, -1) if (way * met[1] > np.sqrt(0.5)).mean() >= OUTWARD), 0)


def _other_convention(path: Path, poses: np.ndarray) -> list[str]:
    """A remark where poses [views, 3, 4] would be those of an orbit if they were inverted or their axes turned."""
    looking, rotations = _looking(poses), poses[:, :, :3].transpose(0, 2, 1)
    inverted = np.concatenate([rotations, -rotations @ poses[:, :, 3:]], axis=2)
    upright, rolled = (
        np.linalg.svd(each[:, :, 0], compute_uv=False)[-1] / np.sqrt(len(each)) for each in (inverted, poses)
    )
    # The inverses of cameras round an object are cameras on one spot that look outward, and the other way round: what
    # is the scene shows where cameras are held upright.
    if len(poses) >= 8 and upright < ROLLED[0] and rolled > ROLLED[1] and looking != 1 and _looking(inverted):
        return [
            f"{path} has poses that look like world-to-camera matrices: their inverses are upright cameras round one "
            "place, and they are not. nerfstudio's are camera-to-world: invert each matrix."
        ]
    if looking != -1:
        return []
    return [
        f"{path} has cameras that look away from where their axes meet. That is right for a room seen from its middle. "
        "For an object the poses are wrong: nerfstudio's cameras have y up and look along -z, those of OpenCV and "
        "COLMAP have y down and look along +z (negate the second and third column of each matrix)."
    ]


def _examine_poses(scene: Scene, listed: dict[str, DataparserOutputs], found: Findings) -> None:
    """Judge all poses, whichever split they belong to: a parser puts a scene in the middle of all its cameras."""
    names: list[str] = []
    poses = []
    for outputs in listed.values():
        names += map(scene.name_of, outputs.image_filenames)
        poses.append(outputs.cameras.camera_to_worlds)
    together = torch.cat(poses).double()
    if not scene.is_json:  # those are judged as the file has them
        judged = zip(names, map(pose_problem, together.numpy()), strict=True)
        found.problems += [f"{name} {problem}." for name, problem in judged if problem]
    first = next(iter(listed.values()))
    in_the_file = transform_poses_to_original_space(
        together, first.dataparser_transform.double(), first.dataparser_scale, "opengl"
    ).numpy()
    if scene.is_json:
        found.remarks += _other_convention(scene.file(), in_the_file)
    original = in_the_file[:, :, 3]
    across = float(np.linalg.norm(original - original.mean(axis=0), axis=1).max())
    away = np.linalg.norm(original - np.median(original, axis=0), axis=1)
    far = dict.fromkeys(name for name, distance in zip(names, away) if distance > FARTHEST * np.median(away) > 0)
    if 0 < len(far) <= FEW * len(set(names)) and not scene.is_blender:
        found.remarks.append(
            f"{scene.file()} has cameras more than {FARTHEST} times as far from the middle as the median camera: "
            f"{listing(list(far))}. nerfstudio scales a scene by its farthest camera, so the others shrink to nearly "
            "one spot. Remove these if their poses are wrong."
        )
    if len(set(names)) > 1 and across <= LEAST_SPREAD * np.abs(original).max():
        spot = ", ".join(f"{number:.4g}" for number in original.mean(axis=0))
        found.problems.append(
            f"{scene.file()} has all {len(set(names))} cameras on one spot, ({spot}), as far as single precision can "
            "tell: nothing shows how far away things are. Take photos from several places; where positions are large "
            "numbers, such as map coordinates, subtract the spot from all of them."
        )
    if scene.is_blender and "train" in listed:
        found.remarks += _out_of_sight(scene.file(), listed["train"])


def _examine_said(scene: Scene, listed: dict[str, DataparserOutputs], found: Findings) -> None:
    """Compare what JSON files say with what the parser takes; what several say is told of one."""
    sentences: dict[str, str] = {}
    for split, outputs in listed.items():
        path, cameras = scene.file(split), outputs.cameras
        if scene.is_json:
            used = None
            if scene.is_blender:
                columns = (cameras.fx, cameras.fy, cameras.cx, cameras.cy, cameras.width, cameras.height)
                used = dict(zip(INTRINSICS, (float(column[0]) for column in columns)))
            sentences = {**contradictions(path, used, int(cameras.camera_type[0])), **sentences}
            if has_times(path):
                found.remarks.append(f'{path} has a "time" for its frames, which plays no part: the scene is at rest.')
    found.problems += sentences.values()


def _examine_beside(scene: Scene, listed: dict[str, DataparserOutputs], found: Findings) -> None:
    """Look at what lies beside the views of a scene, and at views that are seen twice."""
    if scene.is_colmap:
        remark = larger_model(scene.file())
        found.remarks += [remark] if remark else []
        known = {os.path.abspath(path) for outputs in listed.values() for path in outputs.image_filenames}
        folder = scene.data / scene.config.images_path
        photos = [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES]
        others = sorted(str(path.relative_to(folder)) for path in photos if os.path.abspath(path) not in known)
        if others and next(iter(listed.values())).image_filenames[0].is_relative_to(folder):
            found.remarks.append(
                f"{len(others)} of the photos in {folder} have no pose or no split: {listing(others)}."
            )
    masks = scene.folder / "masks"
    if masks.is_dir() and not scene.is_blender and not next(iter(listed.values())).mask_filenames:
        way = "ns-train … colmap --masks-path masks" if scene.is_colmap else '"mask_path" of each frame'
        found.remarks.append(f"{masks} is not used. nerfstudio takes masks by {way}.")
    if "test" in listed and listed["test"].mask_filenames:
        found.remarks.append("Scores are of whole test photos: what masks hide is never trained on and counts there.")
    if scene.is_blender and "train" in listed:
        found.remarks += _background(listed["train"].image_filenames[0])
        other = scene.folder / "transforms.json"
        if other.exists():
            found.remarks.append(f"{other} is not used: beside transforms_train.json a scene is in Blender's format.")
    if "train" in listed:
        found.remarks += _seen_in_training(scene, listed)


def _background(photo: Path) -> list[str]:
    """A remark where a photo of Blender's format does not say what is background, or says that all is."""
    try:
        alpha = np.asarray(read_photo(photo).convert("RGBA"))[:, :, 3]
    except PhotoError:
        return []
    what = {(255, 255): "opaque: its background is taken for a part of the scene", (0, 0): "transparent everywhere"}
    way = "If others are, too, render them with a transparent background (in Blender: Render, Film, Transparent)."
    extremes = int(alpha.min()), int(alpha.max())
    return [f"{photo} is {what[extremes]}. {way}"] if extremes in what else []


def _seen_in_training(scene: Scene, listed: dict[str, DataparserOutputs]) -> list[str]:
    """A remark for each of the other splits whose photos are training photos, too."""

    def there(split: str) -> dict[Path, Path]:
        photos = listed[split].image_filenames if split in listed else ()
        return {path.resolve(): path for path in photos if os.path.exists(path)}

    remarks, trained, tested = [], there("train"), there("test")
    judged = {
        "test": (tested, "their scores tell how well these are remembered, and nothing of new views"),
        "validation": (there("val"), "what is chosen on them suits views that are remembered"),
    }
    for name, (photos, why) in judged.items():
        seen = [scene.name_of(path) for real, path in photos.items() if real in trained]
        if seen and (name == "test" or photos != tested):
            which = "All" if len(seen) == len(photos) else f"{len(seen)} of {len(photos)}"
            remarks.append(f"{which} {name} views are training views ({listing(seen)}): {why}.")
    return remarks


def refuse(problems: Sequence[str], data: Path) -> None:
    """Stop if anything is wrong with a scene.

    Raises:
        PartitionError: something is.
    """
    if problems:
        more = len(problems) - MOST
        lines = [*problems[:MOST], *([f"… and {more} more; all of them: dac check --data {data}"] if more > 0 else [])]
        raise PartitionError("\n".join([f"Correct the scene in {data} first:", *lines]))
