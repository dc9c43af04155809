"""The ray tracer: intersections against brute force, alpha, and view dependence."""

import numpy as np
import pytest

from dac_nerfstudio.demo.castle import FLOOR, LIGHTS, castle
from dac_nerfstudio.demo.scene import CAMERA_ANGLE_X, CAMERA_DISTANCE
from dac_nerfstudio.demo.tracing import Camera, Renderer, Solid, intersect, look_at_origin

SIZE = 64
FOCAL = 0.5 * SIZE / np.tan(0.5 * CAMERA_ANGLE_X)


def white(points: np.ndarray, local: np.ndarray) -> np.ndarray:
    return np.ones_like(points)


def inside(solid: Solid, p: np.ndarray) -> np.ndarray:
    """Whether points [3, ...] of the unit frame lie in the solid."""
    if solid.kind == "sphere":
        return (p * p).sum(0) < 1
    if solid.kind == "box":
        return np.abs(p).max(0) < 1
    radius = (1 + solid.taper) / 2 + (solid.taper - 1) / 2 * p[2]
    return (np.abs(p[2]) < 1) & (np.hypot(p[0], p[1]) < radius)


@pytest.mark.parametrize("kind, taper", [("sphere", 1), ("box", 1), ("frustum", 1), ("frustum", 0.3), ("frustum", 0)])
def test_intersect_agrees_with_marching(kind: str, taper: float) -> None:
    solid = Solid(kind, np.zeros(3), np.eye(3), white, taper=taper)
    rng = np.random.default_rng(0)
    o = rng.normal(size=(3, 1000))
    o = (3 * o / np.linalg.norm(o, axis=0)).astype(np.float32)
    d = (rng.uniform(-1.2, 1.2, size=(3, 1000)) - o).astype(np.float32) / 3
    t = intersect(solid, o, d)
    steps = np.linspace(0, 6, 1201)
    within = inside(solid, o[:, None] + steps[:, None] * d[:, None])
    marched = np.where(within.any(0), steps[within.argmax(0)], np.inf)
    hit = np.isfinite(marched)
    assert 0.2 < hit.mean() < 1
    # The first step inside comes at most one step after the surface; marching may miss chords shorter than a step.
    assert (marched[hit] >= t[hit] - 1e-4).all() and (marched[hit] <= t[hit] + 0.0051).all()
    assert (np.isfinite(t) & ~hit).mean() < 0.01


def test_alpha_is_straight() -> None:
    """Silhouette pixels keep the object's colour: it is alpha, not colour, that fades."""
    ball = Solid("sphere", np.zeros(3), 0.8 * np.eye(3), white)
    renderer = Renderer([ball], [], SIZE)
    renderer.shade = lambda points, *_: np.full_like(points, 0.4)
    eye = np.array([CAMERA_DISTANCE, 0, 0])
    rgba = renderer.render(look_at_origin(eye), eye, SIZE, FOCAL, samples=3)
    assert len(np.unique(rgba[..., 3])) > 5
    rays_hit = rgba[..., 3] / 255 * 9
    np.testing.assert_allclose(rays_hit, rays_hit.round(), atol=0.02)
    assert len(np.unique(rgba[rgba[..., 3] > 0][:, :3])) == 1
    # The ball's silhouette is a disc of radius focal * tan(asin(0.8 / distance)).
    radius = FOCAL * np.tan(np.arcsin(0.8 / CAMERA_DISTANCE))
    assert (rgba[..., 3] / 255).sum() == pytest.approx(np.pi * radius**2, rel=0.01)


def seen_from(renderer: Renderer, point: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Colour in [0, 1] of the pixel that shows ``point`` to a camera along ``direction``."""
    eye = CAMERA_DISTANCE * direction / np.linalg.norm(direction)
    rotation = look_at_origin(eye)
    column, row, _ = Camera(rotation, eye, SIZE, FOCAL).project(point)
    rgba = renderer.render(rotation, eye, SIZE, FOCAL, samples=2)[int(row), int(column)]
    assert rgba[3] == 255
    return rgba[:3] / 255


def test_shiny_points_change_with_the_view_and_matt_points_do_not() -> None:
    renderer = Renderer(castle(np.random.default_rng(0)), LIGHTS, SIZE)
    to_light = LIGHTS[1][0] / np.linalg.norm(LIGHTS[1][0])
    mirror_view = np.array([-0.75, -0.25, 0.6]) / np.linalg.norm([-0.75, -0.25, 0.6])
    side_view = np.array([-0.5, -0.65, 0.45])
    normal = (to_light + mirror_view) / np.linalg.norm(to_light + mirror_view)
    on_red_ball = np.array([-0.52, -0.42, FLOOR + 0.29]) + 0.29 * normal
    change = np.abs(seen_from(renderer, on_red_ball, mirror_view) - seen_from(renderer, on_red_ball, side_view))
    assert change.max() > 0.25
    on_lawn = np.array([-0.95, -0.2, FLOOR])
    change = np.abs(seen_from(renderer, on_lawn, mirror_view) - seen_from(renderer, on_lawn, side_view))
    assert change.max() < 0.03


def test_everything_lies_in_the_box() -> None:
    """The content is turned about z, so its radius counts; +-1.2 is the box that scene bounds are set to."""
    for solid in castle(np.random.default_rng(0)):
        assert np.abs(solid.corners()[:, 2]).max() < 1.2
        reach = np.linalg.norm(solid.half_axes[:2, :2], axis=0).max() * (np.sqrt(2) if solid.kind == "box" else 1)
        assert np.linalg.norm(solid.center[:2]) + reach < 1.2
