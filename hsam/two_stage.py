"""H-SAM: SAM's encoder with LoRA and two decoders, the second guided by the first.

Source: Unleashing the Potential of SAM for Medical Adaptation via Hierarchical Decoding, section 3.
"""

import torch
from torch import Tensor

from hsam.coarse_decoder import CoarseDecoder
from hsam.encoders.base import ImageEncoder
from hsam.fine_decoder import FineDecoder
from hsam.inputs import check_labels
from hsam.model import EncodedModel
from hsam.noise import range_noise
from hsam.output import Segmentation
from hsam.prompt import PromptEncoder


class HSAM(EncodedModel):
    """H-SAM, the two-stage model.

    Source: paper section 3, figure 2.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        prompt_encoder: PromptEncoder,
        coarse_decoder: CoarseDecoder,
        fine_decoder: FineDecoder,
        image_size: int,
        classes: int,
        embedding_noise: float,
    ) -> None:
        """Join the parts.

        Args:
            image_encoder, prompt_encoder, coarse_decoder, fine_decoder: of one width and grid.
            image_size: side S of the images in pixels.
            classes: number of classes C, background included.
            embedding_noise: standard deviation of the noise that stage 2's image embedding gets in
                training, as a share of the embedding's range.
        """
        super().__init__(image_encoder, image_size, classes)
        self.prompt_encoder = prompt_encoder
        self.coarse_decoder = coarse_decoder
        self.fine_decoder = fine_decoder
        self.embedding_noise = embedding_noise

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
            labels: (B, S, S), integer ground truth in [0, C), for CMAttn's class-balanced noise;
                used in training only.
            generator: random number generator for noise and dropout in training; None:
                `self.generator`.
            embedding: (B, D, G, G), what `embed` gave for the images, which are None then.

        Returns:
            coarse logits (B, C, 4G, 4G), fine logits (B, C, S, S), and the IoU predictions of
            both, (B, C).

        Raises:
            TypeError, ValueError: images or labels of another dtype or shape.
        """
        embedding = self.embedding_of(image, embedding)
        check_labels(labels, embedding.shape[0], self.image_size)
        generator = generator if generator is not None else self.generator
        image_pe, dense = self.prompt_encoder()
        coarse = self.coarse_decoder(embedding, image_pe, dense)
        if self.training:
            embedding = embedding + range_noise(embedding, self.embedding_noise, generator)
        fine = self.fine_decoder(embedding, image_pe, dense, coarse, labels, generator)
        scale = self.image_size // coarse.logits.shape[-1]
        return Segmentation(coarse.logits, fine.logits, coarse.iou, fine.iou, scale)
