"""Learning curves, from tensorboard files whose points are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dac_nerfstudio.report.charts import curves_chart
from dac_nerfstudio.report.curves import Course, Curve, courses, read_curves
from dac_nerfstudio.report.runs import read_scene

RUN = "quick-seed7"


def test_points_are_read_with_steps_and_seconds(log_curves: Callable, tmp_path: Path) -> None:
    log_curves(tmp_path, [(0, 0.0, 10.0), (50, 4.5, 15.0), (100, 9.0, 20.0)])
    curves = read_curves(tmp_path)
    assert set(curves) == {"train_psnr", "train_loss"}
    curve = curves["train_psnr"]
    np.testing.assert_allclose(curve.steps, [0, 50, 100])
    np.testing.assert_allclose(curve.seconds, [0, 4.5, 9])
    np.testing.assert_allclose(curve.values, [10, 15, 20])


def test_an_interrupted_training_is_one_curve_without_the_pause(log_curves: Callable, tmp_path: Path) -> None:
    log_curves(tmp_path, [(0, 0.0, 10.0), (50, 5.0, 11.0), (100, 10.0, 12.0)])
    # Gone on with, an hour later, from a checkpoint at step 80.
    log_curves(tmp_path, [(90, 0.0, 20.0), (140, 5.0, 21.0)], begun=4600.0, suffix=".later")
    first, second = sorted(tmp_path.iterdir())
    second.rename(tmp_path / f"{first.name[:-1]}9.later")
    curve = read_curves(tmp_path)["train_psnr"]
    np.testing.assert_allclose(curve.steps, [0, 50, 90, 140])
    np.testing.assert_allclose(curve.values, [10, 11, 20, 21])
    np.testing.assert_allclose(curve.seconds, [0, 5, 5, 10])


@pytest.mark.parametrize("content", [b"", b"no events", b"\x18\x00\x00\x00\x00\x00\x00\x00\xa3\x7f"], ids=repr)
def test_a_broken_file_has_no_curves(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1.host").write_bytes(content)
    assert read_curves(tmp_path) == {}


def test_a_file_that_breaks_off_has_what_came_before(log_curves: Callable, tmp_path: Path) -> None:
    log_curves(tmp_path, [(step, float(step), 10.0) for step in range(20)])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    assert 15 <= len(read_curves(tmp_path)["train_psnr"].steps) < 20


def test_the_student_is_distillation_followed_by_fine_tuning(maker: Callable, log_curves: Callable) -> None:
    made = maker().everything()
    log_curves(made.run_dir("dac-distill"), [(0, 0.0, 10.0), (40, 8.0, 12.0)])
    log_curves(made.run_dir("dac-finetune"), [(0, 0.0, 20.0), (90, 20.0, 22.0)])
    found, remarks = courses(read_scene(made.folder, RUN), processor=False)
    (student,) = found
    before, after = (part["train_psnr"] for part in student.parts)
    # Two experts of 100 steps and 20 seconds each come first.
    np.testing.assert_allclose(before.steps, [200, 240])
    np.testing.assert_allclose(before.seconds, [40, 48])
    # Distillation has 50 steps and took 12 seconds.
    np.testing.assert_allclose(after.steps, [250, 340])
    np.testing.assert_allclose(after.seconds, [52, 72])
    assert student.changes == (250.0, 52.0)
    assert [remark.split(":")[0] for remark in remarks] == [
        f"There are no curves of {name}" for name in ("expert 1", "expert 2", "baseline")
    ]


def test_stages_that_share_a_processor_are_timed_by_it(maker: Callable, log_curves: Callable) -> None:
    made = maker().everything()
    for method, group, seconds in (("dac-expert", 1, 11.0), ("dac-expert", 2, 9.0), ("dac-distill", None, 6.0)):
        made.train(method, group, processor_seconds=seconds)
    log_curves(made.run_dir("dac-expert", 2), [(0, 0.0, 10.0), (90, 18.0, 12.0)])
    log_curves(made.run_dir("dac-distill"), [(0, 0.0, 10.0), (40, 8.0, 12.0)])
    (expert, student), _ = courses(read_scene(made.folder, RUN), processor=True)
    # 9 of 20 seconds, and 6 of 12 after both experts.
    np.testing.assert_allclose(expert.parts[0]["train_psnr"].seconds, [0, 18 * 9 / 20])
    np.testing.assert_allclose(student.parts[0]["train_psnr"].seconds, [20, 24])
    assert "seconds of CPU time" in curves_chart([expert, student], processor=True)


def test_the_chart_has_a_line_per_training_and_is_the_same_every_time(maker: Callable, log_curves: Callable) -> None:
    made = maker().everything()
    for group in (1, 2):
        log_curves(made.run_dir("dac-expert", group), [(0, 0.0, 10.0), (90, 20.0, 12.0)])
    log_curves(made.run_dir("dac-baseline"), [(0, 0.0, 10.0), (90, 20.0, 12.0)])
    found, _ = courses(read_scene(made.folder, RUN), processor=False)
    chart = curves_chart(found, processor=False)
    assert chart.startswith("<svg") and chart.endswith("</svg>")
    for label in ("expert 1", "expert 2", "baseline", "seconds", "training loss"):
        assert label in chart
    assert "PSNR of evaluation rays" not in chart
    assert chart == curves_chart(found, processor=False)


def test_a_single_point_is_seen() -> None:
    def chart(points: int) -> str:
        curve = Curve(*np.ones((3, points)))
        return str(curves_chart([Course("baseline", 0, ({"train_psnr": curve},))], processor=False))

    assert chart(1).count("<use") > chart(2).count("<use")
