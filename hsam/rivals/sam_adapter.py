"""SAM-Adapter: a frozen encoder with a bottleneck beside the attention and the MLP of each block.

Source: Medical SAM Adapter, arXiv 2304.12620, and SAM-Adapter, arXiv 2304.09148, in the plain form
they share: down, GELU, up, added to the branch it stands beside. The decoder is SAMed's. Trainable
parameters at ViT-B, 8 organs, ratio 0.25: 11,727,232.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hsam.adapted_encoder import EncoderOptions, load_start
from hsam.encoders.sam_vit import EncoderBlock, SamViT
from hsam.rivals.one_stage import OneStage, one_stage


class Adapter(nn.Sequential):
    """Bottleneck dim -> hidden -> dim whose output starts at zero: (..., dim) -> (..., dim)."""

    def __init__(self, dim: int, hidden: int) -> None:
        """Args: width of the block and of the bottleneck."""
        up = nn.Linear(hidden, dim)
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), up)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)


class AdaptedBlock(nn.Module):
    """An encoder block with two adapters; the block's own parameters keep their names."""

    def __init__(self, block: EncoderBlock, hidden: int) -> None:
        """Take over the parts of `block`; `hidden` is the width of the bottlenecks."""
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = (
            block.norm1,
            block.attn,
            block.norm2,
            block.mlp,
        )
        self.window_size = block.window_size
        dim = block.attn.proj.out_features
        self.adapter_attn = Adapter(dim, hidden)
        self.adapter_mlp = Adapter(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, G, G, dim) -> (B, G, G, dim)."""
        normed = self.norm1(x)
        x = x + self.attn(normed, self.window_size) + self.adapter_attn(normed)
        normed = self.norm2(x)
        out: Tensor = x + self.mlp(normed) + self.adapter_mlp(normed)
        return out


def build_sam_adapter(
    backbone: str = "vit_b",
    *,
    image_size: int = 512,
    num_classes: int = 8,
    adapter_ratio: float = 0.25,
    sam_checkpoint: str | Path | None = None,
    **encoder: Any,
) -> OneStage:
    """Build SAM-Adapter, in training mode.

    Args:
        adapter_ratio: width of the bottlenecks as a share of the encoder's, in (0, 1].
        backbone, image_size, num_classes, sam_checkpoint, encoder: as in `hsam.build_hsam`.

    Raises:
        ValueError: an argument out of range.
    """
    if not 0 < adapter_ratio <= 1:
        raise ValueError(f"adapter_ratio: expected above 0 to 1, got {adapter_ratio!r}")
    options = EncoderOptions(backbone, **encoder)
    image_encoder = options.build(image_size)
    if not isinstance(image_encoder, SamViT):
        raise ValueError(f"backbone: expected one of SAM's family for sam_adapter, got {backbone}")
    hidden = max(1, round(adapter_ratio * image_encoder.pos_embed.shape[-1]))
    blocks: Any = image_encoder.blocks
    for index, block in enumerate(blocks):
        blocks[index] = AdaptedBlock(block, hidden)
    model = one_stage(image_encoder, options, image_size, num_classes)
    model.config = {
        "model": "sam_adapter",
        **options.resolved(),
        "image_size": image_size,
        "num_classes": num_classes,
        "adapter_ratio": adapter_ratio,
    }
    return load_start(model, options, sam_checkpoint)
