"""LiteMedSAM's image encoder: a TinyViT whose embedding has a quarter of the image's side.

Source: MedSAM's LiteMedSAM, `tiny_vit_sam.py` (Apache-2.0); TinyViT, arXiv 2207.10666. Its side of
256 px is free here, and it has no stochastic depth.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint

from hsam.backbones import Backbone
from hsam.encoders.base import ImageEncoder, Projection
from hsam.norm import LayerNorm2d


class FixedBatchNorm(nn.BatchNorm2d):
    """Batch norm that always uses the statistics of the pretraining, and never changes them."""

    def train(self, mode: bool = True) -> "FixedBatchNorm":
        """Stay in eval mode."""
        return super().train(False)


class ConvNorm(nn.Sequential):
    """Convolution without bias, and batch norm: (B, C, H, W) -> (B, D, H / stride, W / stride)."""

    def __init__(self, dim: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        """Args: channels in and out, side of the kernel, stride and groups of the convolution."""
        super().__init__()
        self.c = nn.Conv2d(dim, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = FixedBatchNorm(out).eval()


class ConvBlock(nn.Module):
    """Inverted bottleneck with a depthwise convolution: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, expansion: int = 4) -> None:
        """Args: channels; ratio of the depthwise convolution's channels to them."""
        super().__init__()
        hidden = expansion * dim
        self.conv1 = ConvNorm(dim, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class Merging(nn.Module):
    """Step to the next stage: (B, C, H, W) -> (B, D, H / stride, W / stride)."""

    def __init__(self, dim: int, out: int, stride: int) -> None:
        """Args: channels in and out, stride."""
        super().__init__()
        self.conv1 = ConvNorm(dim, out)
        self.conv2 = ConvNorm(out, out, 3, stride, groups=out)
        self.conv3 = ConvNorm(out, out)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return out


class WindowAttention(nn.Module):
    """Self attention inside a window, with a learned bias for each distance along both axes.

    The outputs of `qkv` lie head by head: q, k and v of the first head, then those of the next.
    """

    offsets: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        """Args: width, attention heads, side of a window in positions."""
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        place = torch.cartesian_prod(torch.arange(window), torch.arange(window))  # N x 2
        rows, columns = (place[:, None] - place).abs().unbind(-1)
        # the published code numbers the distances in the order it meets them, which is this one
        self.register_buffer("offsets", rows * window + columns, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim), the N positions of a window -> (B, N, dim)."""
        batch, positions, dim = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, positions, self.heads, 3, dim // self.heads)
        q, k, v = qkv.permute(3, 0, 2, 1, 4)  # each B x heads x N x dim/heads
        x = F.scaled_dot_product_attention(q, k, v, self.attention_biases[:, self.offsets][None])
        out: Tensor = self.proj(x.transpose(1, 2).reshape(batch, positions, dim))
        return out

    def projection(self) -> Projection:
        """The layer of q, k and v."""
        outputs = torch.arange(self.qkv.out_features).view(3, self.heads, -1)
        return Projection(self, "qkv", order=outputs.transpose(0, 1).flatten())


class MLP(nn.Module):
    """Norm and a hidden layer four times as wide: (..., dim) -> (..., dim)."""

    def __init__(self, dim: int) -> None:
        """Args: width."""
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return out


class AttentionBlock(nn.Module):
    """Attention in windows, a depthwise convolution and an MLP: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        """Args: width, attention heads, side of a window in positions."""
        super().__init__()
        self.window = window
        self.attn = WindowAttention(dim, heads, window)
        self.mlp = MLP(dim)
        self.local_conv = ConvNorm(dim, dim, 3, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = x + self._attend(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.local_conv(x)
        out: Tensor = x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out

    def _attend(self, x: Tensor) -> Tensor:
        """Attention in windows: (B, H, W, C) -> (B, H, W, C).

        Zeros fill up the windows at the lower and right edges, and are attended to.
        """
        batch, height, width, dim = x.shape
        side = self.window
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        down, across = x.shape[1] // side, x.shape[2] // side
        x = x.view(batch, down, side, across, side, dim).transpose(2, 3)
        x = self.attn(x.reshape(-1, side * side, dim))
        x = x.view(batch, down, across, side, side, dim).transpose(2, 3)
        whole: Tensor = x.reshape(batch, down * side, across * side, dim)
        return whole[:, :height, :width]


class Stage(nn.Module):
    """Some blocks, and the step to the next stage."""

    def __init__(self, blocks: list[nn.Module], downsample: Merging | None) -> None:
        """Args: the blocks in order; None: the last stage."""
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


class TinyViT(ImageEncoder):
    """LiteMedSAM's image encoder, with the parameter names of its checkpoint.

    Attributes:
        checkpoint_blocks: recompute each block in the backward pass to save memory.
    """

    def __init__(
        self,
        backbone: Backbone,
        image_size: int,
        checkpoint_blocks: bool = False,
        normalise: bool = False,
    ) -> None:
        """Build the encoder.

        Args:
            backbone: its line of the table; `sizes` gives each stage's width (dims), number of
                blocks (depths), attention heads and side of a window in positions.
            image_size: side E of the images in pixels.
            checkpoint_blocks, normalise: see the classes.

        Raises:
            ValueError: `image_size` is no positive multiple of 32.
        """
        self.check_side(backbone, image_size)
        super().__init__()
        self.set_up(backbone, image_size, normalise)
        self.checkpoint_blocks = checkpoint_blocks
        dims, depths = backbone.sizes["dims"], backbone.sizes["depths"]
        heads, windows = backbone.sizes["heads"], backbone.sizes["windows"]
        stem = nn.Sequential(ConvNorm(3, dims[0] // 2), nn.GELU(), ConvNorm(dims[0] // 2, dims[0]))
        self.patch_embed = nn.ModuleDict({"seq": stem})
        # two steps halve the side, the last one keeps it
        steps = [Merging(*pair, s) for pair, s in zip(pairwise(dims), (2, 2, 1), strict=True)]
        self.layers = nn.ModuleList()
        for index, (dim, depth, step) in enumerate(zip(dims, depths, [*steps, None], strict=True)):
            blocks: list[nn.Module] = [
                AttentionBlock(dim, heads[index], windows[index]) if index else ConvBlock(dim)
                for _ in range(depth)
            ]
            self.layers.append(Stage(blocks, step))
        self.neck = nn.Sequential(
            nn.Conv2d(dims[-1], self.width, kernel_size=1, bias=False),
            LayerNorm2d(self.width),
            nn.Conv2d(self.width, self.width, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(self.width),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, E, E) in [0, 1] -> (B, D, G, G) with G = E / 4."""
        image = self.normalised(image).contiguous(memory_format=torch.channels_last)
        x = self.patch_embed["seq"](image)
        recompute = self.checkpoint_blocks and torch.is_grad_enabled()
        stages: Any = self.layers
        for stage in stages:
            for block in stage.blocks:
                x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
            if stage.downsample is not None:
                x = stage.downsample(x)
        embedding: Tensor = self.neck(x)
        return embedding

    def settle(self) -> None:
        """Join each convolution with its norm, which leaves the function as it is."""
        for module in list(self.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, ConvNorm):
                    setattr(module, name, fuse_conv_bn_eval(child.c, child.bn))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def projections(self) -> Iterator[Projection]:
        """q, k and v of each block that has attention: all but the first stage's."""
        for module in self.modules():
            if isinstance(module, WindowAttention):
                yield module.projection()

    def kind(self) -> str:
        """See the base class."""
        layers = [projection.layer for projection in self.projections()]
        return _kind(layers[-1].in_features, len(layers))

    @staticmethod
    def kind_in(state: Mapping[str, Tensor]) -> str | None:
        """See the base class."""
        prefix = "image_encoder.layers."
        biases = [k for k in state if k.startswith(prefix) and k.endswith(".attention_biases")]
        norm = max(biases, default="").replace("attention_biases", "norm.weight")
        return _kind(len(state[norm]), len(biases)) if norm in state else None


def _kind(dim: int, blocks: int) -> str:
    return f"a TinyViT ({dim} wide at the end, {blocks} blocks with attention)"
