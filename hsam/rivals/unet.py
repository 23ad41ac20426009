"""A U-Net trained from scratch: what a user would pick instead.

Source: U-Net, arXiv 1505.04597, in MONAI's form (`monai.networks.nets.BasicUNet`). Trainable
parameters with the default features, 8 organs: 1,979,273. Needs the package monai.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hsam.inputs import check_classes, check_images
from hsam.model import SegmentationModel
from hsam.output import Segmentation

FEATURES = (32, 32, 64, 128, 256, 32)
SMALLEST = 32  # below it the deepest map is one pixel, which instance norm can't take


class UNet(SegmentationModel):
    """MONAI's BasicUNet in two dimensions; its only stage is the fine one."""

    def __init__(self, image_size: int, classes: int, features: Sequence[int] = FEATURES) -> None:
        """Build for S px and C classes; `features` are the widths of five levels and of the last.

        Raises:
            ImportError: no monai.
            ValueError: an image size that isn't a multiple of 16 from 32, or not six widths.
        """
        from monai.networks.nets import BasicUNet  # heavy, and needed by this model alone

        if image_size < SMALLEST or image_size % 16:
            raise ValueError(
                f"image_size: expected a multiple of 16 from {SMALLEST}, got {image_size}"
            )
        if len(features) != 6:
            raise ValueError(f"features: expected 6 widths, got {len(features)}")
        super().__init__(image_size, classes)
        self.net = BasicUNet(2, 3, classes, features=tuple(features))

    def forward(
        self,
        image: Tensor,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Segmentation:
        """Segment images.

        Args:
            image: (B, 1 to 3, S, S), floating, in [0, 1], as `hsam.inputs.check_images` takes them.
            labels, generator: taken so that all models are called alike; unused.

        Raises:
            TypeError, ValueError: an image of another dtype or shape.
        """
        return Segmentation(fine_logits=self.net(check_images(image, self.image_size, self.dtype)))


def build_unet(
    *, image_size: int = 512, num_classes: int = 8, features: Sequence[int] = FEATURES
) -> UNet:
    """Build the U-Net, in training mode; errors as in `UNet`."""
    model = UNet(image_size, check_classes(num_classes), features)
    model.config = {
        "model": "unet",
        "image_size": image_size,
        "num_classes": num_classes,
        "features": list(features),
    }
    return model
