"""A trained model made ready to predict: LoRA merged, on CUDA the encoder in bfloat16."""

import torch
from torch import Tensor, nn

from hsam.lora import merge_lora
from hsam.model import SegmentationModel


def for_inference(model: SegmentationModel, device: str = "cpu") -> SegmentationModel:
    """The same model in eval mode on the device, LoRA merged; on CUDA the encoder in bfloat16.

    The decoders stay in float32 everywhere, and so does the encoder on the CPU.
    """
    model = model.to(device).eval()
    merge_lora(model)
    if torch.device(device).type == "cuda":
        half_encoder(model)
    return model


def half_encoder(model: SegmentationModel) -> None:
    """Run the image encoder in bfloat16, what it gives being float32 again; without one, nothing.

    For inference alone: the encoder's weights are rounded in place.
    """
    encoder = getattr(model, "image_encoder", None)
    if not isinstance(encoder, nn.Module) or next(encoder.parameters()).dtype == torch.bfloat16:
        return
    encoder.to(torch.bfloat16)
    encoder.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(torch.bfloat16),))
    encoder.register_forward_hook(_to_float)


def _to_float(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.float()
