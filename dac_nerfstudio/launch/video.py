"""A short flight with the student, along the test cameras."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

from dac_nerfstudio.files import atomic_write, read_json, write_json
from dac_nerfstudio.launch.messages import Report, Tell
from dac_nerfstudio.launch.plan import Job, Plan
from dac_nerfstudio.runs.layout import report_folder, video_path
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.runs.reopen import recorded_config, reopen

STEPS = 3
"""Pictures from one test camera to the next."""
FRAME_RATE = 15


def video(job: Job, plan: Plan, tell: Tell) -> None:
    """Render the flight, unless that was done."""
    from nerfstudio.cameras.camera_paths import get_interpolated_camera_path
    from nerfstudio.scripts.render import _render_trajectory_video as render

    path = video_path(plan.scene_dir)
    if has_video(job, plan):
        tell(Report("kept", text=str(path)))
        return
    tell(Report("rendering"))
    # As `ns-render interpolate`, which would load config.yml, and so run it.
    request = plan.request
    pipeline = reopen(recorded_config(job.run_dir, request.data, request.device), job.run_dir)
    views = pipeline.datamanager.eval_dataset
    if views is None or len(views) < 2:
        tell(Report("done", text="none, as it would be a flight along the test views, of which there are not two"))
        return
    cameras = views.cameras
    flight = get_interpolated_camera_path(cameras=cameras, steps=STEPS, order_poses=False)
    with atomic_write(path) as temporary:
        render(pipeline, flight, temporary, ["rgb"], seconds=STEPS * len(cameras) / FRAME_RATE)
    write_json(_record(plan), _made_from(job))
    tell(Report("done", text=str(path)))


def has_video(job: Job, plan: Plan) -> bool:
    """Whether there is a video, made from the run as it is now."""
    path = video_path(plan.scene_dir)
    there = path.exists() and path.stat().st_size > 0
    return there and read_json(_record(plan)) == _made_from(job)


def _made_from(job: Job) -> Dict[str, Any]:
    """What tells the run that a video shows from one of the same settings."""
    stage = Stage.load(job.run_dir)
    return {"stage": stage.fingerprint, "photos": stage.photos, "checkpoint": stage.checkpoint}


def _record(plan: Plan) -> Path:
    """Where it is kept."""
    return report_folder(plan.scene_dir) / "video.json"
