"""Sampling: a large scene is divided, scored and drawn by a sample of its views, which the others follow.

Similarities of all pairs grow with the square of the number of views, and searching for communities in them faster
still. Groups are large pieces of a scene, and where they part is seen on a few hundred views as well.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dac_nerfstudio.partition.strategies import Grouper, renumbered
from dac_nerfstudio.scene.frames import spread, view_distances
from dac_nerfstudio.scene.views import Views

MOST_VIEWS = 500
"""No scene of more views is looked at whole."""
SAMPLE = 300
"""The number of its views that are."""


def sample_of(views: int) -> np.ndarray:
    """Indices [sample] in rising order, of all views where there are no more than `MOST_VIEWS`.

    One is drawn at random from each of `SAMPLE` equal runs of the views: a sample of a video is spread evenly over
    its time, and one of several rings of cameras that take turns does not always meet the same ring.
    """
    if views <= MOST_VIEWS:
        return np.arange(views)
    starts = np.arange(SAMPLE + 1) * views // SAMPLE
    return np.random.default_rng(0).integers(starts[:-1], starts[1:])


def nearest_of(views: Views, sample: np.ndarray) -> np.ndarray:
    """Places in the sample [views]: of the view that each is nearest to, by `view_distances`."""
    if len(sample) == len(views):
        return np.arange(len(views))
    poses = views.camera_to_worlds
    nearest = view_distances(poses, poses[sample], spread(views.centres)).argmin(axis=1)
    nearest[sample] = np.arange(len(sample))  # also where two stand in one place
    return nearest


def representatives(views: Views, sample: np.ndarray) -> Views:
    """The views of a sample, where each also has seen the 3D points of those that follow it.

    Views of a video share points with a few before and after them alone: without this, those of a sample might share
    none.
    """
    chosen = views.select(sample)
    if views.tracks is None or len(sample) == len(views):
        return chosen
    nearest = nearest_of(views, sample)
    order = nearest.argsort(kind="stable")
    followers = np.split(order, np.searchsorted(nearest[order], np.arange(1, len(sample))))
    tracks = (np.unique(np.concatenate([views.tracks[i] for i in some])) for some in followers)
    return replace(chosen, tracks=tuple(tracks))


def followed(group: Grouper, views: Views, sample: np.ndarray) -> Grouper:
    """What divides all views as `group` divides those of a sample: each joins the group of the nearest of them."""
    if len(sample) == len(views):
        return group
    nearest = nearest_of(views, sample)
    return lambda groups: renumbered(group(groups)[nearest])
