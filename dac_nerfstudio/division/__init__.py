"""The picture, the page and the table of a division, and the step that divides a scene and leaves them in its folder.

The libraries that draw are imported where they are used.
"""

from dac_nerfstudio.division.page import write_page
from dac_nerfstudio.division.plot import plot_partition
from dac_nerfstudio.division.split import split
from dac_nerfstudio.division.table import division_table

__all__ = ["division_table", "plot_partition", "split", "write_page"]
