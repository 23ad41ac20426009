"""Types of SAM's modules, which have none of their own: what is used of them here."""

from collections.abc import Callable

from torch import Tensor, nn

class EncoderAttention(nn.Module):
    num_heads: int
    scale: float
    qkv: nn.Linear
    proj: nn.Linear
    rel_pos_h: nn.Parameter
    rel_pos_w: nn.Parameter
    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        input_size: tuple[int, int] | None = None,
    ) -> None: ...
    def forward(self, x: Tensor) -> Tensor: ...

class MLPBlock(nn.Module):
    def __init__(
        self, embedding_dim: int, mlp_dim: int, act: type[nn.Module] = nn.GELU
    ) -> None: ...
    def forward(self, x: Tensor) -> Tensor: ...

class EncoderBlock(nn.Module):
    norm1: nn.Module
    attn: EncoderAttention
    norm2: nn.Module
    mlp: MLPBlock
    window_size: int
    def __init__(
        self, dim: int, num_heads: int, *, norm_layer: Callable[[int], nn.Module]
    ) -> None: ...
    def forward(self, x: Tensor) -> Tensor: ...

class ImageEncoderViT(nn.Module):
    img_size: int
    patch_embed: nn.Module
    pos_embed: nn.Parameter
    blocks: nn.ModuleList
    neck: nn.Sequential
    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        out_chans: int = 256,
    ) -> None: ...
    def forward(self, x: Tensor) -> Tensor: ...

class PositionEmbeddingRandom(nn.Module):
    positional_encoding_gaussian_matrix: Tensor

class PromptEncoder(nn.Module):
    image_embedding_size: tuple[int, int]
    pe_layer: PositionEmbeddingRandom
    no_mask_embed: nn.Embedding
    def __init__(
        self,
        embed_dim: int,
        image_embedding_size: tuple[int, int],
        input_image_size: tuple[int, int],
        mask_in_chans: int,
    ) -> None: ...

class DecoderAttention(nn.Module):
    num_heads: int
    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    out_proj: nn.Linear
    def __init__(self, embedding_dim: int, num_heads: int, downsample_rate: int = 1) -> None: ...
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...
    def _separate_heads(self, x: Tensor, num_heads: int) -> Tensor: ...
    def _recombine_heads(self, x: Tensor) -> Tensor: ...

class TwoWayAttentionBlock(nn.Module):
    self_attn: DecoderAttention
    norm1: nn.LayerNorm
    cross_attn_token_to_image: DecoderAttention
    norm2: nn.LayerNorm
    mlp: MLPBlock
    norm3: nn.LayerNorm
    norm4: nn.LayerNorm
    cross_attn_image_to_token: DecoderAttention
    skip_first_layer_pe: bool
    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        mlp_dim: int = 2048,
        activation: type[nn.Module] = nn.ReLU,
        attention_downsample_rate: int = 2,
        skip_first_layer_pe: bool = False,
    ) -> None: ...
    def forward(
        self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor
    ) -> tuple[Tensor, Tensor]: ...

class TwoWayTransformer(nn.Module):
    depth: int
    layers: nn.ModuleList
    def __init__(self, depth: int, embedding_dim: int, num_heads: int, mlp_dim: int) -> None: ...
    def forward(
        self, image_embedding: Tensor, image_pe: Tensor, point_embedding: Tensor
    ) -> tuple[Tensor, Tensor]: ...

class MLP(nn.Module):
    def __init__(
        self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int
    ) -> None: ...
    def forward(self, x: Tensor) -> Tensor: ...

class LayerNorm2d(nn.Module):
    weight: nn.Parameter
    bias: nn.Parameter
    eps: float
    def __init__(self, num_channels: int, eps: float = 1e-6) -> None: ...
    def forward(self, x: Tensor) -> Tensor: ...
