"""SAM's prompt encoder, used without prompts.

Source: segment_anything/modeling/prompt_encoder.py; paper section 3 (prompt-free).
"""

import torch
from torch import Tensor

from hsam import sam


class PromptEncoder(sam.PromptEncoder):
    """Returns the positional encoding of the image and the embedding of "no mask".

    The embeddings of points, boxes and masks are there for SAM's checkpoints and aren't trained.
    """

    def __init__(self, width: int, image_size: int, grid: int) -> None:
        """Build for decoders of width D, images of `image_size` pixels and a grid of side G."""
        super().__init__(width, (grid, grid), (image_size, image_size), mask_in_chans=16)
        self.requires_grad_(False)
        self.no_mask_embed.requires_grad_(True)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Encode the absence of prompts.

        Returns:
            positional encoding of the image, (1, D, G, G), and dense prompt embedding,
            (1, D, 1, 1), which broadcasts to (B, D, G, G).
        """
        weight = self.no_mask_embed.weight
        return self._position().to(weight.dtype), weight.reshape(1, -1, 1, 1)

    def _position(self) -> Tensor:
        """Fourier features of the patch centres, (1, D, G, G), in float32 for any dtype."""
        matrix = {
            "positional_encoding_gaussian_matrix": (
                self.pe_layer.positional_encoding_gaussian_matrix.float()
            )
        }
        size = self.image_embedding_size
        position: Tensor = torch.func.functional_call(self.pe_layer, matrix, (size,))
        return position.unsqueeze(0)
