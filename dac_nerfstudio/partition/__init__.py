"""Divide: which training views belong to which group, and which group answers for a camera.

Needs numpy alone; images are opened with Pillow and pictures drawn with matplotlib only when asked for.
"""

from dac_nerfstudio.partition.frames import Similarity, align
from dac_nerfstudio.partition.partition import Partition, check_views, divide, find_or_divide, publish
from dac_nerfstudio.partition.plot import plot_partition
from dac_nerfstudio.partition.strategies import STRATEGIES, azimuth, sector_centres
from dac_nerfstudio.partition.views import PartitionError, Views, read_views, view_name

__all__ = [
    "STRATEGIES",
    "Partition",
    "PartitionError",
    "Similarity",
    "Views",
    "align",
    "azimuth",
    "check_views",
    "divide",
    "find_or_divide",
    "plot_partition",
    "publish",
    "read_views",
    "sector_centres",
    "view_name",
]
