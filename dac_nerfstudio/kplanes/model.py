"""K-Planes as a nerfstudio model: the baseline, and the body of every expert and student."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Literal, Optional, Tuple, Type

import torch
import tyro
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.configs.config_utils import to_immutable_dict
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.model_components.renderers import AccumulationRenderer, RGBRenderer
from nerfstudio.model_components.scene_colliders import NearFarCollider
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.utils.colors import COLORS_DICT
from torch import Tensor, nn
from torch.nn import Parameter

from dac_nerfstudio.image_scores import scores_and_images
from dac_nerfstudio.kplanes.decoders import Implementation, resolve_implementation
from dac_nerfstudio.kplanes.field import KPlanesField, ProposalField, SceneCoordinates
from dac_nerfstudio.kplanes.proposals import (
    Level,
    ProposalSampler,
    Schedule,
    UpdateSchedule,
    anneal_exponent,
    histogram_loss,
)
from dac_nerfstudio.kplanes.rays import composite
from dac_nerfstudio.kplanes.regularizers import distortion, plane_tv


@dataclass
class RegularizerWeights:
    """What is added to the colour loss, and how much of it."""

    interlevel: float = 1.0
    """Proposals must bound the final density from above (mip-NeRF 360)."""
    distortion: float = 0.0
    """Pull each ray's density together (mip-NeRF 360). 0 as in the reference, whose term had no effect."""
    plane_tv: float = 3.6e-3
    """Smoothness of the feature planes, mean over planes."""
    proposal_tv: float = 2.4e-3
    """Smoothness of the proposal planes, mean over planes."""


@dataclass
class KPlanesModelConfig(ModelConfig):
    """Settings of a K-Planes model. The defaults are the reference's for bounded synthetic scenes."""

    _target: Type = field(default_factory=lambda: KPlanesModel)
    """Target class to instantiate."""
    near_plane: float = 2.0
    """Distance from the camera at which rays begin, in the units of the camera poses; the same in evaluation."""
    far_plane: float = 6.0
    """Distance from the camera at which rays end."""
    scene_radius: Optional[float] = None
    """Half the side of the box that holds the scene. By default 1.3, or 1.5 where the photos' alpha shows the object
    beyond that. Unused when contracted."""
    is_contracted: bool = False
    """Unbounded scene: contract all of space into the planes (L-infinity norm) and sample in disparity."""
    grid_base_resolution: int = 128
    """Grid points along each side of the coarsest feature planes."""
    grid_feature_dim: int = 32
    """Features of each plane."""
    multiscale_res: Tuple[int, ...] = (1, 2, 4)
    """Multiples of the base resolution; features are concatenated over these scales."""
    linear_decoder: bool = True
    """Explicit decoder (linear density, learned colour basis); otherwise the hybrid one (small MLPs)."""
    linear_decoder_layers: int = 4
    """Hidden layers of the explicit decoder's colour basis."""
    proposal_resolutions: Tuple[int, ...] = (64, 128)
    """Grid points along each side of the proposal planes, one number per proposal level."""
    proposal_feature_dim: int = 8
    """Features of each proposal plane."""
    num_proposal_samples: Tuple[int, ...] = (256, 128)
    """Samples per ray of each proposal level."""
    num_samples: int = 48
    """Samples per ray of the final level."""
    single_jitter: bool = False
    """Shift all samples of a ray by one random offset instead of each by its own."""
    proposal_warmup: int = 5000
    """Steps until proposals are updated at their slowest rate."""
    proposal_update_every: int = 5
    """Most steps to pass between two updates of the proposals."""
    proposal_weights_anneal_max_num_iters: int = 1000
    """Steps until proposals are fully trusted."""
    proposal_weights_anneal_slope: float = 10.0
    """How fast trust in the proposals grows."""
    background_color: Literal["random", "white", "black"] = "random"
    """Behind transparent pixels. 'random' draws one colour per training batch and is white in evaluation."""
    implementation: Implementation = "auto"
    """Decoders by tiny-cuda-nn or PyTorch; 'auto' takes tiny-cuda-nn where it is installed with a CUDA device."""
    regularizers: RegularizerWeights = field(default_factory=RegularizerWeights)
    """Weights of the regularising losses."""
    eval_num_rays_per_chunk: int = 1 << 17
    """Most rays to render at once; fewer are, where they would take too much memory."""
    enable_collider: tyro.conf.Suppress[bool] = True
    collider_params: tyro.conf.Suppress[Optional[Dict[str, float]]] = None
    loss_coefficients: tyro.conf.Suppress[Dict[str, float]] = to_immutable_dict({})
    prompt: tyro.conf.Suppress[Optional[str]] = None

    @property
    def numbers_per_ray(self) -> int:
        """Upper bound of the numbers that PyTorch keeps per ray, in rendering and in a training step. What the CPU's
        kernels keep for the way back, hidden layers of the hybrid decoder above all, comes on top."""
        samples = self.num_samples + sum(self.num_proposal_samples)
        features = self.grid_feature_dim * len(self.multiscale_res)
        return SAMPLE_NUMBERS * samples + (2 * features + 64) * self.num_samples


RADIUS = 1.3
"""Half the side of a scene's box unless something else is known: the reference's for NeRF-synthetic."""

SHARE_FOR_RENDERING = 0.25
"""Share of a GPU's free memory that a chunk may take."""
ROOM_FOR_RENDERING = 100_000_000
"""Bytes on the CPU, which gets slower with more: what a chunk computes is then no longer in its caches."""

FEWEST_RAYS = 16
"""Rays that are rendered at a time, however little memory is free."""
SAMPLE_NUMBERS = 24
"""Numbers that a sample of any level holds: position, bin, density, weight and so on, with what is made on the way."""


@dataclass
class Rendering:
    """All that a forward pass knows of a batch of rays."""

    proposals: List[Level]
    final: Level
    colours: Float[Tensor, "rays samples 3"]
    rgb: Float[Tensor, "rays 3"]


class KPlanesModel(Model):
    """Radiance field on three feature planes per scale (K-Planes, arXiv 2301.10241), with proposal sampling."""

    config: KPlanesModelConfig

    def populate_modules(self) -> None:
        config = self.config
        implementation = resolve_implementation(config.implementation, torch.cuda.is_available())
        radius = RADIUS if config.scene_radius is None else config.scene_radius
        coordinates = SceneCoordinates(radius, config.is_contracted)
        self.field = KPlanesField(
            coordinates,
            [config.grid_base_resolution * scale for scale in config.multiscale_res],
            config.grid_feature_dim,
            config.linear_decoder_layers if config.linear_decoder else None,
            implementation,
        )
        self.proposal_networks = nn.ModuleList(
            ProposalField(coordinates, resolution, config.proposal_feature_dim, config.linear_decoder, implementation)
            for resolution in config.proposal_resolutions
        )
        self.sampler = ProposalSampler(
            (*config.num_proposal_samples, config.num_samples), config.is_contracted, config.single_jitter
        )
        self.update_schedule = UpdateSchedule(config.proposal_warmup, config.proposal_update_every)
        # The same near plane in training and evaluation: a teacher (in eval mode) has to see its student's rays.
        self.collider = NearFarCollider(config.near_plane, config.far_plane, reset_near_plane=False)  # type: ignore
        eval_background = "white" if config.background_color == "random" else config.background_color
        self.renderer_rgb = RGBRenderer(background_color=eval_background)
        self.renderer_accumulation = AccumulationRenderer()
        self.plain_background: Tensor
        # On the device: a CUDA graph cannot take it from the CPU.
        self.register_buffer("plain_background", COLORS_DICT[eval_background].clone(), persistent=False)
        self.first_step = 0
        """Training steps that the model had behind it before this run; its schedules go on from there."""
        self.step = 0
        """Training steps that the model has behind it: annealing and updates of the proposals are functions of it."""
        self.fixed_schedule: Optional[Schedule] = None
        """What to do with the proposals in training, whatever the step."""

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> List[TrainingCallback]:
        return [TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], self.begin_step)]

    def begin_step(self, step: int) -> None:
        """Set the schedules of the proposals to a training step, counted from 0 in this run."""
        self.step = self.first_step + step

    def schedule(self) -> Schedule:
        """What the current training step does with the proposals."""
        config = self.config
        anneal = anneal_exponent(
            self.step, config.proposal_weights_anneal_slope, config.proposal_weights_anneal_max_num_iters
        )
        return Schedule(anneal, self.update_schedule.due(self.step))

    def get_param_groups(self) -> Dict[str, List[Parameter]]:
        return {"fields": list(self.field.parameters()), "proposal_networks": list(self.proposal_networks.parameters())}

    def background(self) -> Float[Tensor, "3"]:
        """Colour behind the scene for this batch."""
        if self.training:
            random = self.config.background_color == "random"
            return torch.rand(3, device=self.device) if random else self.plain_background
        return self.renderer_rgb.get_background_color(
            self.renderer_rgb.background_color, shape=(3,), device=self.device
        )

    def render(self, rays: RayBundle, background: Float[Tensor, "3"]) -> Rendering:
        """Sample, evaluate and composite a flat bundle of rays whose nears and fars are set."""
        anneal, learn = (self.fixed_schedule or self.schedule()) if self.training else Schedule(1.0, False)
        proposals, bins = self.sampler(rays, list(self.proposal_networks), anneal, learn)
        density, colours = self.field(bins.positions(rays), rays.directions)
        final = Level(bins, density)
        rgb = composite(final.weights, colours, background)
        if not self.training:
            rgb = rgb.nan_to_num().clamp(0, 1)
        return Rendering(proposals, final, colours, rgb)

    def get_outputs(self, ray_bundle: RayBundle) -> Dict[str, Any]:
        background = self.background()
        rendering = self.render(ray_bundle, background)
        outputs: Dict[str, Any] = {"rgb": rendering.rgb}
        if self.training:
            # Computed here, not with the other losses: on several GPUs every use of a parameter belongs in the forward
            # pass.
            outputs.update(background=background, rendering=rendering, regularizers=self.regularizers(rendering))
        else:
            # For pictures alone: neither losses nor metrics of training look at them, and viewers render in evaluation.
            outputs["accumulation"] = self.renderer_accumulation(rendering.final.weights[..., None])
            outputs["depth"] = rendering.final.median_depth()
            for number, level in enumerate(rendering.proposals):
                outputs[f"prop_depth_{number}"] = level.median_depth()
        return outputs

    @torch.no_grad()
    def get_outputs_for_camera_ray_bundle(self, camera_ray_bundle: RayBundle) -> Dict[str, Tensor]:
        asked = self.config.eval_num_rays_per_chunk
        self.config.eval_num_rays_per_chunk = min(asked, self.rays_at_a_time())
        try:
            return super().get_outputs_for_camera_ray_bundle(camera_ray_bundle)
        finally:
            self.config.eval_num_rays_per_chunk = asked

    def rays_at_a_time(self) -> int:
        """How many rays there is room to render at once, estimated from the numbers that a ray's samples hold."""
        room = ROOM_FOR_RENDERING
        if self.device.type == "cuda":
            # What PyTorch keeps for itself is free, too, where no tensor lies in it.
            kept = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            room = int(SHARE_FOR_RENDERING * (torch.cuda.mem_get_info(self.device)[0] + kept))
        return max(room // (4 * self.config.numbers_per_ray), FEWEST_RAYS)

    def get_metrics_dict(self, outputs: Dict[str, Any], batch: Dict[str, Any]) -> Dict[str, Tensor]:
        error = (outputs["rgb"].detach() - self.true_colour(outputs, batch)).square().mean()
        return {"psnr": -10 * torch.log10(error)}

    def get_loss_dict(
        self, outputs: Dict[str, Any], batch: Dict[str, Any], metrics_dict: Optional[Dict[str, Any]] = None
    ) -> Dict[str, Tensor]:
        losses = {"rgb_loss": (outputs["rgb"] - self.true_colour(outputs, batch)).square().mean()}
        if self.training:
            losses.update(outputs["regularizers"])
        return losses

    def regularizers(self, rendering: Rendering) -> Dict[str, Tensor]:
        """The weighted losses that need no target; those of weight 0 are not computed."""
        weights, final = self.config.regularizers, rendering.final
        losses: Dict[str, Tensor] = {}
        if weights.interlevel > 0:
            # On the steps on which proposals do not learn, no parameter has a gradient by it.
            learning = any(level.weights.requires_grad for level in rendering.proposals)
            levels = [(level.edges, level.weights) for level in rendering.proposals]
            losses["interlevel_loss"] = (
                weights.interlevel * histogram_loss(final.edges, final.weights, levels)
                if learning
                else torch.zeros((), device=final.weights.device)
            )
        if weights.distortion > 0:
            losses["distortion_loss"] = weights.distortion * distortion(final.weights, final.edges)
        if weights.plane_tv > 0:
            losses["plane_tv_loss"] = weights.plane_tv * plane_tv(self.field.planes.scales)
        if weights.proposal_tv > 0:
            losses["proposal_tv_loss"] = weights.proposal_tv * plane_tv(self.proposal_planes())
        return losses

    def proposal_planes(self) -> List[Tensor]:
        """Planes of all proposal levels."""
        return [scale for network in self.proposal_networks.children() for scale in network.planes.scales]  # type: ignore

    def true_colour(self, outputs: Dict[str, Any], batch: Dict[str, Any]) -> Float[Tensor, "*pixels 3"]:
        """The photo on the background that the prediction was composited on."""
        background = outputs.get("background", self.renderer_rgb.background_color)
        return self.renderer_rgb.blend_background(batch["image"].to(self.device), background)

    def get_image_metrics_and_images(
        self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]
    ) -> Tuple[Dict[str, float], Dict[str, Tensor]]:
        return scores_and_images(outputs, self.true_colour(outputs, batch))

    def get_rgba_image(self, outputs: Dict[str, Tensor], output_name: str = "rgb") -> Tensor:
        """Straight-alpha image: the background taken off again."""
        accumulation = outputs[output_name.replace("rgb", "accumulation")]
        rgb = outputs[output_name]
        background = self.renderer_rgb.get_background_color(
            self.renderer_rgb.background_color, shape=(3,), device=rgb.device
        )
        colour = (rgb - background * (1 - accumulation)) / accumulation.clamp(min=1e-6)
        return torch.cat((colour.clamp(0, 1), accumulation), dim=-1)
