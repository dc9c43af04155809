"""How well uncertainty foretells the error: models' disagreement beside Bayes' Rays (arXiv 2309.03185).

Trains two nerfacto and two K-Planes with the fair study's settings, 4,000 steps each, and prints two scores by absolute
colour error, means of the test views: `ause` (0 is best) and the rank correlation (1 is best), first of the models'
averaged picture, then of the first nerfacto. `ause` alone flatters an order worse than random, for it divides by the
curve's peak. With a clone of Bayes' Rays its own scripts compute the uncertainty of the first nerfacto.

    python benchmarks/uncertainty.py --scene bonsai-25 --bayes-rays ../BayesRays
"""

from __future__ import annotations

import importlib.metadata
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import Optional

import fair
import numpy as np
import torch
import tyro

from dac_nerfstudio.runs.reopen import recorded_config, reopen
from dac_nerfstudio.training.ensemble import ause

RAYS, STEPS = 4096, 125
"""Of Bayes' Rays: rays of a step, nerfacto's default, and steps, fewer than theirs, as pictures are small."""
LEVELS = (6, 8)
"""Binary logarithms of its grid's cells along a side: 8 is its default, 6 suits small pictures."""


def their_uncertainty(source: Path, study: fair.Study, run: fair.Run, level: int) -> np.ndarray:
    """Uncertainty of a finished nerfacto at the test views, [views, height, width]."""
    sys.path.append(str(source))
    # They ask it for nerfstudio's version alone, and setuptools no longer has it.
    sys.modules["pkg_resources"] = SimpleNamespace(get_distribution=importlib.metadata.distribution)  # type: ignore
    from bayesrays.scripts import output_uncertainty, uncertainty

    config = recorded_config(run.folder, study.data, "cpu")
    config.pipeline.datamanager.train_num_rays_per_batch = RAYS
    pipeline = reopen(config, run.folder)
    model = pipeline.model.requires_grad_(False)
    for grid in model.grids:
        grid._forward_pre_hooks.clear()  # ours cut the gradient of positions, which their Hessian is made of
    uncertainty.eval_setup = lambda path: (config, pipeline, path, 0)
    file = run.folder / "hessian.npy"
    uncertainty.ComputeUncertainty(load_config=run.folder, output_path=file, lod=level, iters=STEPS).main()
    model.hessian, model.lod, model.N = torch.from_numpy(np.load(file)), level, RAYS * STEPS
    model.filter_out = model.white_bg = model.black_bg = False
    model.get_uncertainty = MethodType(output_uncertainty.get_uncertainty, model)
    model.get_outputs = MethodType(output_uncertainty.get_output_fn(model), model)
    parser = replace(config.pipeline.datamanager.dataparser, data=study.data).setup()
    cameras = parser.get_dataparser_outputs(split="test").cameras
    views = (model.get_outputs_for_camera(cameras[view : view + 1]) for view in range(len(cameras)))
    return np.stack([view["uncertainty"][..., 0].numpy() for view in views])


def scores(uncertainty: np.ndarray, error: np.ndarray) -> str:
    """Means over views of `ause` and of the rank correlation."""
    pairs = list(zip(torch.from_numpy(uncertainty).flatten(1), torch.from_numpy(error).flatten(1)))
    ranks = [torch.stack(pair).argsort(dim=1, stable=True).argsort(dim=1).double() for pair in pairs]
    correlation = np.mean([float(torch.corrcoef(rank)[0, 1]) for rank in ranks])
    return f"{np.mean([ause(*pair) for pair in pairs]):.3f} {correlation:6.3f}"


def main(scene: str = "bonsai-25", bayes_rays: Optional[Path] = None, data: Path = Path("data")) -> None:
    torch.set_num_threads(1)
    study = fair.Study(fair.Options("study", data=data), scene)
    nerfacto = study.found.get("baseline_nerfacto") or asdict(fair.NerfactoSettings.first(study.scene))
    kinds = fair.NerfactoSettings(**nerfacto), fair.KPlanesSettings(**{**study.found["baseline"], "steps": 4000})
    runs = [study.baseline(settings, seed) for settings in kinds for seed in (1, 11)]
    photos, pictures = runs[0].pictures["test_photos"], np.stack([run.pictures["test"] for run in runs])

    def row(label: str, uncertainty: np.ndarray, picture: np.ndarray = pictures[0]) -> None:
        errors = [np.abs(one - photos).mean(axis=-1) for one in (picture, pictures[0])]
        print(f"{label:24}", *(scores(uncertainty.astype(np.float32), error) for error in errors), sep="  ", flush=True)

    for label, chosen in {"two nerfacto": [0, 1], "one of each": [0, 2], "two of each": [0, 1, 2, 3]}.items():
        row(label, pictures[chosen].std(axis=0).mean(axis=-1), pictures[chosen].mean(axis=0))
    row("gradient of the picture", np.sqrt(sum(np.square(g).sum(-1) for g in np.gradient(pictures[0], axis=(1, 2)))))
    row("random", np.random.default_rng(0).random(photos.shape[:3]))
    if bayes_rays:
        for level in LEVELS:
            row(f"Bayes' Rays, level {level}", their_uncertainty(bayes_rays, study, runs[0], level))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
