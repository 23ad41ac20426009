"""What arithmetic a device has, and in which of it a trained model predicts."""

from dataclasses import asdict, dataclass
from typing import Literal

import torch


@dataclass(frozen=True)
class Precision:
    """The arithmetic of a prediction.

    Attributes:
        encoder: of the products in SAM's image encoder.
        decoders: of all other products.
        tf32: whether float32 products may be rounded to TensorFloat-32.
    """

    encoder: Literal["fp32", "bf16"]
    decoders: Literal["fp32"] = "fp32"
    tf32: bool = False

    def record(self) -> dict[str, str | bool]:
        """As records and provenance hold it."""
        return asdict(self)


def inference_precision(device: str) -> Precision:
    """The precision that every trained model predicts in: the encoder in bfloat16 on a GPU that
    has it, all else in float32.

    Args:
        device: "cpu" or "cuda".
    """
    return Precision("bf16" if device == "cuda" and has_bf16(device) else "fp32")


def has_bf16(device: str) -> bool:
    """Whether the device computes in bfloat16 itself; a CPU does so in any case."""
    return device == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)


def set_tf32(allowed: bool) -> None:
    """Allow or forbid TensorFloat-32 in float32 matrix products and convolutions on GPUs."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
