"""Divide: which training views belong to which group, and which group answers for a camera.

Needs neither torch nor nerfstudio. scikit-learn and networkx are imported where they are used.
"""

from dac_nerfstudio.partition.blending import blending_weights, nearness
from dac_nerfstudio.partition.divide import divide
from dac_nerfstudio.partition.partition import Partition
from dac_nerfstudio.partition.publishing import check_views, current_partition, publish, publish_first
from dac_nerfstudio.partition.quality import assess, verdict
from dac_nerfstudio.partition.similarity import SIMILARITIES, Similarity, measure
from dac_nerfstudio.partition.strategies import STRATEGIES, azimuth, sector_centres
from dac_nerfstudio.scene.frames import Axis, Transform, align, find_axis, view_distances
from dac_nerfstudio.scene.views import PartitionError, Views, listing, view_name

__all__ = [
    "SIMILARITIES",
    "STRATEGIES",
    "Axis",
    "Partition",
    "PartitionError",
    "Similarity",
    "Transform",
    "Views",
    "align",
    "assess",
    "azimuth",
    "blending_weights",
    "check_views",
    "current_partition",
    "divide",
    "find_axis",
    "listing",
    "measure",
    "nearness",
    "publish",
    "publish_first",
    "sector_centres",
    "verdict",
    "view_distances",
    "view_name",
]
