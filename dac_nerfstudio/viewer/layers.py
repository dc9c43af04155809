"""What the viewer shows of a scene besides the student: its teachers, the baseline, and where they differ.

These layers are further outputs, which nerfstudio's own panel lets one choose, and wipe between, as colour and depth.
Only what is looked at is rendered, and a model is loaded when it is first asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Optional

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.models.base_model import Model
from nerfstudio.viewer.viewer_elements import ViewerControl
from torch import Tensor

from dac_nerfstudio.errors import PartitionError, StageError, UserError
from dac_nerfstudio.naming import MethodName
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.runs.store import Run, find, made_from, open_model, scene_of, why_not
from dac_nerfstudio.teachers.ensemble import Ensemble

Outputs = Dict[str, Float[Tensor, "height width channels"]]
"""A model's pictures of one camera, by name."""
Render = Callable[[str], Outputs]
"""Outputs of a model by its name, at the camera that is looked through."""

STUDENT, BASELINE, EXPERTS, TEACHERS, DISAGREEMENT = "student", "baseline", "experts", "teachers", "disagreement"
LESS, ROUTED = "student - ", "experts, routed"
HINT = "Layers are among *Render Options*, *Output type*; *Split Screen* wipes between two."


class LayersPanel(ViewerControl):
    """Adds layers to what the viewer shows of a student, and says what keeps one of them from being shown."""

    def __init__(self, manager: Any, inverse_temperature: Callable[[], float]) -> None:
        self.manager = manager
        self.inverse_temperature = inverse_temperature

    def _setup(self, viewer: Any) -> None:
        super()._setup(viewer)
        folder = viewer.log_filename.parent
        try:
            # Before its first checkpoint a training has no record in its folder.
            run = Run(folder, Stage.load(folder) if viewer.trainer is None else viewer.trainer.stage)
            if MethodName.parse(run.record.method).stage not in ("distill", "finetune"):
                return
        except StageError:
            return
        found = {name.replace("-", " ", 1): teacher for name, teacher in teachers_of(run).items()}
        runs = {name: teacher for name, teacher in found.items() if teacher is not None}
        gone = ", ".join(name for name in found if name not in runs)
        taught = "teacher 1" in found
        layers = list(runs)
        if runs and not gone and (taught or self.grouped()):
            together, routed = (TEACHERS, []) if taught else (EXPERTS, [ROUTED])
            layers += [DISAGREEMENT, LESS + together, *routed, together]
        groups = [1 if taught else teacher.record.group or 1 for teacher in runs.values()]

        def mixed(rendered: Render, routed: bool) -> Ensemble:
            """The teachers as one; finished runs count alike everywhere."""
            models = [SimpleNamespace(get_outputs_for_camera=lambda *_, name=name: rendered(name)) for name in found]
            blend = (lambda poses, at: torch.ones(len(poses), 1)) if taught else self.manager.blend
            return Ensemble(models, groups, blend, float("inf") if routed else self.inverse_temperature())

        baseline = baseline_of(run)
        if baseline is not None:
            runs[BASELINE] = baseline
            layers += [LESS + BASELINE, BASELINE]
        text = HINT if runs else "This student's experts and baseline are not here."
        if gone and taught:
            text += f" Not shown, as they are gone, of other photos or of another project's method: {gone}."
        elif gone and runs:
            text += f" Not where they were: {gone}."
        with self.viser_server.gui.add_folder("Layers"):
            said = self.viser_server.gui.add_markdown(text)

        def tell(problem: str) -> None:
            now = f"**Not shown:** `{problem}`" if problem else text
            # Each assignment is a message to every browser.
            if said.content != now:
                said.content = now

        def looked_at() -> List[str]:
            panel = viewer.control_panel
            return [panel.output_render, *([panel.split_output_render] if panel.split else [])]

        layered = LayeredModel(viewer.pipeline.model, runs, layers, mixed, looked_at, tell)
        viewer.get_model = lambda: layered

    def grouped(self) -> bool:
        """Whether cameras have groups."""
        try:
            return self.manager.partition is not None
        except PartitionError:  # the panel of the groups says so
            return False


@dataclass(eq=False)
class LayeredModel:
    """A model as the viewer takes it, with layers among its outputs. All else is the model's.

    Outputs that nobody looks at are listed, with another picture of as many channels in their place.
    """

    model: Model
    runs: Dict[str, Run]
    """By the names of the other models that layers are made of."""
    layers: List[str]
    mixed: Callable[[Render, bool], Ensemble]
    """Makes one teacher of several, from what they render at the camera that is looked through."""
    looked_at: Callable[[], List[str]]
    """Says which outputs are looked at; the first is whose surfaces hide what the viewer draws behind them."""
    tell: Callable[[str], None]
    """Is told what keeps a layer from being shown, or nothing where all is well."""

    def __post_init__(self) -> None:
        self.loaded: Dict[str, Model] = {STUDENT: self.model}
        self.channels: Dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: Cameras, obb_box: Optional[OrientedBox] = None) -> Outputs:
        """The student's outputs and the layers."""
        problem = ""
        done: Dict[str, Outputs] = {}
        shown: Outputs = {}

        def rendered(name: str) -> Outputs:
            if name not in done:
                if name not in self.loaded:
                    self.loaded[name] = open_model(self.runs[name], self.model.device)
                done[name] = self.loaded[name].get_outputs_for_camera(camera, obb_box)
            return done[name]

        for name in self.looked_at():
            try:
                if name in self.layers:
                    shown[name] = self.picture(name, rendered, camera)
                else:
                    shown.update(rendered(STUDENT))
            except (UserError, OSError) as error:
                problem = str(error)
                rendered(STUDENT)
        self.tell(problem)
        if not self.channels:
            # The list of outputs must not change: the viewer would forget what is wiped between.
            own = {name: picture.shape[-1] for name, picture in rendered(STUDENT).items()}
            maps = [name for name in self.layers if name == DISAGREEMENT or name.startswith(LESS)]
            self.channels = {**own, **{name: 1 if name in maps else 3 for name in self.layers}}
        first = next(iter(done.values()))
        outputs = {name: first["depth" if channels == 1 else "rgb"] for name, channels in self.channels.items()}
        return {**outputs, **shown}

    def picture(self, name: str, rendered: Render, camera: Cameras) -> Float[Tensor, "height width channels"]:
        """A layer, from what models render at a camera. The viewer colours those of one channel."""
        if name.startswith(LESS):
            other = self.picture(name.removeprefix(LESS), rendered, camera)
            return (rendered(STUDENT)["rgb"] - other).abs().mean(dim=-1, keepdim=True)
        if name in self.runs:
            return rendered(name)["rgb"]
        outputs = self.mixed(rendered, name == ROUTED).get_outputs_for_camera(camera)
        return outputs[DISAGREEMENT if name == DISAGREEMENT else "rgb"]


def teachers_of(run: Run) -> Dict[str, Run | None]:
    """The runs that a student learned from, as its record has them: an expert as ``expert-3``, or ``expert-3-2`` for
    the second of its group, any finished run as ``teacher-1``. None for one that is gone, of other photos, whose frame
    may be another, or of another project's method, whose code opens it."""
    found = made_from(run)
    teachers = {name: one for name, one in found.items() if name.startswith(("expert-", "teacher-"))}
    distilled = found.get("student")
    if not teachers and distilled is not None:
        return teachers_of(distilled)
    return {name: one if one and run.record.has_data_of(one.record) else None for name, one in teachers.items()}


def baseline_of(run: Run) -> Run | None:
    """A finished baseline of a student's photos in its scene's folder: of the student's name, or else the latest."""
    runs = find(scene_of(run), MethodName.parse(run.record.method).beside("baseline"))
    usable = (one for one in runs if why_not(one, ("baseline",), run.record) is None)
    return min(usable, key=lambda one: one.folder.name != run.folder.name, default=None)
