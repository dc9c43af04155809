"""The demo scene's content: a toy castle whose front is intricate and whose back is plain.

Everything is laid out in the stage frame: z up, the intricate front towards +x, the plain back towards -x, the wall
between them in the plane x = 0. Seen from one side, the wall hides most of the other, so that views from different
azimuths need different amounts of capacity: the case that dividing the views is for.
"""

from __future__ import annotations

import numpy as np

from dac_nerfstudio.demo.tracing import Points, Solid, Texture

FLOOR = -0.49
"""Height of the base plate's top, scene units."""

LAWN, PLASTER = (0.20, 0.36, 0.08), (0.80, 0.60, 0.38)
GOLD, STONE = (0.86, 0.46, 0.05), (0.66, 0.61, 0.53)
RED, BLUE, YELLOW, ROOF = (0.72, 0.03, 0.03), (0.03, 0.12, 0.56), (0.88, 0.50, 0.03), (0.46, 0.05, 0.04)
MOSAIC = [(0.80, 0.74, 0.62), (0.04, 0.13, 0.33), (0.02, 0.36, 0.42), (0.72, 0.30, 0.05), (0.80, 0.74, 0.62)]
BRICKS = [(0.52, 0.17, 0.09), (0.64, 0.25, 0.12), (0.42, 0.12, 0.08), (0.74, 0.40, 0.22), (0.30, 0.10, 0.09)]
TOYS = [(0.80, 0.08, 0.06), (0.90, 0.52, 0.04), (0.06, 0.42, 0.16), (0.05, 0.20, 0.66), (0.48, 0.10, 0.48)]
TOYS += [(0.02, 0.50, 0.55), (0.88, 0.82, 0.70)]

LIGHTS = [
    (np.array([0.62, -0.52, 0.80]), np.array([1.20, 1.06, 0.84])),
    (np.array([-0.66, -0.34, 0.78]), np.array([0.92, 0.88, 0.84])),
]
"""Direction to each light (stage frame) and its linear colour; one for each side of the wall."""


def _pick(palette: list[tuple[float, float, float]], i: np.ndarray, j: np.ndarray) -> Points:
    """A palette colour for each integer cell, scattered by a hash so that neighbours are unrelated."""
    h = i.astype(np.int64) * 73856093 ^ j.astype(np.int64) * 19349663
    h = (h ^ (h >> 13)) * 1274126177
    return np.array(palette, np.float32)[((h >> 16) & 0xFFFF) % len(palette)]


def _plain(rgb: tuple[float, float, float]) -> Texture:
    return lambda points, local: np.broadcast_to(np.array(rgb, np.float32), points.shape)


def _front_back(front: Texture, back: Texture) -> Texture:
    """One texture for the intricate half (x > 0), another for the plain half."""
    return lambda points, local: np.where(points[:, :1] > 0.004, front(points, local), back(points, local))


def _mosaic(points: Points, local: Points) -> Points:
    """Rings of small tiles around the centre, with grout; alternating rings are two-coloured checks."""
    radius, angle = np.hypot(points[:, 0], points[:, 1]), np.arctan2(points[:, 1], points[:, 0])
    ring = radius / 0.058
    spoke = angle / np.pi * np.round(np.pi * (np.floor(ring) + 0.5))
    check = np.array([(0.82, 0.78, 0.70), (0.05, 0.06, 0.09)], np.float32)
    checks = check[(np.floor(spoke) % 2).astype(int)]
    tiles = np.where((np.floor(ring) % 3 == 1)[:, None], checks, _pick(MOSAIC, np.floor(ring), np.floor(spoke)))
    grout = (ring % 1 < 0.13) | (spoke % 1 < 0.13)
    return np.where(grout[:, None], np.float32(0.36), tiles)


def _masonry(along: np.ndarray, z: np.ndarray, length: float = 0.115, height: float = 0.052) -> Points:
    """Running-bond bricks with light mortar; ``along`` is the distance along the wall."""
    course = np.floor(z / height)
    s = along / length + 0.5 * (course % 2)
    mortar = ((z / height) % 1 < 0.15) | (s % 1 < 0.075)
    return np.where(mortar[:, None], np.float32(0.62), _pick(BRICKS, np.floor(s), course))


def _wall_front(points: Points, local: Points) -> Points:
    """Bricks with a row of dark arched windows framed in stone."""
    y, z = points[:, 1], points[:, 2] - 0.13
    across = (np.abs(y) - 0.245) % 0.19 - 0.095
    arch = np.where(z < 0.0, np.abs(across), np.hypot(across, z))
    low = z > -0.14
    frame, opening = (arch < 0.058) & (z > -0.165), (arch < 0.036) & low
    rgb = np.where(frame[:, None], np.array(STONE, np.float32), _masonry(y, z))
    return np.where(opening[:, None], np.array((0.035, 0.04, 0.07), np.float32), rgb)


def _tower_front(radius: float) -> Texture:
    return lambda points, local: _masonry(np.arctan2(local[:, 1], local[:, 0]) * radius, points[:, 2], 0.1)


def _shingles(points: Points, local: Points) -> Points:
    """Roof tiles around a cone."""
    course = np.floor(local[:, 2] * 7)
    spoke = np.arctan2(local[:, 1], local[:, 0]) / np.pi * 14 + 0.5 * (course % 2)
    edge = ((local[:, 2] * 7) % 1 < 0.2) | (spoke % 1 < 0.12)
    colours = [(0.05, 0.20, 0.34), (0.04, 0.28, 0.38), (0.08, 0.14, 0.30), (0.03, 0.36, 0.40)]
    return np.where(edge[:, None], np.float32(0.02), _pick(colours, np.floor(spoke), course))


def _glyphs(points: Points, local: Points) -> Points:
    """Engraved signs: a random half of small cells is dark, in framed rows."""
    u = np.where(np.abs(local[:, 0]) > np.abs(local[:, 1]), local[:, 1] + 3, local[:, 0])
    column, row = np.floor(u * 3.5), np.floor(points[:, 2] / 0.026)
    dark = _pick([(0.10, 0.07, 0.05), (0.80, 0.66, 0.42)], column, row)
    return np.where((row % 5 == 0)[:, None], np.array((0.45, 0.10, 0.05), np.float32), dark)


def _spiral(points: Points, local: Points) -> Points:
    """A barber's pole."""
    turn = np.arctan2(local[:, 1], local[:, 0]) / np.pi + points[:, 2] / 0.085
    return np.where((turn % 1 < 0.42)[:, None], np.array((0.06, 0.20, 0.42), np.float32), np.float32(0.80))


def _solid(kind, center, half, texture, yaw: float = 0.0, **surface) -> Solid:
    """A solid standing at ``center`` with half sizes ``half``, turned by ``yaw`` radians about z."""
    c, s = np.cos(yaw), np.sin(yaw)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    texture = texture if callable(texture) else _plain(texture)
    return Solid(kind, np.array(center, float), turn * np.array(half, float), texture, **surface)


def _upright(x: float, y: float, low: float, high: float, radius: float, texture, **surface) -> Solid:
    """A cylinder, or with ``taper`` a cone, between two heights."""
    return _solid("frustum", (x, y, (low + high) / 2), (radius, radius, (high - low) / 2), texture, **surface)


def _fortress() -> list[Solid]:
    """Plate, wall, keep and side towers, all with a brick front and a plastered back."""
    solids = [
        _upright(0, 0, FLOOR - 0.07, FLOOR, 1.09, _front_back(_mosaic, _plain(LAWN))),
        _upright(0, 0, FLOOR - 0.13, FLOOR - 0.0701, 1.12, STONE, shine=0.2),
        _solid("box", (0, 0, (FLOOR + 0.25) / 2), (0.085, 0.80, (0.25 - FLOOR) / 2),
               _front_back(_wall_front, _plain(PLASTER))),
    ]  # fmt: skip
    for y in np.linspace(-0.57, 0.57, 7):
        if abs(y) > 0.25:
            merlon = _front_back(lambda p, _: _masonry(p[:, 1], p[:, 2]), _plain(PLASTER))
            solids.append(_solid("box", (0, y, 0.295), (0.085, 0.055, 0.045), merlon))
    for y, radius, top, peak in ((0.0, 0.25, 0.55, 1.04), (-0.79, 0.17, 0.35, 0.72), (0.79, 0.17, 0.35, 0.72)):
        solids += [
            _upright(0, y, FLOOR, top, radius, _front_back(_tower_front(radius), _plain(PLASTER))),
            _upright(0, y, top, top + 0.05, radius + 0.035, STONE, shine=0.2),
            _upright(
                0, y, top + 0.05, peak, radius + 0.02, _front_back(_shingles, _plain(ROOF)), taper=0.0, shine=0.35
            ),
            _solid("sphere", (0, y, peak + 0.01), (0.045,) * 3, GOLD, shine=1.0, gloss=120.0),
        ]
    return solids


def _courtyard(rng: np.random.Generator) -> list[Solid]:
    """The intricate front: a colonnade, a heap of bricks, a heap of balls and an inscribed obelisk."""
    solids = []
    angles = np.radians(np.linspace(-64, 64, 15))
    for angle in angles:
        x, y = 0.97 * np.cos(angle), 0.97 * np.sin(angle)
        solids.append(_upright(x, y, FLOOR, FLOOR + 0.36, 0.021, _spiral, shine=0.3))
        solids.append(_solid("box", (x, y, FLOOR + 0.012), (0.036, 0.036, 0.012), STONE, angle))
        solids.append(_solid("box", (x, y, FLOOR + 0.37), (0.036, 0.036, 0.012), STONE, angle))
        rgb = TOYS[rng.integers(len(TOYS))]
        solids.append(_solid("sphere", (x, y, FLOOR + 0.415), (0.034,) * 3, rgb, shine=0.8, gloss=90.0))
    half = 0.058
    for layer, count in enumerate((4, 3, 2, 1)):
        for i, j in np.ndindex(count, count):
            offset = np.array([i, j]) * 0.124 - (count - 1) * 0.062
            center = (0.50 + offset[0], 0.47 + offset[1], FLOOR + half * (2 * layer + 1))
            yaw = rng.uniform(-0.1, 0.1)
            solids.append(_solid("box", center, (half,) * 3, TOYS[rng.integers(len(TOYS))], yaw, shine=0.25))
            # Balls that rest in the hollows of the layer below: layers are radius * sqrt(2) apart.
            center = (0.50 + offset[0], -0.47 + offset[1], FLOOR + 0.062 + layer * 0.062 * np.sqrt(2))
            rgb = TOYS[rng.integers(len(TOYS))]
            solids.append(_solid("sphere", center, (0.062,) * 3, rgb, shine=0.9, gloss=100.0))
    solids += [
        _solid("box", (0.58, 0, FLOOR + 0.03), (0.13, 0.13, 0.03), STONE, np.pi / 4),
        _solid("box", (0.58, 0, FLOOR + 0.08), (0.095, 0.095, 0.02), STONE, np.pi / 4),
        _solid("box", (0.58, 0, FLOOR + 0.33), (0.055, 0.055, 0.23), _glyphs, np.pi / 4, shine=0.25),
        _solid("sphere", (0.58, 0, FLOOR + 0.605), (0.05,) * 3, GOLD, shine=1.0, gloss=120.0),
    ]
    return solids


def _garden() -> list[Solid]:
    """The plain back: a few large, smooth, glossy shapes."""
    return [
        _solid("sphere", (-0.52, -0.42, FLOOR + 0.29), (0.29,) * 3, RED, shine=1.0, gloss=160.0),
        _upright(-0.46, 0.46, FLOOR, FLOOR + 0.62, 0.27, BLUE, taper=0.25, shine=0.7, gloss=60.0),
        _solid("sphere", (-0.84, 0.07, FLOOR + 0.13), (0.16, 0.2, 0.13), YELLOW, 0.4, shine=1.0, gloss=120.0),
    ]


def castle(rng: np.random.Generator) -> list[Solid]:
    """All solids, in the stage frame; ``rng`` chooses the toys' colours. Lies within a radius of 1.12 about z."""
    return _fortress() + _courtyard(rng) + _garden()
