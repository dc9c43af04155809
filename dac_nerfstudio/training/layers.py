"""What the viewer shows of a scene besides the student: its experts, the baseline, and where they differ.

These layers are further outputs, which nerfstudio's own panel lets one choose, and wipe between, as colour and depth.
Only what is looked at is rendered, and a model is loaded when it is first asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.viewer.viewer_elements import ViewerControl
from torch import Tensor

from dac_nerfstudio.errors import PartitionError, StageError, UserError
from dac_nerfstudio.kplanes.model import KPlanesModel
from dac_nerfstudio.naming import MethodName
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.teachers.ensemble import blended, of_experts, without_the_least
from dac_nerfstudio.teachers.experts import baseline_of, load_expert, teachers_of
from dac_nerfstudio.training.datamanager import DaCDataManager

Outputs = Dict[str, Float[Tensor, "height width channels"]]
"""A model's pictures of one camera, by name."""
Rendered = Callable[[str], Outputs]
"""Outputs of a model by its name, at the camera that is looked through; the student's is ``STUDENT``."""
Layer = Callable[[Rendered, Float[Tensor, "3 4"]], Float[Tensor, "height width channels"]]
"""Makes a layer's picture from what models render, and from the camera-to-world matrix."""
Shares = Callable[[Float[Tensor, "3 4"], float], Float[Tensor, "experts"]]
"""A camera-to-world matrix and a sharpness -> how much each expert counts there; of sum 1."""

STUDENT, BASELINE, EXPERTS, ROUTED = "student", "baseline", "experts", "experts, routed"
DISAGREEMENT = "disagreement"
FROM_EXPERTS, FROM_BASELINE = "student - experts", "student - baseline"
MAPS = (DISAGREEMENT, FROM_EXPERTS, FROM_BASELINE)
"""Layers of one channel, which the viewer colours by one of its colormaps."""
HINT = "Layers are among *Render Options*, *Output type*; *Split Screen* wipes between two."


class LayersPanel(ViewerControl):
    """Adds layers to what the viewer shows of a student, and says what keeps one of them from being shown.

    Args:
        manager: knows whose view a camera has.
        sharpness: how sharply experts are told apart where they are blended.
    """

    def __init__(self, manager: DaCDataManager, sharpness: Callable[[], float]) -> None:
        self.manager = manager
        self.sharpness = sharpness

    def _setup(self, viewer: Any) -> None:
        super()._setup(viewer)
        folder = viewer.log_filename.parent
        try:
            # Before its first checkpoint a training has no record in its folder.
            stage = Stage.load(folder) if viewer.trainer is None else viewer.trainer.stage
            if MethodName.parse(stage.method).stage not in ("distill", "finetune"):
                return
        except StageError:
            return
        experts, baseline = teachers_of(folder, stage), baseline_of(folder, stage)
        runs = {_title(name): run for name, run in experts.items() if run is not None}
        gone = [_title(name) for name, run in experts.items() if run is None]
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

        panel = viewer.control_panel
        shares = None if gone else self.shares([record.group or 1 for _, record in runs.values()])
        layers = layers_of(list(runs), shares, self.sharpness, baseline is not None)
        if baseline is not None:
            runs[BASELINE] = baseline
        layered = LayeredModel(viewer.pipeline.model, layers, runs, lambda: _looked_at(panel), tell)
        viewer.get_model = lambda: layered

    def shares(self, groups: Sequence[int]) -> Optional[Shares]:
        """How much experts of these groups count at a camera; None where there are none, or cameras have no groups."""
        try:
            if not groups or self.manager.partition is None:
                return None
        except PartitionError:  # the panel of the groups says so
            return None

        def at(camera_to_world: Tensor, sharpness: float) -> Tensor:
            return without_the_least(of_experts(self.manager.blend(camera_to_world[None], sharpness), groups))[0]

        return at


class LayeredModel:
    """A model as the viewer takes it, with layers among its outputs. Whatever else is asked of it, the model answers.

    Outputs that nobody looks at are listed, with another picture of as many channels in their place.

    Args:
        model: the student.
        layers: the layers by name.
        runs: run folder and record of each model that they are made of besides the student.
        looked_at: says which outputs are looked at; the first is whose surfaces hide what the viewer draws behind them.
        tell: is told what keeps a layer from being shown, or nothing where all is well.
    """

    def __init__(
        self,
        model: KPlanesModel,
        layers: Dict[str, Layer],
        runs: Dict[str, Tuple[Path, Stage]],
        looked_at: Callable[[], List[str]],
        tell: Callable[[str], None],
    ) -> None:
        self.model = model
        self.layers = layers
        self.runs = runs
        self.looked_at = looked_at
        self.tell = tell
        self.loaded: Dict[str, KPlanesModel] = {STUDENT: model}
        self.channels: Dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: Cameras, obb_box: Optional[OrientedBox] = None) -> Outputs:
        """The student's outputs and the layers."""
        pose, problem = camera.camera_to_worlds.view(-1, 3, 4)[0], ""
        done: Dict[str, Outputs] = {}
        shown: Outputs = {}

        def rendered(name: str) -> Outputs:
            if name not in done:
                done[name] = self.load(name).get_outputs_for_camera(camera, obb_box)
            return done[name]

        for name in self.looked_at():
            try:
                if name in self.layers:
                    shown[name] = self.layers[name](rendered, pose)
                else:
                    shown.update(rendered(STUDENT))
            except (UserError, OSError) as error:
                problem = str(error)
                rendered(STUDENT)
        self.tell(problem)
        if not self.channels:
            # The list of outputs has to stay as it is: with each change the viewer forgets what is wiped between.
            own = {name: picture.shape[-1] for name, picture in rendered(STUDENT).items()}
            self.channels = {**own, **{name: 1 if name in MAPS else 3 for name in self.layers}}
        first = next(iter(done.values()))
        outputs = {name: first["depth" if channels == 1 else "rgb"] for name, channels in self.channels.items()}
        return {**outputs, **shown}

    def load(self, name: str) -> KPlanesModel:
        """One of the models.

        Raises:
            StageError: its files are gone or damaged.
        """
        if name not in self.loaded:
            self.loaded[name] = load_expert(*self.runs[name], self.model.device)
        return self.loaded[name]


def layers_of(
    experts: Sequence[str], shares: Optional[Shares], sharpness: Callable[[], float], baseline: bool
) -> Dict[str, Layer]:
    """The layers that can be made, by name.

    Args:
        experts: names of the experts.
        shares: how much each of them counts at a camera; None where that is not known, or not all are there.
        sharpness: how sharply they are told apart where they are blended.
        baseline: whether there is a baseline.
    """

    def alone(name: str) -> Layer:
        return lambda rendered, pose: rendered(name)["rgb"]

    def together(output: str, sharpness: Callable[[], float]) -> Layer:
        def layer(rendered: Rendered, pose: Tensor) -> Tensor:
            assert shares is not None
            counts = shares(pose, sharpness())
            # Whoever counts most comes first: what is in front is its to say.
            asked = [number for number in counts.argsort(descending=True).tolist() if counts[number] > 0]
            return blended([rendered(experts[number]) for number in asked], counts[asked])[output]

        return layer

    def difference(other: Layer) -> Layer:
        def layer(rendered: Rendered, pose: Tensor) -> Tensor:
            return (rendered(STUDENT)["rgb"] - other(rendered, pose)).abs().mean(dim=-1, keepdim=True)

        return layer

    layers = {name: alone(name) for name in experts}
    if shares is not None:
        layers[DISAGREEMENT] = together("disagreement", sharpness)
        layers[FROM_EXPERTS] = difference(together("rgb", sharpness))
        layers[ROUTED] = together("rgb", lambda: float("inf"))
        layers[EXPERTS] = together("rgb", sharpness)
    if baseline:
        layers[FROM_BASELINE] = difference(alone(BASELINE))
        layers[BASELINE] = alone(BASELINE)
    return layers


def _looked_at(panel: Any) -> List[str]:
    """Names of the outputs that the viewer's panel has chosen, the one on the left first."""
    return [panel.output_render, *([panel.split_output_render] if panel.split else [])]


def _title(name: str) -> str:
    """An expert as it is listed, from what a record calls it: expert 3, or expert 3-2 for the second of its group."""
    return name.replace("-", " ", 1)
