"""The commands that make a scene's runs again, from what the run folders recorded."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Dict, List, Sequence

from dac_nerfstudio.files import read_config
from dac_nerfstudio.presets import Recipe, recipe_of
from dac_nerfstudio.report.runs import BASELINE, EXPERT, LONG, METHODS, Run, SceneRuns
from dac_nerfstudio.runs.layout import CONFIG, flags_path


def commands(scene: SceneRuns) -> List[str]:
    """What to type for the same runs, as far as it was recorded; then how to score and to look at the student, and at
    all learning curves."""
    runs = [run for method in METHODS if method != LONG for run in scene.runs.get(method, [])]
    recorded = {run.folder: read_config(run.folder / CONFIG) for run in runs}
    first = next((config for config in recorded.values() if config.get("data")), {})
    lines = []
    recipe = recipe_of(scene.name)
    if recipe is not None and first:
        named = {
            name: next((config[name] for config in recorded.values() if config.get(name)), ())
            for name in ("experts", "teachers")
        }
        lines.append(_run_command(scene, *recipe, first, runs[0], named))
    student = next((run for run in reversed(runs) if recorded[run.folder] and run.stage.complete), None)
    if student is not None:
        config = _folder(recorded[student.folder], student) / student.folder.relative_to(scene.folder) / CONFIG
        lines += [shlex.join((command, "--load-config", str(config))) for command in ("ns-eval", "ns-viewer")]
    if first:
        lines.append(shlex.join(("tensorboard", "--logdir", str(_folder(first, runs[0])))))
    return lines


def _run_command(
    scene: SceneRuns, recipe: Recipe, seed: int, config: Dict[str, Any], run: Run, named: Dict[str, Sequence[str]]
) -> str:
    asked = {**scene.partition.settings, **scene.partition.asked}
    words = ["dac", "run", "--data", str(config["data"]), "--preset", recipe.name, "--seed", str(seed)]
    if recipe.kinds:
        words += ["--experts", ",".join(recipe.kinds), "--student", recipe.student]
    # Overlap and softness exclude each other; no softness has to be said, as a preset may have some.
    for name in ("groups", "strategy", "similarity", "overlap" if asked["overlap"] else "softness"):
        if asked[name] is not None:
            words += [f"--{name}", f"{asked[name]:.15g}" if isinstance(asked[name], float) else str(asked[name])]
    downscale = run.stage.settings.get("data", {}).get("downscale_factor")
    if downscale is not None:
        words += ["--downscale", str(downscale)]
    if run.stage.settings.get("skip_missing"):
        words.append("--skip-missing")
    baseline = "total" if scene.runs.get(LONG) else "yes" if scene.runs.get(BASELINE) else "no"
    words += ["--baseline", baseline]
    for name, folders in named.items():
        if folders and not scene.runs.get(EXPERT):
            words += [f"--{name}", *map(str, folders)]
    folder = _folder(config, run)
    if flags_path(scene.folder, scene.name).exists():
        words += ["--config", str(flags_path(folder, scene.name))]
    words += ["--output-dir", str(folder.parent), "--scene", folder.name]
    return shlex.join(words)


def _folder(config: Dict[str, Any], run: Run) -> Path:
    """The scene's folder of results as a run's own record has it: where it lay when the run was made."""
    return Path(str(config.get("output_dir", "outputs")), run.stage.scene)
