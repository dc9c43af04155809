"""Divide: which training views belong to which group, and which group answers for a camera.

Needs neither torch nor nerfstudio. scikit-learn, networkx and the libraries that draw are imported where they are used.
"""

from dac_nerfstudio.partition.blending import blending_weights, nearness
from dac_nerfstudio.partition.divide import LEAST_EXCESS, divide
from dac_nerfstudio.partition.frames import Axis, Transform, align, find_axis, view_distances
from dac_nerfstudio.partition.partition import Partition
from dac_nerfstudio.partition.plot import plot_partition
from dac_nerfstudio.partition.publishing import check_views, current_partition, find_or_divide, publish
from dac_nerfstudio.partition.quality import assess
from dac_nerfstudio.partition.reading import as_recorded, find_model, read_views
from dac_nerfstudio.partition.similarity import SIMILARITIES, Similarity, measure
from dac_nerfstudio.partition.split import INTERACTIVE, PICTURE, read_test_views, split
from dac_nerfstudio.partition.strategies import STRATEGIES, azimuth, sector_centres
from dac_nerfstudio.partition.views import PartitionError, Views, listing, view_name

__all__ = [
    "INTERACTIVE",
    "LEAST_EXCESS",
    "PICTURE",
    "SIMILARITIES",
    "STRATEGIES",
    "Axis",
    "Partition",
    "PartitionError",
    "Similarity",
    "Transform",
    "Views",
    "align",
    "as_recorded",
    "assess",
    "azimuth",
    "blending_weights",
    "check_views",
    "current_partition",
    "divide",
    "find_axis",
    "find_model",
    "find_or_divide",
    "listing",
    "measure",
    "nearness",
    "plot_partition",
    "publish",
    "read_test_views",
    "read_views",
    "sector_centres",
    "split",
    "view_distances",
    "view_name",
]
