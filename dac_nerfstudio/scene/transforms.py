"""What a scene's JSON says that nerfstudio's data parsers refuse or pass over.

Views come from the data parser alone. The JSON is looked at to name what the parser only stumbles over, and what it
leaves unused without a word, so that a model would be trained with other cameras than the file describes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nerfstudio.cameras.cameras import CAMERA_MODEL_TO_TYPE, CameraType

from dac_nerfstudio.scene.problems import pose_problem
from dac_nerfstudio.scene.views import listing

Fields = dict[str, Any]
INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h")
LENS = ("k1", "k2", "k3", "k4", "p1", "p2")
"""nerfstudio's order of a lens's parameters."""
FILES = ("mask_path", "depth_file_path")
CHOICES = {
    "camera_model": tuple(model for model in CAMERA_MODEL_TO_TYPE if not model.startswith(("OMNI", "VR180"))),
    "orientation_override": ("none", "up", "vertical", "pca"),
}
"""Words that training can do with: of some cameras nerfstudio makes rays of whole pictures alone."""
ANGLES = ("camera_angle_x", "camera_angle_y")
LARGEST = 1e30
"""Of numbers that single precision can still add."""
TOLERANCE = 0.01
"""Relative difference of numbers that mean the same."""


def read_json(path: Path) -> tuple[Any, str]:
    """The content of a JSON file, and why it cannot be read; one of them is None or empty."""
    try:
        return json.loads(path.read_text(encoding="utf-8")), ""
    except UnicodeDecodeError as error:
        return None, f"is no text in UTF-8 ({error}). Save it as UTF-8."
    except RecursionError:
        return None, "is nested deeper than any scene. Restore the file or make it anew."
    except FileNotFoundError:
        return None, "is missing."
    except (ValueError, OSError) as error:
        way = "Save it without a byte order mark" if "BOM" in str(error) else "Restore the file or make it anew"
        return None, f"is not valid JSON ({error}). {way}."


def faults(path: Path, blender: bool) -> list[str]:
    """What in a JSON file a data parser stumbles over, each as the rest of a sentence that begins with the file."""
    meta, unreadable = read_json(path)
    if unreadable:
        return [unreadable]
    if not isinstance(meta, dict):
        return [f"holds a JSON {type(meta).__name__}; expected an object in braces."]
    frames = meta.get("frames")
    if not isinstance(frames, list) or not frames:
        return ['has no frames; expected a non-empty list "frames", one entry for each photo.']
    found = dict.fromkeys([*_fields_at_fault(meta), *_faults_for_all(meta)], ("all frames",))
    by_file: dict[str, list[str]] = {}
    named: list[tuple[str, Fields]] = []
    for number, frame in enumerate(frames):
        file = frame.get("file_path") if isinstance(frame, dict) else None
        if not isinstance(file, str) or not file:
            by_file.setdefault('has no "file_path" in these of its "frames", counted from 0:', []).append(str(number))
        else:
            named.append((file, frame))
    # Blender's parser takes 3 x 4 as well, but not both.
    matrices = [_numbers(frame.get("transform_matrix")) for _, frame in named]
    rows = 3 if blender and all(matrix is not None and matrix.shape == (3, 4) for matrix in matrices) else 4
    beside = [key for key in FILES if not blender and any(key in frame for _, frame in named)]
    for (file, frame), matrix in zip(named, matrices):
        faults_of_frame = [
            *_fields_at_fault(frame),
            *_faults_of_pose(frame, matrix, rows, blender),
            *_faults_of_files(frame, beside),
        ]
        if blender and _is_elsewhere(path.parent, file):
            faults_of_frame.append(
                'has a "file_path" with "./", which nerfstudio removes ("../a" becomes ".a"; link photos from '
                "elsewhere into the scene's folder), for"
            )
        if "fisheye_crop_radius" in frame and "fisheye_crop_radius" not in meta:
            faults_of_frame.append('has a "fisheye_crop_radius", which nerfstudio reads for all frames at once, for')
        lacking = [f'"{key}"' for key in INTRINSICS if key not in meta and key not in frame]
        if lacking and not blender:
            hint = " (in pixels; fl_x is w / 2 / tan(camera_angle_x / 2))" if "camera_angle_x" in meta else ""
            faults_of_frame.append(f"has no {', '.join(lacking)}{hint}, neither for all frames nor for")
        for fault in faults_of_frame:
            by_file.setdefault(fault, []).append(file)
    if blender and "camera_angle_x" not in meta:
        other = path.with_name("transforms.json")
        way = "" if other.exists() else "write all frames to one file, and "
        hint = f'; with "fl_x" it is of nerfstudio\'s format: {way}name it, --data {other}' if "fl_x" in meta else ""
        found[f'has no "camera_angle_x" (horizontal field of view in radians{hint}):'] = ("all frames",)
    for key in ("train_filenames", "val_filenames", "test_filenames"):
        names = meta.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            found[f'has a "{key}" that is not a list of file names:'] = (json.dumps(names)[:40],)
    return [f"{fault} {listing([*files], 3)}." for fault, files in {**found, **by_file}.items()]


def _is_elsewhere(folder: Path, file: str) -> bool:
    """Whether a photo of Blender's format is where its file says, and not where nerfstudio looks for it."""
    there, sought = (folder / f"{name}.png" for name in (file, file.replace("./", "")))
    return os.path.exists(there) and not os.path.exists(sought)


def _faults_of_pose(frame: Fields, matrix: np.ndarray | None, rows: int, blender: bool) -> Iterator[str]:
    if "transform_matrix" not in frame:
        yield 'has no "transform_matrix" for'
    elif matrix is None or matrix.shape != (rows, 4):
        yield f'has a "transform_matrix" that is not {rows} x 4 finite numbers for'
    else:
        problem = pose_problem(matrix[:3])
        if problem:
            yield f"{problem}, for"
        # Blender's parser makes nothing of the last row, but a transposed pose has its position there.
        elif (
            rows == 4
            and not np.allclose(matrix[3], [0, 0, 0, 1], atol=TOLERANCE)
            and not (blender and matrix[:3, 3].any())
        ):
            yield 'has a "transform_matrix" whose last row is not 0, 0, 0, 1 (transpose it if its last column is) for'


def _faults_of_files(frame: Fields, beside: Sequence[str]) -> Iterator[str]:
    for key in beside:
        if key not in frame:
            yield f'has a "{key}" for other frames, which nerfstudio takes for all or for none, and not for'
        elif not isinstance(frame[key], str) or not frame[key]:
            yield f'has "{key}" {json.dumps(frame[key])[:40]}, which names no file, for'


def _fields_at_fault(fields: Fields) -> Iterator[str]:
    for key in (*INTRINSICS, *LENS, *ANGLES, "applied_scale"):
        value = fields.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            yield f'has "{key}" {json.dumps(value)[:40]}, which is no number, for'
        elif abs(value) > LARGEST or value != value:
            yield f'has "{key}" that is no number of a camera for'
        elif key in ANGLES and key in fields and not 0 < value < math.pi:
            yield f'has "{key}" {value:g}, which is no angle from 0 to pi in radians, for'
    lens = fields.get("distortion_params", [])
    if not isinstance(lens, list) or _numbers(lens) is None:
        yield f'has "distortion_params" {json.dumps(lens)[:40]}, which is no list of numbers, for'


def _faults_for_all(meta: Fields) -> Iterator[str]:
    """In fields that are read for all frames alone."""
    for key, known in CHOICES.items():
        if meta.get(key, known[0]) not in known:
            yield f'has "{key}" {json.dumps(meta[key])[:40]} (nerfstudio knows {", ".join(known)}) for'
    radius, applied = meta.get("fisheye_crop_radius"), _numbers(meta.get("applied_transform", np.eye(4)[:3]))
    if radius is not None and not (isinstance(radius, (int, float)) and radius > 0):
        yield f'has "fisheye_crop_radius" {json.dumps(radius)[:40]}, which is no length in pixels, for'
    if applied is None or applied.shape != (3, 4) or not abs(np.linalg.det(applied[:, :3])) > 1e-12:
        yield 'has an "applied_transform" that is not 3 x 4 finite numbers, or cannot be inverted, for'


def _numbers(values: Any) -> np.ndarray | None:
    """Nested lists of finite numbers, in single precision, as an array; None if they hold anything else."""
    try:
        array = np.array(values)
    except ValueError:  # rows of different lengths
        return None
    return array if array.dtype.kind in "if" and (np.abs(array) < LARGEST).all() else None


def contradictions(path: Path, used: Fields | None, camera_type: int) -> dict[str, str]:
    """What a JSON file says of cameras and the data parser does otherwise, a sentence for each field by its name.

    Args:
        used: what Blender's parser has taken for all frames, by names of `INTRINSICS`; None for nerfstudio's, which
            takes what is said for all frames, and of each frame only what is not.
        camera_type: the value of nerfstudio's `CameraType` of all cameras.
    """
    meta, _ = read_json(path)
    found: dict[str, list[tuple[str, Any, Any]]] = {}
    for frame in meta["frames"]:
        taken = _taken(meta, frame) if used is None else used
        for level, of in ((meta, "all frames"), (frame, str(frame["file_path"]))):
            # Blender's file may be of photos of another size, made smaller since.
            said = level if used is None else _resized(level, taken)
            said = {**(_lens(level) if "distortion_params" in level else {}), **said}
            for key, other in _differences(said, taken, camera_type):
                found.setdefault(key, []).append((of, level.get(key, said[key]), other))
    sentences = {}
    for key, cases in found.items():
        (_, said, other), frames = cases[0], list(dict.fromkeys(of for of, _, _ in cases))
        sentences[key] = (
            f'{path} has "{key}" {json.dumps(said)} for {listing(frames, 2)}, where nerfstudio takes {other}. Correct '
            "or remove the wrong one."
        )
    return sentences


def _taken(meta: Fields, frame: Fields) -> Fields:
    """What nerfstudio's parser takes of a frame."""
    taken = {key: meta[key] if key in meta else frame[key] for key in INTRINSICS}
    # k4 alone does not count.
    shared = any(key in meta for key in ("k1", "k2", "k3", "p1", "p2", "distortion_params"))
    return {**taken, **_lens(meta if shared else frame)}


def _lens(fields: Fields) -> Fields:
    return dict(zip(LENS, fields.get("distortion_params") or [fields.get(key, 0.0) for key in LENS]))


def _resized(said: Fields, taken: Fields) -> Fields:
    """Fields with their lengths in pixels of the size that is taken."""
    scales = {key: taken[side] / (said.get(side) or taken[side]) for key, side in zip(INTRINSICS, "whwhwh")}
    return {key: value * scales[key] if key in scales else value for key, value in said.items()}


def _differences(said: Fields, taken: Fields, camera_type: int) -> Iterator[tuple[str, str]]:
    """Fields of a file or a frame that do not say what is taken, and what that is."""
    known = CAMERA_MODEL_TO_TYPE.get(str(said.get("camera_model")).upper())
    if "camera_model" in said and (known is None or known.value != camera_type):
        yield "camera_model", f"{CameraType(camera_type).name.lower()} cameras"
    if said.get("is_fisheye") and camera_type == CameraType.PERSPECTIVE.value:
        fisheye = '"camera_model": "OPENCV_FISHEYE" in transforms.json'
        yield "is_fisheye", f"perspective cameras (a fisheye lens is {fisheye})"
    angles = {}
    if camera_type == CameraType.PERSPECTIVE.value:
        pairs = zip(ANGLES, ("fl_x", "fl_y"), ("w", "h"))
        angles = {angle: 2 * math.atan(taken[side] / (2 * taken[focal])) for angle, focal, side in pairs}
    # A principal point near the corner may differ by as many pixels as one in the middle.
    least = {"cx": TOLERANCE * taken["w"] / 2, "cy": TOLERANCE * taken["h"] / 2}
    for key, value in {**dict.fromkeys(LENS, 0.0), **taken, **angles}.items():
        if key in said and isinstance(said[key], (int, float)):
            if not math.isclose(said[key], value, rel_tol=TOLERANCE, abs_tol=least.get(key, 1e-6)):
                yield key, f"{value:.6g}"


def has_times(path: Path) -> bool:
    """Whether frames of a JSON file have a time."""
    meta, _ = read_json(path)
    return any("time" in frame for frame in meta["frames"])
