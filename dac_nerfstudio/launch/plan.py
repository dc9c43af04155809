"""What ``dac run`` has to do, as a list of jobs. No torch and no nerfstudio: planning is instant."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Literal, Mapping, Optional, Sequence, Tuple

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.launch.division import count_groups, partition_of
from dac_nerfstudio.launch.flags import OWNED, table_of, words
from dac_nerfstudio.naming import MethodName
from dac_nerfstudio.presets import (
    ALL_ALIKE,
    BASELINE_RATE,
    KINDS,
    METHOD_STEPS,
    TOTAL,
    Baseline,
    Flags,
    Kind,
    Recipe,
    of_optimizers,
    without_model,
)
from dac_nerfstudio.runs.layout import RECORD, run_dir, run_folder
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.scene.layout import Layout, find_layout

StageName = Literal[
    "split", "expert", "ensemble", "distill", "finetune", "baseline", "baseline total", "video", "report"
]
Only = Literal["split", "experts", "ensemble", "distill", "finetune", "baseline", "evaluate", "video"]


@dataclass(frozen=True)
class Request:
    """What is asked of ``dac run`` for one scene."""

    data: Path
    output_dir: Path
    scene: str
    """Name of the scene's folder of results in ``output_dir``."""
    divide: Dict[str, Any] = field(default_factory=dict)
    """Settings of the division that were asked for, named as the flags of ``dac split``."""
    downscale: Optional[int] = None
    skip_missing: bool = False
    """Whether photos that the data list and that are not there are left out."""
    baseline: Baseline = "yes"
    video: bool = True
    device: str = "cpu"
    """Kind of device: cpu, cuda or mps."""
    seed: int = 42
    only: Optional[Only] = None
    experts: Tuple[Path, ...] = ()
    flags: Mapping[str, Flags] = field(default_factory=dict)
    """Flags of ``ns-train`` by table, see `dac_nerfstudio.launch.flags`."""
    config: Optional[bytes] = None
    """What the file that they come from holds."""
    teachers: Tuple[Path, ...] = ()
    """Run folders of finished runs of any method, which teach the student instead of experts."""

    @property
    def scene_dir(self) -> Path:
        """The scene's folder of results."""
        return self.output_dir / self.scene

    @property
    def layout(self) -> Layout:
        """The data parser, and its settings.

        Raises:
            StageError: the data are not there, of no known layout, or of one size only.
        """
        return find_layout(self.data, self.downscale, self.skip_missing)


@dataclass(frozen=True)
class Job:
    """A training stage by ``ns-train``, or a step around one."""

    stage: StageName
    kind: Literal["split", "train", "evaluate", "video", "report"]
    run_dir: Path
    """Folder of its result, or of a run that it is about."""
    group: Optional[int] = None
    """Group of an expert, counted from 1."""
    method: str = ""
    """Registered method."""
    flags: Flags = field(default_factory=dict)
    """Flags of ``ns-train`` and this method."""
    parser: Tuple[str, ...] = ()
    """Data parser and its flags, with which a command ends; empty where the method's own will do."""
    needs: Tuple[str, ...] = ()
    """Names of the jobs that have to succeed first."""
    score_most: int = 0
    """Most test views that are scored after training."""

    @property
    def name(self) -> str:
        """What the job is called in tables, logs and ``needs``."""
        stage = self.stage if self.group is None else f"{self.stage} {self.group}"
        return f"evaluate {stage}" if self.kind == "evaluate" else stage

    @property
    def arguments(self) -> Tuple[str, ...]:
        """Arguments of ``ns-train``."""
        return (self.method, *words(self.flags), *self.parser)

    @property
    def settings(self) -> Flags:
        """Flags by which the method trains otherwise than by its own settings: without those that say what on, where
        and what the result is called."""
        return {name: value for name, value in self.flags.items() if name not in (*OWNED, "vis")}

    @property
    def command(self) -> str:
        """What to type to do the same by hand."""
        return shlex.join(("ns-train", *self.arguments))


@dataclass(frozen=True)
class Report:
    """What a job says while it is done, and how it ended."""

    state: Literal["training", "evaluating", "rendering", "done", "kept", "failed", "stopped"]
    done: int = 0
    total: int = 0
    text: str = ""
    psnr: Optional[float] = None
    """PSNR of the latest batch of training rays, in dB."""


Tell = Callable[[Report], None]
"""Takes the reports of a job."""


@dataclass(frozen=True)
class Plan:
    """All jobs of a scene in an order in which they can be done."""

    request: Request
    recipe: Recipe
    jobs: Tuple[Job, ...]
    partition: Optional[Path] = None
    """Partition of ready experts: the scene's first, if it has none yet."""

    @property
    def scene_dir(self) -> Path:
        """The scene's folder of results."""
        return self.request.scene_dir


def make_plan(request: Request, recipe: Recipe) -> Plan:
    """Lay out the jobs of a scene.

    Raises:
        StageError: the data is of no known layout, its photos are not of a usable size, the experts do not belong
            together, or the one stage asked for is none of the recipe's.
        PartitionError: the number of groups is to be found out, and the views cannot be read.
    """
    from dac_nerfstudio.partition import current_partition

    layout = request.layout
    if not request.experts and not request.teachers:
        recipe = recipe.on(real=bool(layout.suffix))
        request = _dividing_as_it_needs(request, recipe)
    if recipe.student != "kplanes" and not (recipe.kinds or request.teachers):
        raise StageError(
            f"A {recipe.student} student learns from what others render. Add --experts kplanes,{recipe.student}, or "
            "name finished runs: --teachers FOLDER FOLDER"
        )
    draft = _Draft(request, recipe, layout)
    # Where nothing is divided yet, ready experts say how it was.
    undivided = request.only != "evaluate" and current_partition(request.scene_dir) is None
    partition = partition_of(request.experts, request.divide) if request.experts and undivided else None
    jobs = draft.jobs()
    if request.only == "evaluate":
        jobs = draft.evaluations(jobs)
    elif request.only is not None:
        jobs = draft.alone(jobs, request.only)
    return Plan(request, recipe, tuple(jobs), partition)


def _dividing_as_it_needs(request: Request, recipe: Recipe) -> Request:
    """The request, with the recipe's softness where the scene was divided for another kind of recipe: only experts of
    all photos are averaged, and the paper's are no such experts.

    Raises:
        StageError: experts of several kinds are to see some photos less often than others.
    """
    from dac_nerfstudio.partition import current_partition

    # With an overlap there is no softness.
    name = "overlap" if request.divide.get("overlap") else "softness"
    softness = 0.0 if name == "overlap" else request.divide.get("softness")
    if recipe.kinds and softness not in (None, ALL_ALIKE):
        raise StageError(
            "What experts of several kinds render is averaged, so all of them see all photos. Leave out "
            f"--{name}, or take experts of one kind by --preset few or reference."
        )
    before = current_partition(request.scene_dir)
    if before is None or softness is not None:
        return request
    if (before.settings["softness"] == ALL_ALIKE) == (recipe.softness == ALL_ALIKE):
        return request
    return replace(request, divide={**request.divide, "softness": recipe.softness})


class _Draft:
    """Writes the jobs of a plan.

    Args:
        request, recipe: as of `make_plan`.
        layout: of the scene.
    """

    def __init__(self, request: Request, recipe: Recipe, layout: Layout) -> None:
        self.request, self.recipe = request, recipe
        self.suffix, self.parser = layout.suffix, layout.flags

    def jobs(self) -> List[Job]:
        """All stages that the request and the recipe have."""
        request = self.request
        split = Job("split", "split", request.scene_dir, None, self._method("baseline"), self._common(), self.parser)
        if request.teachers:
            jobs = [split, self._taught(request.teachers, [split])]
        elif self.recipe.kinds:
            experts = self._experts([split])
            jobs = [split, *experts, self._taught([job.run_dir for job in experts], experts)]
        else:
            jobs = [split, *self._divided(split)]
        finetune = jobs[-1]
        if request.baseline != "no" or request.only in ("baseline", "evaluate"):
            jobs.append(self._training("baseline", needs=jobs[:1]))
        # A student of finished runs has the baseline's steps, and other stages there are none.
        if (request.baseline == "total" and not request.teachers) or request.only == "evaluate":
            jobs.append(self._baseline_of(self._steps(jobs), needs=jobs[:1]))
        if request.video or request.only == "video":
            jobs.append(Job("video", "video", finetune.run_dir, method=finetune.method, needs=(finetune.name,)))
        return jobs

    def _experts(self, needs: List[Job]) -> List[Job]:
        """An expert of each group."""
        request = self.request
        groups = range(1, count_groups(request.layout, request.scene_dir, request.divide, request.skip_missing) + 1)
        return [self._training("expert", {"group": group}, needs, group) for group in groups]

    def _divided(self, split: Job) -> List[Job]:
        """The stages from experts to student, which comes last."""
        experts = [] if self.request.experts else self._experts([split])
        # This run's own experts, not whichever are the latest.
        teachers = {"experts": self.request.experts or tuple(job.run_dir for job in experts)}
        ensemble, distill = (self._training(stage, teachers, [split, *experts]) for stage in ("ensemble", "distill"))
        taught = {"pipeline.novel-share": self.recipe.novel_share, **teachers} if self.recipe.novel_share else {}
        finetune = self._training("finetune", {"student": distill.run_dir, **taught}, [distill])
        return [*experts, ensemble, distill, finetune]

    def _taught(self, teachers: Sequence[Path], needs: Sequence[Job]) -> Job:
        """A student of finished runs. It starts from scratch: along the whole cosine, with the baseline's rate and
        steps, unless the request's file says otherwise."""
        request = self.request
        own: Dict[str, Any] = {"teachers": tuple(teachers), **of_optimizers("optimizer.lr", BASELINE_RATE)}
        if self.recipe.novel_share:
            own["pipeline.novel-share"] = self.recipe.novel_share
        job = self._training("finetune", own, needs)
        place = job.run_dir.resolve()
        for teacher in teachers:
            # It would be moved aside, as a student that was made otherwise, before it is asked.
            if place in (teacher.resolve(), *teacher.resolve().parents):
                raise StageError(
                    f"The teacher {teacher} lies where its student would go. Take another --seed or --scene."
                )
        baseline = self.recipe.flags_of("baseline", real=bool(self.suffix))
        said = {**request.flags.get("all", {}), **request.flags.get(table_of(job.method), {})}
        steps = baseline.get("max-num-iterations", METHOD_STEPS[self.suffix]["baseline"])
        flags = {name: value for name, value in job.flags.items() if not name.endswith("scheduler.begin")}
        return replace(job, flags={**flags, "max-num-iterations": said.get("max-num-iterations", steps)})

    def evaluations(self, jobs: List[Job]) -> List[Job]:
        """Scoring alone: of the experts named in the request, or else of all runs that are there.

        Raises:
            StageError: there are none.
        """
        scene_dir = self.request.scene_dir
        runs = [job for job in jobs if job.score_most and (job.run_dir / RECORD).exists()]
        if self.request.experts:
            folders = enumerate(map(run_folder, self.request.experts), start=1)
            runs = [replace(self._training("expert", group=number), run_dir=folder) for number, folder in folders]
        if not runs:
            data = self.request.data
            raise StageError(f"There is nothing to score in {scene_dir}. Train first: dac run --data {data}")
        return [replace(job, kind="evaluate", needs=()) for job in runs]

    def alone(self, jobs: List[Job], only: Only) -> List[Job]:
        """One stage alone, from what is already there.

        Raises:
            StageError: finished runs take its place.
        """
        if self.request.teachers and only in ("experts", "ensemble", "distill"):
            raise StageError(f"--teachers take the place of --only {only}: name the one or the other.")
        if self.recipe.kinds and only in ("ensemble", "distill"):
            raise StageError(
                f"Experts of this scene are {' and '.join(self.recipe.kinds)} by the preset {self.recipe.name} or by "
                f"--experts. They teach by pictures alone: there is no {only}. With it: --preset few or reference."
            )
        together = {"experts": ("expert",), "baseline": ("baseline", "baseline total")}
        stages = together.get(only, (only,))
        kept = [job for job in jobs if job.stage in ("split", *stages)]
        names = {job.name for job in kept}
        return [replace(job, needs=tuple(need for need in job.needs if need in names)) for job in kept]

    def _training(
        self, stage: StageName, own: Optional[Flags] = None, needs: Sequence[Job] = (), group: Optional[int] = None
    ) -> Job:
        request, recipe, kind = self.request, self.recipe, self.recipe.kind_of(stage, group)
        method, of_all = self._method(stage, kind), dict(request.flags.get("all", {}))
        if stage == "ensemble":  # nothing is trained in it
            of_all.pop("max-num-iterations", None)
        return Job(
            stage=stage,
            kind="train",
            run_dir=run_dir(request.scene_dir, method, recipe.run_name(request.seed), group),
            group=group,
            method=method,
            # Later ones win: what the request's file says is the user's last word.
            flags={
                **(own or {}),
                **self._common(),
                **recipe.flags_of(stage, bool(self.suffix), kind),
                **(recipe.expert_flags(group, request.seed) if group else {}),
                **(of_all if kind == "kplanes" else without_model(of_all)),
                **request.flags.get(table_of(method), {}),
            },
            parser=self.parser,
            needs=tuple(job.name for job in needs),
            score_most=0 if stage == "ensemble" else recipe.score_most,
        )

    def _baseline_of(self, steps: int, needs: Sequence[Job]) -> Job:
        """A baseline that trains for ``steps`` steps, whatever the request's file says of the other's."""
        job, name = self._training("baseline", needs=needs), self.recipe.run_name(self.request.seed) + TOTAL
        flags = {**job.flags, "timestamp": name, "max-num-iterations": steps}
        return replace(job, stage="baseline total", run_dir=job.run_dir.with_name(name), flags=flags)

    def _steps(self, jobs: Sequence[Job]) -> int:
        """Steps of all stages together that the student comes from.

        Raises:
            StageError: a ready expert is no run folder.
        """
        own = METHOD_STEPS[self.suffix]
        trained = [job for job in jobs if job.stage in ("expert", "distill", "finetune")]
        steps = sum(int(job.flags.get("max-num-iterations", own[job.stage])) for job in trained)
        ready = [Stage.load(run_folder(path)) for path in self.request.experts]
        return steps + sum(one.steps for one in ready)

    def _method(self, stage: str, kind: Kind = "kplanes") -> str:
        return str(MethodName(stage, self.suffix, KINDS[kind]))

    def _common(self) -> Flags:
        """Flags of all methods that say what is trained on, where the result goes, and with which device."""
        request = self.request
        return {
            **({"pipeline.datamanager.skip-missing": True} if request.skip_missing else {}),
            "data": request.data,
            "output-dir": request.output_dir,
            "experiment-name": request.scene,
            "timestamp": self.recipe.run_name(request.seed),
            "vis": "tensorboard",
            "machine.device-type": request.device,
            "machine.seed": request.seed,
        }
