"""The models by name."""

from collections.abc import Callable

from hsam.builders import build_hsam
from hsam.model import SegmentationModel
from hsam.rivals.autosam import build_autosam
from hsam.rivals.sam_adapter import build_sam_adapter
from hsam.rivals.samed import build_samed
from hsam.rivals.unet import build_unet

MODELS: dict[str, Callable[..., SegmentationModel]] = {
    "hsam": build_hsam,
    "samed": build_samed,
    "sam_adapter": build_sam_adapter,
    "autosam": build_autosam,
    "unet": build_unet,
}


def build(model: str, /, *args: object, **arguments: object) -> SegmentationModel:
    """Build a model by name, in training mode.

    Args:
        model: one of `hsam.MODELS`.
        args, arguments: what its builder takes; see `hsam.build_hsam` and the other builders.

    Raises:
        ValueError: no model of that name, or an argument out of range.
        TypeError: an argument that the model's builder doesn't take.
    """
    if model not in MODELS:
        raise ValueError(f"model: expected one of {list(MODELS)}, got {model!r}")
    return MODELS[model](*args, **arguments)
