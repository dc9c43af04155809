"""A short flight with the student past the test cameras, and what writes videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import atomic_write, read_json, write_json
from dac_nerfstudio.launch.plan import Job, Plan, Report, Tell
from dac_nerfstudio.media import provide_ffmpeg
from dac_nerfstudio.runs.layout import video_path
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.runs.reopen import recorded_config, reopen

FRAMES, RATE = 120, 15
"""Most frames of the flight, and frames per second."""
KEYS = 24
"""Most cameras that a flight passes: more would make it shake with every photographer's step."""
STEPS = 16
"""Poses between two of them, of which frames are chosen."""


def video(job: Job, plan: Plan, tell: Tell) -> None:
    """Render the flight, unless that was done."""
    path = video_path(plan.scene_dir)
    if has_video(job, plan):
        tell(Report("kept", text=str(path)))
        return
    request = plan.request
    pipeline = reopen(recorded_config(job.run_dir, request.data, request.device), job.run_dir)
    views = pipeline.datamanager.eval_dataset
    if views is None or len(views) < 2:
        tell(Report("done", text="none: a flight needs two test views or more"))
        return
    poses = flight(views.cameras.camera_to_worlds, min(FRAMES, 3 * len(views)))
    camera = views.cameras[:1].to(pipeline.device)

    def images() -> Iterator[np.ndarray]:
        for number, pose in enumerate(poses):
            tell(Report("rendering", number, len(poses)))
            camera.camera_to_worlds = pose[None].to(pipeline.device)
            yield as_bytes(pipeline.model.get_outputs_for_camera(camera)["rgb"])

    save_mp4(images(), path, RATE)
    write_json(path.with_suffix(".json"), _made_from(job))
    tell(Report("done", text=str(path)))


def flight(camera_to_worlds: Float[Tensor, "views 3 4"], frames: int) -> Float[Tensor, "frames 3 4"]:
    """Poses on a round trip past given ones, from each to the nearest that is left, at an even speed."""
    from nerfstudio.cameras.camera_utils import get_interpolated_poses_many, get_ordered_poses_and_k

    poses = camera_to_worlds.cpu()
    lenses = torch.eye(3).expand(len(poses), 3, 3)
    poses, _ = get_ordered_poses_and_k(poses, lenses)
    poses = poses[np.linspace(0, len(poses) - 1, min(len(poses), KEYS)).round()]
    around = torch.cat((poses, poses[:1]))
    path, _ = get_interpolated_poses_many(around, torch.eye(3).expand(len(around), 3, 3), steps_per_transition=STEPS)
    # A turn on the spot has no length, and takes time all the same.
    steps = (path[1:] - path[:-1]).flatten(1).norm(dim=1).numpy() + 1e-9
    length = np.concatenate(([0.0], np.cumsum(steps)))
    return path[np.searchsorted(length, np.arange(frames) * length[-1] / frames)]


def as_bytes(rgb: Float[Tensor, "height width 3"]) -> np.ndarray:
    """Colours in [0, 1] as bytes [height, width, 3]."""
    return (255 * rgb.clamp(0, 1) + 0.5).to(torch.uint8).cpu().numpy()


def save_mp4(frames: Iterable[np.ndarray], path: Path, rate: float) -> None:
    """Write frames, bytes [height, width, 3] each and of one size, as a video that every player shows (H.264, yuv420p).

    Raises:
        StageError: there is no ffmpeg for this machine, or it fails.
    """
    import mediapy

    provide_ffmpeg()
    # yuv420p keeps colours at half the resolution: sides have to be even.
    even = (np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge") for frame in frames)
    try:
        with atomic_write(path) as temporary:
            mediapy.write_video(temporary, even, fps=rate, encoded_format="yuv420p")
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise StageError(
            f"{path} cannot be written ({reason}). It takes ffmpeg (pip install imageio-ffmpeg) and room on the disk."
        ) from None


def has_video(job: Job, plan: Plan) -> bool:
    """Whether there is a video, made from the run as it is now."""
    path = video_path(plan.scene_dir)
    there = path.exists() and path.stat().st_size > 0
    return there and read_json(path.with_suffix(".json")) == _made_from(job)


def _made_from(job: Job) -> Dict[str, Any]:
    """What tells the run that a video shows from one of the same settings; kept beside the video."""
    stage = Stage.load(job.run_dir)
    return {"stage": stage.fingerprint, "photos": stage.photos, "checkpoint": stage.checkpoint}
