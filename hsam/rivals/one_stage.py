"""An image encoder and SAM's mask decoder with a token a class: what one-stage rivals share."""

import torch
from torch import Tensor

from hsam.backbones import get_backbone
from hsam.coarse_decoder import CoarseDecoder
from hsam.encoder import ImageEncoder
from hsam.inputs import check_classes, check_images
from hsam.model import SegmentationModel
from hsam.output import Segmentation
from hsam.prompt import PromptEncoder
from hsam.sam import TwoWayTransformer


class OneStage(SegmentationModel):
    """An image encoder and one decoder, whose logits have a quarter of the image's side."""

    def __init__(
        self,
        image_encoder: ImageEncoder,
        prompt_encoder: PromptEncoder,
        coarse_decoder: CoarseDecoder,
        classes: int,
    ) -> None:
        """Join the parts; `classes` includes the background."""
        super().__init__(image_encoder.img_size, classes)
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.coarse_decoder = coarse_decoder

    def forward(
        self,
        image: Tensor,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Segmentation:
        """Segment images.

        Args:
            image: (B, 1, S, S) or (B, 3, S, S), floating, in [0, 1].
            labels, generator: unused; there so that all models are called alike.

        Raises:
            TypeError, ValueError: an image of another dtype or shape.
        """
        image = check_images(image, self.image_size, self.dtype)
        coarse = self.coarse_decoder(self.image_encoder(image), *self.prompt_encoder())
        return Segmentation(coarse_logits=coarse.logits, coarse_iou=coarse.iou)


def one_stage(encoder: ImageEncoder, backbone: str, num_classes: int) -> OneStage:
    """An encoder followed by SAM's mask decoder, self attention first.

    Args:
        encoder: image encoder of that backbone.
        backbone: a name of `hsam.backbones()`.
        num_classes: organs, without the background.

    Raises:
        ValueError: an argument out of range.
    """
    sizes, classes = get_backbone(backbone), check_classes(num_classes)
    transformer = TwoWayTransformer(2, sizes.width, sizes.decoder_heads, 8 * sizes.width)
    decoder = CoarseDecoder(transformer, sizes.width, classes)
    return OneStage(encoder, PromptEncoder(sizes.width, encoder.img_size), decoder, classes)
