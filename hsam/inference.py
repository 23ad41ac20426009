"""Preparing a trained model for prediction."""

import torch
from torch import Tensor, nn

from hsam.lora import merge_lora
from hsam.model import SegmentationModel

# layers whose products autocast computes in bfloat16
_PRODUCTS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class HalfEncoder(nn.Module):
    """An image encoder that computes its products in bfloat16 (autocast); its output is float32.

    The weights of those products are kept in bfloat16, so that no forward pass converts them.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        for layer in encoder.modules():
            if isinstance(layer, _PRODUCTS):
                for parameter in layer.parameters(recurse=False):
                    parameter.data = parameter.data.to(torch.bfloat16)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, D, G, G), float32."""
        with torch.autocast(image.device.type, torch.bfloat16):
            embedding: Tensor = self.encoder(image)
            return embedding.float()


def for_inference(
    model: SegmentationModel, device: str = "cpu", *, half_encoder: bool = False
) -> SegmentationModel:
    """Prepare a trained model for prediction, in place.

    It is moved to the device and put in eval mode, and its LoRA is merged.

    Args:
        model: a trained model.
        device: "cpu" or "cuda".
        half_encoder: compute the encoder's products in bfloat16; `save` can't store the model any
            more. Everything else stays float32.

    Returns:
        the same model.
    """
    model = model.to(device).eval()
    merge_lora(model)
    encoder = getattr(model, "image_encoder", None)
    if encoder is not None and half_encoder:
        model.image_encoder = HalfEncoder(encoder)
    return model
