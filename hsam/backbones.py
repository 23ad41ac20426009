"""The registry of image encoders: every size that differs from one backbone to another."""

from dataclasses import dataclass

PATCH = 16  # pixels per side of a patch; SAM has no other


@dataclass(frozen=True)
class Backbone:
    """Sizes of one image encoder and of the decoders that follow it.

    Attributes:
        embed_dim: width of the transformer.
        depth: number of blocks.
        num_heads: attention heads per block.
        global_blocks: indices of the blocks that attend to the whole grid; the others attend
            inside windows.
        pretrained: whether Meta published weights of these sizes. Without them the encoder has to
            be trained whole.
        width: channels D after the neck, and width of the decoders.
        decoder_heads: attention heads of the decoders.
        window: side of an attention window, in patches.
    """

    embed_dim: int
    depth: int
    num_heads: int
    global_blocks: tuple[int, ...]
    pretrained: bool = True
    width: int = 256
    decoder_heads: int = 8
    window: int = 14


# Source: segment_anything/build_sam.py; vit_tiny is this library's own.
BACKBONES: dict[str, Backbone] = {
    "vit_b": Backbone(768, 12, 12, (2, 5, 8, 11)),
    "vit_l": Backbone(1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": Backbone(1280, 32, 16, (7, 15, 23, 31)),
    # for phantoms and tests: every block is global, since a 128 px image has only 8 x 8 patches
    "vit_tiny": Backbone(128, 3, 4, (0, 1, 2), pretrained=False, width=128),
}


def backbones() -> list[str]:
    """Names of the known backbones, in registry order."""
    return list(BACKBONES)


def get_backbone(name: str) -> Backbone:
    """Sizes of the backbone `name`.

    Raises:
        ValueError: no such backbone.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone: expected one of {backbones()}, got {name!r}")
    return BACKBONES[name]
