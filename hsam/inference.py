"""A trained model made ready to predict: LoRA merged, its encoder as fast as the device allows."""

import torch
from torch import Tensor, nn

from hsam.lora import merge_lora
from hsam.model import SegmentationModel
from hsam.packing import pack_linears


class HalfEncoder(nn.Module):
    """An image encoder whose products are computed in bfloat16; what it gives is float32."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, D, G, G), float32."""
        with torch.autocast(image.device.type, torch.bfloat16):
            return self.encoder(image).float()


def for_inference(
    model: SegmentationModel, device: str = "cpu", batch: int | None = None
) -> SegmentationModel:
    """The same model in eval mode on the device, LoRA merged; on CUDA the encoder in bfloat16.

    The decoders stay in float32 everywhere, and so does the encoder on the CPU. On CUDA the model
    can't be saved any more.

    Args:
        model: a trained one.
        device: "cpu" or "cuda".
        batch: images a forward pass; on the CPU the encoder's weights are packed for it, which
            takes their memory again. None: they aren't.
    """
    model = model.to(device).eval()
    merge_lora(model)
    encoder = getattr(model, "image_encoder", None)
    if encoder is not None and torch.device(device).type == "cuda":
        model.image_encoder = HalfEncoder(encoder)
    elif encoder is not None and batch is not None:
        encoder.requires_grad_(False)
        pack_linears(model, batch)
    return model
