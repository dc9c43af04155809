"""The comparison with other methods: what is scored and timed, and that the page says who is ahead."""

import importlib
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import numpy as np
import psutil
import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from PIL import Image

from dac_nerfstudio.demo import make_demo_scene
from dac_nerfstudio.errors import StageError
from dac_nerfstudio.presets import PRESETS

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))
peers = importlib.import_module("peers")


def test_all_stages_together_have_the_steps_that_the_baseline_has() -> None:
    assert peers.scaled(PRESETS["quick"], 24000).steps == PRESETS["quick"].steps
    assert peers.scaled(PRESETS["quick"], 2400).steps == {"expert": 400, "distill": 80, "finetune": 720}
    # The paper's recipe leaves its steps to the methods.
    assert peers.scaled(PRESETS["reference"], 1800).steps == {"expert": 300, "distill": 100, "finetune": 500}


@pytest.mark.parametrize(("output", "behind"), [("rgb", "white"), ("rgb_fine", "white"), ("rgb", None)])
def test_a_score_is_the_mean_over_views_on_white_of_the_pixels_asked_for(
    output: str, behind: Optional[str], tmp_path: Path
) -> None:
    scene = make_demo_scene(tmp_path / "demo", size=8, train=2, val=2, test=2)
    asked = []

    def render(rays: Any) -> dict[str, torch.Tensor]:
        asked.append(tuple(rays.shape))
        return {output: torch.full((*rays.shape, 3), 0.25)}

    model = SimpleNamespace(get_outputs_for_camera_ray_bundle=render)
    pipeline = SimpleNamespace(model=model, device="cpu", eval=lambda: None, train=lambda: None)
    expected = []
    for frame in json.loads((scene / "transforms_test.json").read_text())["frames"]:
        pixels = np.asarray(Image.open(scene / f"{frame['file_path']}.png"), float)[::3, ::3] / 255
        on_white = pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]
        expected.append(-10 * np.log10(np.square(on_white - 0.25).mean()))
    test = BlenderDataParserConfig(data=scene, alpha_color=behind).setup().get_dataparser_outputs("test")
    assert peers.scorer(test, 3)(pipeline) == pytest.approx(np.mean(expected), abs=1e-4)
    assert asked == [(3, 3), (3, 3)]


def test_only_what_is_done_between_start_and_stop_is_counted() -> None:
    def work(seconds: float) -> None:
        begun = time.process_time()
        while time.process_time() - begun < seconds:
            pass

    spent = peers.Spent(cuda=False)
    for _ in range(2):
        work(0.2)
        spent.start()
        work(0.1)
        time.sleep(0.05)
        spent.stop()
    # The processor's time, of 0.6 seconds and as coarse as the machine counts it.
    assert spent.seconds == pytest.approx(0.2, abs=0.15)


@pytest.fixture(params=["blender", "colmap"])
def options(request: Any, tmp_path: Path) -> Any:
    """A bounded scene and a real one, by their files' names alone."""
    if request.param == "blender":
        (tmp_path / "transforms_train.json").touch()
    else:
        (tmp_path / "colmap/sparse/0").mkdir(parents=True)
        for name in ("cameras.bin", "images.bin", "points3D.bin"):
            (tmp_path / "colmap/sparse/0" / name).touch()
        (tmp_path / "images_2").mkdir()
    return peers.Options(data=tmp_path, downscale=2 if request.param == "colmap" else None, device="cpu")


@pytest.mark.parametrize("name", ["nerfacto", "nerfacto-tcnn", "instant-ngp", "splatfacto"])
def test_a_method_reads_the_scene_and_is_set_for_its_kind(name: str, options: Any) -> None:
    from dac_nerfstudio.launch.commands import parse

    config: Any = parse(peers.command(options, peers.PEERS[name], options.data))
    parser = config.pipeline.datamanager.dataparser
    assert type(parser).__name__ == ("ColmapDataParserConfig" if options.real else "BlenderDataParserConfig")
    assert not options.real or (parser.downscale_factor, str(parser.colmap_path)) == (2, "colmap/sparse/0")
    assert (config.pipeline.model.background_color == "white") is not options.real
    assert config.steps_per_save == peers.NEVER


def test_real_scenes_are_for_those_who_are_for_them(options: Any) -> None:
    bounded_only = {"tensorf", "vanilla-nerf"}
    everybody = {"nerfacto", "naive", "baseline", "student", *bounded_only}
    assert set(options.chosen()) == (everybody - bounded_only if options.real else everybody)
    with pytest.raises(StageError, match="There is no peer nerfakto; choose from nerfacto, tensorf"):
        replace(options, peers=("nerfacto", "nerfakto")).chosen()


def test_instant_ngp_is_set_as_nerfstudio_sets_it_for_bounded_scenes() -> None:
    from nerfstudio.configs.method_configs import method_configs

    ours = replace(method_configs["instant-ngp"].pipeline.model)
    for name, value in peers.INSTANT_NGP.items():
        setattr(ours, name.rpartition(".")[2].replace("-", "_"), value)
    theirs = replace(method_configs["instant-ngp-bounded"].pipeline.model, background_color="white")
    assert ours == theirs


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_training_ends_with_the_process_that_asked_for_it(tmp_path: Path) -> None:
    """Were it not so, a killed comparison would go on for minutes, and slow down the next one."""
    program = tmp_path / "comparison.py"
    program.write_text(
        f"""
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
sys.path.append({str(ROOT / "benchmarks")!r})

def work():
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    from peers import end_with_parent
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=end_with_parent) as pool:
        pool.submit(work).result()
"""
    )
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) as comparison:
        assert comparison.stdout is not None
        worker = psutil.Process(int(comparison.stdout.readline()))
        comparison.kill()
        assert not psutil.wait_procs([worker], timeout=10)[1]


def invented() -> dict[str, Any]:
    """Results in which one is ahead of the student, one behind it, and one did not train."""

    def curve(*psnrs: float, begin: float = 0.0) -> dict[str, Any]:
        points = [
            {"step": 10 * number, "seconds": begin + 7.5 * 2**number, "psnr": psnr} for number, psnr in enumerate(psnrs)
        ]
        return {"points": points}

    scene = {
        "machine": {"device": "A processor"},
        "threads": 1,
        "settings": {"minutes": 1, "stride": 2, "preset": "demo", "seed": 42},
        "size": [100, 80],
        "peers": {
            "student": curve(20.0, 21.0, begin=40.0),
            "baseline": curve(15.0, 20.0, 24.0, 24.5),
            "nerfacto": curve(10.0, 11.0, 12.0, 13.0),
            "tensorf": {"error": "RuntimeError: no"},
        },
    }
    return {"scenes": {"castle, cpu": scene}}


def test_the_page_says_who_is_ahead_and_when() -> None:
    lines = peers.page(invented()).splitlines()
    rows = [line for line in lines if line.startswith("| ") and "---" not in line]
    assert rows == [
        "| PSNR | after 0:15 | after 0:30 | in the end | steps | time |",
        "| K-Planes (dac-baseline) | 20.00 | 24.00 | 24.50 | 30 | 1:00 |",
        "| Divide and Conquer, all stages | – | – | 21.00 | 10 | 0:55 |",
        "| nerfacto, PyTorch | 11.00 | 12.00 | 13.00 | 30 | 1:00 |",
    ]
    ahead = "**After 0:55 ahead of the student, in dB: K-Planes (dac-baseline) (+3.42).**"
    assert f"{ahead} Behind the student: nerfacto, PyTorch (−8.17)." in lines
    assert "TensoRF did not train here: RuntimeError: no" in lines
    assert any(
        line.startswith("Not run here: NeRF, K-Planes of stock parts, nerfacto, tiny-cuda-nn,") for line in lines
    )
    assert any("every 2nd pixel of every 2nd row of all test views of 100x80" in line for line in lines)


@pytest.mark.parametrize(("moment", "psnr"), [(7, None), (7.5, 15.0), (22.5, 22.0), (60, 24.5), (70, 24.5)])
def test_a_score_in_between_is_interpolated(moment: float, psnr: Optional[float]) -> None:
    points = invented()["scenes"]["castle, cpu"]["peers"]["baseline"]["points"]
    assert peers.psnr_at(points, moment) == psnr


def test_the_page_in_docs_is_what_its_results_give() -> None:
    results = json.loads((ROOT / "docs" / "peers.json").read_text("utf8"))
    assert (ROOT / "docs" / "peers.md").read_text("utf8") == peers.page(results)
