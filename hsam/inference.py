"""Preparing a trained model for prediction."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from hsam.lora import merge_lora
from hsam.model import EncodedModel, SegmentationModel

Model = TypeVar("Model", bound=SegmentationModel)
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


def for_inference(model: Model, device: str = "cpu", *, half_encoder: bool = False) -> Model:
    """Prepare a trained model for prediction, in place.

    It is moved to the device and put in eval mode, its LoRA is merged, and its encoder is rewritten
    where that is faster, so that `save` can't store it any more.

    Args:
        model: a trained model.
        device: "cpu" or "cuda".
        half_encoder: compute the encoder's products in bfloat16; all else stays float32.

    Returns:
        the same model.
    """
    model = model.to(device).eval()
    merge_lora(model)
    if isinstance(model, EncodedModel):
        model.image_encoder.settle()
        if half_encoder:
            setattr(model, "image_encoder", HalfEncoder(model.image_encoder))  # noqa: B010
    return model
