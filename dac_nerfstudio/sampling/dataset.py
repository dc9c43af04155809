"""nerfstudio's dataset with photos read as they are meant, whatever kind of file they are."""

from __future__ import annotations

from typing import Any, Dict, Literal, Optional

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image

from dac_nerfstudio.scene.photos import read_mask, read_photo


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
        image = self.get_image_uint8(image_idx) if image_type == "uint8" else self.get_image_float32(image_idx)
        # A photo may have a pixel more than its camera at the right and below.
        height, width = (int(side[image_idx]) for side in (self.cameras.height, self.cameras.width))
        data: Dict[str, Any] = {"image_idx": image_idx, "image": image[:height, :width]}
        mask = self.mask_of(image_idx)
        if mask is not None:
            data["mask"] = torch.from_numpy(mask)[:height, :width, None]
            if self.mask_color:
                colour = torch.tensor(self.mask_color) * (255 if image_type == "uint8" else 1)
                data["image"] = torch.where(data["mask"], data["image"], colour.to(data["image"].dtype))
        return {**data, **self.get_metadata(data)}

    def mask_of(self, image_idx: int) -> Optional[Bool[np.ndarray, "height width"]]:
        """Where a photo is to be seen: by its mask, and inside the circle of a fisheye lens; None if everywhere.

        Raises:
            PhotoError: the mask is missing, damaged, or of another size than its camera's.
        """
        outputs, mask = self._dataparser_outputs, None
        if outputs.mask_filenames is not None:
            camera = outputs.cameras[image_idx]
            size = int(camera.width), int(camera.height)
            mask = read_mask(outputs.mask_filenames[image_idx], size, self.scale_factor)
        radius = (self.cameras.metadata or {}).get("fisheye_crop_radius")
        if radius is not None:
            height, width = (int(side[image_idx]) for side in (self.cameras.height, self.cameras.width))
            rows, columns = np.ogrid[:height, :width]
            circle = np.hypot(rows + 0.5 - height / 2, columns + 0.5 - width / 2) <= radius * self.scale_factor
            mask = circle if mask is None else mask[:height, :width] & circle
        return mask
