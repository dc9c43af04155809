"""A small numpy ray tracer for convex solids: what the demo scene is drawn with.

Letters and shapes used throughout (float32, lengths in scene units):
    points, normals   [n, 3]     rows are points
    origins, dirs     [3, h, w]  rays of an image, components first; either may be [3, 1, 1] (shared by all rays)
    t                 [h, w]     hit = origin + t * dir, infinite where nothing is hit

Lighting that does not depend on the viewer (shadows, ambient occlusion) is read from depth maps that are drawn once
per scene with the same intersection code, so that each picture costs only its primary rays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Literal

import numpy as np
from jaxtyping import Float, Int

Points = Float[np.ndarray, "n 3"]
Texture = Callable[[Points, Points], Points]
"""(points in the scene's frame, points in the solid's unit frame) -> linear albedo in [0, 1]."""

_UNIT_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)


@dataclass(frozen=True, eq=False)
class Solid:
    """A unit sphere, a cube [-1, 1]^3 or an upright frustum (radius 1 at z=-1, ``taper`` at z=1), mapped affinely."""

    kind: Literal["sphere", "box", "frustum"]
    center: Float[np.ndarray, " 3"]
    half_axes: Float[np.ndarray, "3 3"]
    """Columns are the images of the unit frame's axes."""
    texture: Texture
    shine: float = 0.0
    """Strength of highlight and reflection, 0 = matt."""
    gloss: float = 40.0
    """Blinn-Phong exponent; larger is more mirror-like."""
    taper: float = 1.0

    def corners(self) -> Float[np.ndarray, "8 3"]:
        """Corners of the bounding box (the solid lies in their convex hull)."""
        return self.center + _UNIT_CORNERS @ self.half_axes.T


@dataclass(frozen=True, eq=False)
class Camera:
    """A square image with OpenGL axes (columns of ``rotation``: right, up, back), perspective or orthographic."""

    rotation: Float[np.ndarray, "3 3"]
    position: Float[np.ndarray, " 3"]
    width: int
    """Pixels."""
    scale: float
    """Pixels per unit of slope (perspective: the focal length) or per scene unit (orthographic)."""
    perspective: bool = True

    def project(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Column, row (pixels, centre of the first pixel at 0.5) and depth along the viewing axis."""
        x, y, z = np.moveaxis((points - self.position) @ self.rotation, -1, 0)
        scale = self.scale / -z if self.perspective else self.scale
        return np.stack([self.width / 2 + x * scale, self.width / 2 - y * scale, -z], axis=-1)

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """Origins and directions through the pixels' centres; t is the depth along the viewing axis."""
        x = (np.arange(self.width, dtype=np.float32) + 0.5 - self.width / 2) / np.float32(self.scale)
        right, up, back = (axis[:, None, None] for axis in self.rotation.T.astype(np.float32))
        across = right * x[None, None, :] - up * x[None, :, None]
        position = self.position.astype(np.float32)[:, None, None]
        return (position, across - back) if self.perspective else (position + across, -back)


def intersect(solid: Solid, o: Float[np.ndarray, "3 #n"], d: Float[np.ndarray, "3 #n"]) -> Float[np.ndarray, " n"]:
    """Nearest t of rays given in the solid's unit frame and starting outside of it; infinite where they miss."""
    if solid.kind == "sphere":
        a, b, c = (d * d).sum(0), (o * d).sum(0), (o * o).sum(0) - 1
        disc = b * b - a * c
        return np.where(disc > 0, (-b - np.sqrt(np.maximum(disc, 0))) / a, np.inf)
    if solid.kind == "box":
        inverse = 1 / np.where(np.abs(d) < 1e-9, np.float32(1e-9), d)
        middle, half = -o * inverse, np.abs(inverse)
        near, far = (middle - half).max(0), (middle + half).min(0)
        return np.where(near < far, near, np.inf)
    # Frustum: x^2 + y^2 = r(z)^2 with r = r0 + k z. Both roots are tried, as the cone's mirror image beyond the apex
    # may own the first one, then the two caps.
    r0, k = (1 + solid.taper) / 2, (solid.taper - 1) / 2
    ro, rd = r0 + k * o[2], k * d[2]
    a = d[0] ** 2 + d[1] ** 2 - rd * rd
    a = np.where(np.abs(a) < 1e-9, np.float32(1e-9), a)
    b = o[0] * d[0] + o[1] * d[1] - ro * rd
    disc = b * b - a * (o[0] ** 2 + o[1] ** 2 - ro * ro)
    root = np.sqrt(np.maximum(disc, 0))
    best = np.full(np.shape(disc), np.inf, np.float32)
    for t in ((-b - root) / a, (-b + root) / a):
        best = np.where((disc > 0) & (np.abs(o[2] + t * d[2]) <= 1) & (t < best), t, best)
    dz = np.where(np.abs(d[2]) < 1e-9, np.float32(1e-9), d[2])
    for z, radius in ((-1.0, 1.0), (1.0, solid.taper)):
        t = (z - o[2]) / dz
        inside = (o[0] + t * d[0]) ** 2 + (o[1] + t * d[1]) ** 2 <= radius * radius
        best = np.where(inside & (t < best), t, best)
    return best


def unit_normals(solid: Solid, points: Points) -> Points:
    """Outward normals (any length) of surface points, both in the solid's unit frame."""
    if solid.kind == "sphere":
        return points
    if solid.kind == "box":
        face = np.abs(points).argmax(1)[:, None] == np.arange(3)
        return np.sign(points) * face
    r0, k = (1 + solid.taper) / 2, (solid.taper - 1) / 2
    side = np.column_stack([points[:, :2], -k * (r0 + k * points[:, 2])])
    cap = np.column_stack([np.zeros_like(points[:, :2]), np.sign(points[:, 2])])
    return np.where(np.abs(points[:, 2:]) > 0.999, cap, side)


def nearest_hits(solids: list[Solid], camera: Camera) -> tuple[Float[np.ndarray, "h w"], Int[np.ndarray, "h w"]]:
    """Depth (infinite for background) and index of the solid (-1 for background) seen by each pixel."""
    width = camera.width
    depth = np.full((width, width), np.inf, np.float32)
    index = np.full((width, width), -1, np.int16)
    origins, dirs = camera.rays()
    # Each solid is tested only against the pixels of its bounding box's projection.
    bounds = camera.project(np.stack([solid.corners() for solid in solids]))[..., :2]
    low = np.clip(np.floor(bounds.min(1)), 0, width).astype(int)
    high = np.clip(np.ceil(bounds.max(1)), 0, width).astype(int)
    for i, (solid, (c0, r0), (c1, r1)) in enumerate(zip(solids, low, high, strict=True)):
        if c0 >= c1 or r0 >= r1:
            continue
        to_unit = np.linalg.inv(solid.half_axes).astype(np.float32)
        center = solid.center.astype(np.float32)[:, None]
        window = (slice(r0, r1), slice(c0, c1))
        o, d = (x if x.shape[1] == 1 else x[:, window[0], window[1]] for x in (origins, dirs))
        t = intersect(solid, to_unit @ (o.reshape(3, -1) - center), to_unit @ d.reshape(3, -1))
        t = t.reshape(r1 - r0, c1 - c0)
        closer = t < depth[window]
        depth[window][closer] = t[closer]
        index[window][closer] = i
    return depth, index


class DepthMap:
    """What a far light sees, and so which points it reaches."""

    def __init__(self, solids: list[Solid], direction: np.ndarray, width: int, reach: float = 1.75):
        """``direction`` points to the light; the map covers a ball of radius ``reach`` around the origin."""
        self.direction = (direction / np.linalg.norm(direction)).astype(np.float32)
        self.camera = Camera(look_at_origin(self.direction), 4 * self.direction, width, width / (2 * reach), False)
        self.depth = nearest_hits(solids, self.camera)[0].ravel()

    def visibility(self, points: Points, smooth: bool) -> Float[np.ndarray, " n"]:
        """Share of the light that arrives, in [0, 1]; ``smooth`` blends the four nearest texels."""
        width = self.camera.width
        column, row, depth = self.camera.project(points).T
        if not smooth:
            texel = row.astype(np.int32) * width + column.astype(np.int32)
            return (self.depth[texel] > depth).astype(np.float32)
        column, row = column - 0.5, row - 0.5
        texel = row.astype(np.int32) * width + column.astype(np.int32)
        u, v = column % 1, row % 1
        lit = [(self.depth[texel + step] > depth).astype(np.float32) for step in (0, 1, width, width + 1)]
        return (lit[0] * (1 - u) + lit[1] * u) * (1 - v) + (lit[2] * (1 - u) + lit[3] * u) * v


def look_at_origin(direction: np.ndarray) -> Float[np.ndarray, "3 3"]:
    """Rotation (columns right, up, back; z up) of a camera that sits along ``direction`` and looks at the origin."""
    back = direction / np.linalg.norm(direction)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    return np.column_stack([right, np.cross(back, right), back]).astype(direction.dtype)


class Renderer:
    """Draws solids under fixed far lights and a soft sky."""

    SKY_MAPS = 24
    SKY = np.array([0.42, 0.49, 0.60], np.float32)
    GROUND = np.array([0.13, 0.12, 0.11], np.float32)

    def __init__(self, solids: list[Solid], lights: list[tuple[np.ndarray, np.ndarray]], image_width: int):
        """``lights``: pairs of the direction to the light and its colour. ``image_width`` sets the maps' resolution."""
        self.solids = solids
        self.shine = np.array([solid.shine for solid in solids], np.float32)
        self.gloss = np.array([solid.gloss for solid in solids], np.float32)
        shadow_width = int(np.clip(10 * image_width, 256, 2048))
        self.lights = [(DepthMap(solids, to, shadow_width), np.asarray(rgb, np.float32)) for to, rgb in lights]
        sky_width = int(np.clip(3 * image_width, 96, 384))
        i = np.arange(self.SKY_MAPS) + 0.5
        z, turn = 1 - 0.92 * i / self.SKY_MAPS, i * np.pi * (3 - np.sqrt(5))
        sky = np.column_stack([np.sqrt(1 - z * z) * np.cos(turn), np.sqrt(1 - z * z) * np.sin(turn), z])
        self.sky = [DepthMap(solids, to.astype(np.float32), sky_width) for to in sky]

    def shade(self, points: Points, normals: Points, albedo: Points, to_eye: Points, index: np.ndarray) -> Points:
        """Linear colour: ambient occlusion, shadowed Lambert, Blinn-Phong highlights and a Fresnel sky reflection."""
        # Depth maps are coarse: lifting the points off the surface keeps it from shadowing itself.
        lifted = points + 0.011 * normals
        openness = np.zeros(len(points), np.float32)
        for sky in self.sky:
            facing = normals @ sky.direction
            openness += np.maximum(facing, 0) * sky.visibility(lifted + 0.012 * normals, smooth=False)
        openness *= 2 / self.SKY_MAPS
        diffuse = openness[:, None] * self.SKY + self.GROUND
        shine, gloss = self.shine[index], self.gloss[index]
        specular = np.zeros_like(points)
        for light, rgb in self.lights:
            facing = np.maximum(normals @ light.direction, 0)
            arriving = facing * light.visibility(lifted, smooth=True)
            half = to_eye + light.direction
            half /= np.linalg.norm(half, axis=1, keepdims=True)
            lobe = np.maximum((normals * half).sum(1), 0) ** gloss * (arriving > 0)
            diffuse += arriving[:, None] * rgb
            specular += (1.6 * shine * lobe)[:, None] * rgb
        cosine = (normals * to_eye).sum(1)
        mirrored_z = 2 * cosine * normals[:, 2] - to_eye[:, 2]
        fresnel = shine * (0.08 + 0.6 * (1 - np.clip(cosine, 0, 1)) ** 4) * (0.25 + 0.75 * np.minimum(openness, 1))
        sky_seen = np.clip(0.5 + 1.2 * mirrored_z, 0, 1)[:, None]
        return albedo * diffuse + specular + fresnel[:, None] * (self.GROUND + sky_seen * 1.2 * self.SKY)

    def render(self, rotation: np.ndarray, position: np.ndarray, width: int, focal: float, samples: int) -> np.ndarray:
        """RGBA picture, uint8 [width, width, 4], straight alpha; ``samples`` x ``samples`` rays per pixel."""
        camera = Camera(rotation, position, width * samples, focal * samples)
        depth, index = nearest_hits(self.solids, camera)
        pixels = np.flatnonzero(index.ravel() >= 0)
        # Grouped by solid, so that each solid's normals and texture are one call on a contiguous slice.
        pixels = pixels[np.argsort(index.ravel()[pixels], kind="stable")]
        index, t = index.ravel()[pixels], depth.ravel()[pixels]
        origin, dirs = camera.rays()
        dirs = dirs.reshape(3, -1)[:, pixels].T
        points = origin.reshape(1, 3) + t[:, None] * dirs
        to_eye = -dirs / np.linalg.norm(dirs, axis=1, keepdims=True)
        normals, albedo = np.empty_like(points), np.empty_like(points)
        edges = np.searchsorted(index, np.arange(len(self.solids) + 1))
        for solid, start, stop in zip(self.solids, edges, edges[1:], strict=False):
            if start < stop:
                to_unit = np.linalg.inv(solid.half_axes).astype(np.float32)
                local = (points[start:stop] - solid.center.astype(np.float32)) @ to_unit.T
                normals[start:stop] = unit_normals(solid, local) @ to_unit
                albedo[start:stop] = solid.texture(points[start:stop], local)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        linear = self.shade(points, normals, albedo, to_eye, index)
        samples_rgba = np.zeros((camera.width**2, 4), np.float32)
        samples_rgba[pixels, :3] = (1 - np.exp(-1.25 * linear)) ** (1 / 2.2)
        samples_rgba[pixels, 3] = 1
        # Averaged after tone mapping, since that is where viewers composite; background samples hold zero colour, so
        # the sums are premultiplied and dividing by coverage gives straight alpha.
        total = samples_rgba.reshape(width, samples, width, samples, 4).mean((1, 3))
        total[..., :3] /= np.maximum(total[..., 3:], 1e-6)
        return (np.clip(total, 0, 1) * 255 + 0.5).astype(np.uint8)
