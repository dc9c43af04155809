"""The methods that nerfstudio finds by this package's entry points: nine for bounded scenes, nine for real ones.

Imported by every ``ns-*`` command, so nothing optional is imported here: a plugin that fails to import breaks them all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Dict, Mapping

from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.models.base_model import ModelConfig
from nerfstudio.plugins.types import MethodSpecification

from dac_nerfstudio import naming
from dac_nerfstudio.device import default_device
from dac_nerfstudio.kplanes.model import KPlanesModelConfig, RegularizerWeights
from dac_nerfstudio.kplanes.teaching import StudentModelConfig
from dac_nerfstudio.nerfacto.model import NerfactoConfig
from dac_nerfstudio.presets import BASELINE_RATE, METHOD_STEPS, METHOD_TV, PLANE_TV, PROPOSAL_TV
from dac_nerfstudio.training.datamanager import DaCDataManagerConfig
from dac_nerfstudio.training.ensemble import EnsembleModelConfig
from dac_nerfstudio.training.optimizers import FusedAdamConfig
from dac_nerfstudio.training.pipeline import DaCPipelineConfig, EnsemblePipelineConfig, FinetunePipelineConfig
from dac_nerfstudio.training.schedules import CosineScheduleConfig
from dac_nerfstudio.training.trainer import (
    DaCTrainerConfig,
    DistillTrainerConfig,
    EnsembleTrainerConfig,
    ExpertTrainerConfig,
    FinetuneTrainerConfig,
)


@dataclass(frozen=True)
class SceneKind:
    """Constants of the reference for one kind of scene (arXiv 2401.16144 and its implementation)."""

    suffix: str
    scenes: str
    dataparser: DataParserConfig
    model: Dict[str, Any]
    nerfacto: Dict[str, Any]
    distill_rate: float
    steps: Mapping[str, int]

    @property
    def restart(self) -> float:
        """Where on its cosine fine-tuning begins: distillation's share of the student's steps."""
        return self.steps["distill"] / (self.steps["distill"] + self.steps["finetune"])


BOUNDED = SceneKind(
    suffix="",
    scenes="bounded synthetic scenes",
    # RGBA is kept: each batch is composited on a random colour, prediction and photo alike.
    dataparser=BlenderDataParserConfig(alpha_color=None),
    model={},
    nerfacto={
        "near_plane": 2.0,
        "far_plane": 6.0,
        "disable_scene_contraction": True,
        "proposal_initial_sampler": "uniform",
    },
    distill_rate=1e-2,
    steps=METHOD_STEPS[""],
)
UNBOUNDED = SceneKind(
    suffix=naming.UNBOUNDED,
    scenes="real unbounded scenes",
    dataparser=NerfstudioDataParserConfig(),
    model={
        "near_plane": 0.0,
        "far_plane": 6.0,
        "is_contracted": True,
        "grid_base_resolution": 64,
        "multiscale_res": (1, 2, 4, 8),
        "linear_decoder_layers": 1,
        "background_color": "white",
        "regularizers": RegularizerWeights(
            plane_tv=METHOD_TV[naming.UNBOUNDED][PLANE_TV], proposal_tv=METHOD_TV[naming.UNBOUNDED][PROPOSAL_TV]
        ),
    },
    nerfacto={},
    distill_rate=1e-3,
    steps=METHOD_STEPS[naming.UNBOUNDED],
)


def methods(kind: SceneKind) -> Dict[str, MethodSpecification]:
    """The methods for a kind of scene, by stage and model."""

    def common(stage: str, rate: float, begin: float = 0.0, model: str = "") -> Dict[str, Any]:
        def optimizer() -> Dict[str, Any]:
            return {"optimizer": FusedAdamConfig(lr=rate), "scheduler": CosineScheduleConfig(begin=begin)}

        return {
            "method_name": str(naming.MethodName(stage, kind.suffix, model)),
            "max_num_iterations": kind.steps.get(stage, 1),
            "steps_per_eval_batch": 1000,
            "steps_per_eval_image": 5000,
            "steps_per_eval_all_images": 1000000,
            "steps_per_save": 2000,
            "mixed_precision": True,  # with tiny-cuda-nn alone, see `resolve`
            "machine": MachineConfig(device_type=default_device()),
            # Stages follow one another in shell loops and job arrays: a run that waits for Ctrl-C would stop them all.
            "viewer": ViewerConfig(num_rays_per_chunk=1 << 14, quit_on_train_completion=True),
            "vis": "viewer+tensorboard",
            "optimizers": {"fields": optimizer(), "proposal_networks": optimizer()},
        }

    def pipeline(model: ModelConfig) -> Dict[str, Any]:
        manager = DaCDataManagerConfig(dataparser=replace(kind.dataparser), train_num_rays_per_batch=4096)
        return {"datamanager": manager, "model": model}

    def model(config: type, **settings: Any) -> KPlanesModelConfig:
        return config(**kind.model, **settings)

    def nerfacto(stage: str, **settings: Any) -> Dict[str, Any]:
        model = NerfactoConfig(**kind.nerfacto, **settings)
        of_pipeline = FinetunePipelineConfig if stage == "finetune" else DaCPipelineConfig
        return {**common(stage, BASELINE_RATE, model=naming.NERFACTO), "pipeline": of_pipeline(**pipeline(model))}

    configs = {
        "baseline": (
            DaCTrainerConfig(
                **common("baseline", BASELINE_RATE), pipeline=DaCPipelineConfig(**pipeline(model(KPlanesModelConfig)))
            ),
            "K-Planes on all views: what DaC is measured against",
        ),
        "expert": (
            ExpertTrainerConfig(
                **common("expert", BASELINE_RATE), pipeline=DaCPipelineConfig(**pipeline(model(KPlanesModelConfig)))
            ),
            "DaC step 1: an expert for one group of views (--group K)",
        ),
        "distill": (
            DistillTrainerConfig(
                **common("distill", kind.distill_rate),
                pipeline=DaCPipelineConfig(**pipeline(model(StudentModelConfig))),
            ),
            "DaC step 2: one student that learns from the experts of all groups",
        ),
        "finetune": (
            FinetuneTrainerConfig(
                # A warm restart, as the reference's: it enters the cosine of the student's whole training where
                # distillation ended.
                **common("finetune", kind.distill_rate, begin=kind.restart),
                pipeline=FinetunePipelineConfig(**pipeline(model(StudentModelConfig))),
            ),
            "DaC step 3: the student, fine-tuned on all photos",
        ),
        "ensemble": (
            EnsembleTrainerConfig(
                **common("ensemble", BASELINE_RATE),
                pipeline=EnsemblePipelineConfig(**pipeline(model(EnsembleModelConfig))),
            ),
            "all experts in one checkpoint, blended at each camera: the teachers' quality",
        ),
        "baseline-nerfacto": (
            DaCTrainerConfig(**nerfacto("baseline")),
            "nerfacto on all views: a teacher that errs otherwise than K-Planes (dac-finetune --teachers)",
        ),
        "expert-nerfacto": (
            ExpertTrainerConfig(**nerfacto("expert")),
            "nerfacto as an expert for one group of views (--group K)",
        ),
        "finetune-nerfacto": (
            FinetuneTrainerConfig(**nerfacto("finetune", hash_decay=0.03)),
            "a nerfacto student that learns from photos and from finished runs (--teachers)",
        ),
    }
    return {
        name: MethodSpecification(config=config, description=f"{text}. For {kind.scenes}.")
        for name, (config, text) in configs.items()
    }


_bounded, _unbounded = methods(BOUNDED), methods(UNBOUNDED)

baseline = _bounded["baseline"]
expert = _bounded["expert"]
distill = _bounded["distill"]
finetune = _bounded["finetune"]
ensemble = _bounded["ensemble"]
baseline_nerfacto = _bounded["baseline-nerfacto"]
expert_nerfacto = _bounded["expert-nerfacto"]
finetune_nerfacto = _bounded["finetune-nerfacto"]
baseline_360 = _unbounded["baseline"]
expert_360 = _unbounded["expert"]
distill_360 = _unbounded["distill"]
finetune_360 = _unbounded["finetune"]
ensemble_360 = _unbounded["ensemble"]
baseline_nerfacto_360 = _unbounded["baseline-nerfacto"]
expert_nerfacto_360 = _unbounded["expert-nerfacto"]
finetune_nerfacto_360 = _unbounded["finetune-nerfacto"]
