"""Preparing a trained model for prediction."""

import torch
from torch import Tensor, nn

from hsam.lora import merge_lora
from hsam.model import SegmentationModel


class HalfEncoder(nn.Module):
    """An image encoder that computes in bfloat16 (autocast); its output is float32."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, D, G, G), float32."""
        with torch.autocast(image.device.type, torch.bfloat16):
            embedding: Tensor = self.encoder(image)
            return embedding.float()


def for_inference(model: SegmentationModel, device: str = "cpu") -> SegmentationModel:
    """Prepare a trained model for prediction, in place.

    It is moved to the device and put in eval mode, and its LoRA is merged. On CUDA the encoder
    computes in bfloat16, and `save` can't store the model any more; everything else is float32.

    Args:
        model: a trained model.
        device: "cpu" or "cuda".

    Returns:
        the same model.
    """
    model = model.to(device).eval()
    merge_lora(model)
    encoder = getattr(model, "image_encoder", None)
    if encoder is not None and torch.device(device).type == "cuda":
        model.image_encoder = HalfEncoder(encoder)
    return model
