"""nerfstudio's dataset with photos read as they are meant, whatever kind of file they are."""

from __future__ import annotations

from typing import Any, Dict, Literal

import numpy as np
from jaxtyping import UInt8
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image

from dac_nerfstudio.scene.photos import read_photo


class PhotoDataset(InputDataset):
    """Photos and masks of their cameras' sizes.

    nerfstudio takes a file's numbers for colours: a palette's indices, the lower halves of sixteen bits, CMYK for RGBA.
    """

    def get_numpy_image(self, image_idx: int) -> UInt8[np.ndarray, "height width channels"]:
        """A photo, three or four channels.

        Raises:
            PhotoError: it is missing, damaged, of another size than its camera's, or its colours are not clear.
        """
        outputs = self._dataparser_outputs
        camera = outputs.cameras[image_idx]
        photo = read_photo(outputs.image_filenames[image_idx], (int(camera.width), int(camera.height)))
        if self.scale_factor != 1.0:
            size = [int(side * self.scale_factor) for side in photo.size]
            photo = photo.resize((size[0], size[1]), resample=Image.Resampling.BILINEAR)
        return np.array(photo)

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> Dict[str, Any]:
        data = super().get_data(image_idx, image_type)
        # A photo may have a pixel more than its camera at the right and below.
        height, width = (int(side[image_idx]) for side in (self.cameras.height, self.cameras.width))
        for name in data.keys() & {"image", "mask"}:
            data[name] = data[name][:height, :width]
        return data
