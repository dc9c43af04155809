"""What the viewer shows of a scene besides the student: its experts, the baseline, and where they differ.

These layers are further outputs, which nerfstudio's own panel lets one choose, and wipe between, as colour and depth.
Only what is looked at is rendered, and a model is loaded when it is first asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence

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
"""Outputs of a model by its name, at the camera that is looked through; the student's is ``STUDENT``."""

STUDENT, BASELINE, EXPERTS, ROUTED = "student", "baseline", "experts", "experts, routed"
DISAGREEMENT = "disagreement"
FROM_EXPERTS, FROM_BASELINE = "student - experts", "student - baseline"
MAPS = (DISAGREEMENT, FROM_EXPERTS, FROM_BASELINE)
"""Layers of one channel, which the viewer colours by one of its colormaps."""
HINT = "Layers are among *Render Options*, *Output type*; *Split Screen* wipes between two."


class LayersPanel(ViewerControl):
    """Adds layers to what the viewer shows of a student, and says what keeps one of them from being shown.

    Args:
        manager: the data manager, which knows whose view a camera has.
        inverse_temperature: of the experts' blend.
    """

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
        found, baseline = teachers_of(run), baseline_of(run)
        experts = {name.replace("-", " ", 1): expert for name, expert in found.items()}
        runs = {name: expert for name, expert in experts.items() if expert is not None}
        gone = [name for name in experts if name not in runs]
        text = HINT if runs or baseline else "This student's experts and baseline are not here."
        if runs and gone:
            text += f" Not where they were: {', '.join(gone)}."
        with self.viser_server.gui.add_folder("Layers"):
            said = self.viser_server.gui.add_markdown(text)

        def tell(problem: str) -> None:
            now = f"**Not shown:** `{problem}`" if problem else text
            # Each assignment is a message to every browser.
            if said.content != now:
                said.content = now

        teachers = None
        if runs and not gone and self.grouped():
            groups = [expert.record.group or 1 for expert in runs.values()]
            teachers = partial(Ensemble, groups=groups, blend=self.manager.blend)
        layers = Layers(list(runs), teachers, self.inverse_temperature, baseline is not None)
        if baseline is not None:
            runs[BASELINE] = baseline
        layered = LayeredModel(viewer.pipeline.model, layers, runs, partial(_looked_at, viewer.control_panel), tell)
        viewer.get_model = lambda: layered

    def grouped(self) -> bool:
        """Whether cameras have groups."""
        try:
            return self.manager.partition is not None
        except PartitionError:  # the panel of the groups says so
            return False


class LayeredModel:
    """A model as the viewer takes it, with layers among its outputs. All else is the model's.

    Outputs that nobody looks at are listed, with another picture of as many channels in their place.

    Args:
        model: the student.
        layers: what there is to show besides.
        runs: of the models that they are made of besides the student.
        looked_at: says which outputs are looked at; the first is whose surfaces hide what the viewer draws behind them.
        tell: is told what keeps a layer from being shown, or nothing where all is well.
    """

    def __init__(
        self,
        model: Model,
        layers: Layers,
        runs: Dict[str, Run],
        looked_at: Callable[[], List[str]],
        tell: Callable[[str], None],
    ) -> None:
        self.model = model
        self.layers = layers
        self.runs = runs
        self.looked_at = looked_at
        self.tell = tell
        self.loaded: Dict[str, Model] = {STUDENT: model}
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
                done[name] = self.load(name).get_outputs_for_camera(camera, obb_box)
            return done[name]

        for name in self.looked_at():
            try:
                if name in self.layers.names:
                    shown[name] = self.layers.picture(name, rendered, camera)
                else:
                    shown.update(rendered(STUDENT))
            except (UserError, OSError) as error:
                problem = str(error)
                rendered(STUDENT)
        self.tell(problem)
        if not self.channels:
            # The list of outputs must not change: the viewer would forget what is wiped between.
            own = {name: picture.shape[-1] for name, picture in rendered(STUDENT).items()}
            self.channels = {**own, **{name: 1 if name in MAPS else 3 for name in self.layers.names}}
        first = next(iter(done.values()))
        outputs = {name: first["depth" if channels == 1 else "rgb"] for name, channels in self.channels.items()}
        return {**outputs, **shown}

    def load(self, name: str) -> Model:
        """One of the models.

        Raises:
            StageError: its files are gone or damaged.
        """
        if name not in self.loaded:
            self.loaded[name] = open_model(self.runs[name], self.model.device)
        return self.loaded[name]


@dataclass(frozen=True)
class Rendered:
    """What a model renders at the camera that is looked through, as a model."""

    name: str
    rendered: Render

    def get_outputs_for_camera(self, camera: Cameras, obb_box: Optional[OrientedBox] = None) -> Outputs:
        return self.rendered(self.name)


@dataclass(frozen=True)
class Layers:
    """The layers that can be made."""

    experts: Sequence[str]
    """Names of the experts."""
    teachers: Optional[Callable[..., Ensemble]]
    """Makes an ensemble of their models; None where cameras have no groups, or not all experts are there."""
    inverse_temperature: Callable[[], float]
    """Of the blend."""
    baseline: bool
    """Whether there is a baseline."""

    @property
    def names(self) -> List[str]:
        """Of all layers."""
        together = [DISAGREEMENT, FROM_EXPERTS, ROUTED, EXPERTS] if self.teachers else []
        return [*self.experts, *together, *([FROM_BASELINE, BASELINE] if self.baseline else [])]

    def picture(self, name: str, rendered: Render, camera: Cameras) -> Float[Tensor, "height width channels"]:
        """A layer, from what models render at a camera."""
        if name in (FROM_EXPERTS, FROM_BASELINE):
            other = self.picture(EXPERTS if name == FROM_EXPERTS else BASELINE, rendered, camera)
            return (rendered(STUDENT)["rgb"] - other).abs().mean(dim=-1, keepdim=True)
        if self.teachers is None or name not in (DISAGREEMENT, ROUTED, EXPERTS):
            return rendered(name)["rgb"]
        at = float("inf") if name == ROUTED else self.inverse_temperature()
        ensemble = self.teachers([Rendered(one, rendered) for one in self.experts], inverse_temperature=at)
        return ensemble.get_outputs_for_camera(camera)[DISAGREEMENT if name == DISAGREEMENT else "rgb"]


def teachers_of(run: Run) -> Dict[str, Run | None]:
    """The experts that a student learned from, as its record has them: ``expert-3``, or ``expert-3-2`` for the second
    of its group. None for one that is gone."""
    found = made_from(run)
    experts = {name: expert for name, expert in found.items() if name.startswith("expert-")}
    distilled = found.get("student")
    return experts if experts or distilled is None else teachers_of(distilled)


def baseline_of(run: Run) -> Run | None:
    """A finished baseline of a student's photos in its scene's folder: of the student's name, or else the latest."""
    runs = find(scene_of(run), MethodName.parse(run.record.method).beside("baseline"))
    usable = (one for one in runs if why_not(one, ("baseline",), run.record) is None)
    return min(usable, key=lambda one: one.folder.name != run.folder.name, default=None)


def _looked_at(panel: Any) -> List[str]:
    """Names of the outputs that the viewer's panel has chosen, the one on the left first."""
    return [panel.output_render, *([panel.split_output_render] if panel.split else [])]
