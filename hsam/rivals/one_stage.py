"""An image encoder and SAM's mask decoder with a token a class: what one-stage rivals share."""

import torch
from torch import Tensor

from hsam.adapted_encoder import EncoderOptions
from hsam.coarse_decoder import CoarseDecoder, decoder_steps
from hsam.encoders.base import ImageEncoder
from hsam.inputs import check_classes
from hsam.model import EncodedModel
from hsam.output import Segmentation
from hsam.prompt import PromptEncoder
from hsam.sam import TwoWayTransformer


class OneStage(EncodedModel):
    """An image encoder and one decoder, whose logits have four times the embedding's side."""

    def __init__(
        self,
        image_encoder: ImageEncoder,
        prompt_encoder: PromptEncoder,
        coarse_decoder: CoarseDecoder,
        image_size: int,
        classes: int,
    ) -> None:
        """Join the parts, for images of `image_size` pixels; `classes` includes the background."""
        super().__init__(image_encoder, image_size, classes)
        self.prompt_encoder = prompt_encoder
        self.coarse_decoder = coarse_decoder

    def forward(
        self,
        image: Tensor | None,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        embedding: Tensor | None = None,
    ) -> Segmentation:
        """Segment images.

        Args:
            image: (B, 1 to 3, S, S), floating, in [0, 1], as `hsam.inputs.check_images` takes them.
            labels, generator: unused; there so that all models are called alike.
            embedding: (B, D, G, G), what `embed` gave for the images, which are None then.

        Raises:
            TypeError, ValueError: an image of another dtype or shape.
        """
        embedding = self.embedding_of(image, embedding)
        coarse = self.coarse_decoder(embedding, *self.prompt_encoder())
        scale = self.image_size // coarse.logits.shape[-1]
        return Segmentation(coarse_logits=coarse.logits, coarse_iou=coarse.iou, scale=scale)


def one_stage(
    encoder: ImageEncoder, options: EncoderOptions, image_size: int, num_classes: int
) -> OneStage:
    """An encoder followed by SAM's mask decoder, self attention first.

    Args:
        encoder: what `options` built.
        options: of the encoder.
        image_size: side S of the images in pixels.
        num_classes: organs, without the background.

    Raises:
        ValueError: an argument out of range.
    """
    line, classes = options.line, check_classes(num_classes)
    decoder_steps(image_size, encoder.grid)
    transformer = TwoWayTransformer(2, line.width, line.decoder_heads, 8 * line.width)
    decoder = CoarseDecoder(transformer, line.width, classes)
    prompt = PromptEncoder(line.width, image_size, encoder.grid)
    return OneStage(encoder, prompt, decoder, image_size, classes)
