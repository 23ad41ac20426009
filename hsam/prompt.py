"""SAM's prompt encoder, used without any prompt.

Source: segment_anything/modeling/prompt_encoder.py; paper section 3 (prompt-free).
"""

import torch
from torch import Tensor

from hsam import sam
from hsam.backbones import PATCH


class PromptEncoder(sam.PromptEncoder):
    """Gives the embedding of "no mask" and the positional encoding of the image grid.

    Points, boxes and masks are never given, so their embeddings aren't trained.
    """

    def __init__(self, width: int, image_size: int) -> None:
        """Build for decoder width D and images of `image_size` pixels."""
        grid = image_size // PATCH
        super().__init__(width, (grid, grid), (image_size, image_size), mask_in_chans=16)
        self.requires_grad_(False)
        self.no_mask_embed.requires_grad_(True)

    def forward(self) -> tuple[Tensor, Tensor]:
        """No arguments.

        Returns:
            image_pe: positional encoding, (1, D, G, G).
            dense: "no mask" embedding, (1, D, 1, 1); it broadcasts over batch and grid.
        """
        weight = self.no_mask_embed.weight
        return self._position().to(weight.dtype), weight.reshape(1, -1, 1, 1)

    def _position(self) -> Tensor:
        """Fourier features of the patch centres, in float32 whatever the model's dtype."""
        matrix = {
            "positional_encoding_gaussian_matrix": (
                self.pe_layer.positional_encoding_gaussian_matrix.float()
            )
        }
        size = self.image_embedding_size
        position: Tensor = torch.func.functional_call(self.pe_layer, matrix, (size,))
        return position.unsqueeze(0)
