"""H-SAM: prompt-free medical image segmentation with SAM and two decoders.

Build a model with `build_hsam` (or any by name with `build`), train it with `two_stage_loss` and
the schedules, keep it with `save` and `load`. PyTorch is imported at the first use of a name that
needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hsam.backbones import backbones
from hsam.registry import MODELS, build
from hsam.schedules import lr_factor, stage_weight
from hsam.version import __version__

if TYPE_CHECKING:
    from hsam.builders import build_hsam
    from hsam.inference import for_inference
    from hsam.lora import merge_lora, unmerge_lora
    from hsam.losses import dice_loss, resize_labels, stage_loss, two_stage_loss
    from hsam.model import SegmentationModel
    from hsam.output import Segmentation
    from hsam.weights.published_adapter import load_published_adapter
    from hsam.weights.record import read_record
    from hsam.weights.sam_checkpoint import LoadReport, load_sam_checkpoint
    from hsam.weights.storage import load, save

__all__ = [
    "MODELS",
    "LoadReport",
    "Segmentation",
    "SegmentationModel",
    "__version__",
    "backbones",
    "build",
    "build_hsam",
    "dice_loss",
    "for_inference",
    "load",
    "load_published_adapter",
    "load_sam_checkpoint",
    "lr_factor",
    "merge_lora",
    "read_record",
    "resize_labels",
    "save",
    "stage_loss",
    "stage_weight",
    "two_stage_loss",
    "unmerge_lora",
]

_MODULES = {
    "hsam.builders": ("build_hsam",),
    "hsam.inference": ("for_inference",),
    "hsam.lora": ("merge_lora", "unmerge_lora"),
    "hsam.losses": ("dice_loss", "resize_labels", "stage_loss", "two_stage_loss"),
    "hsam.model": ("SegmentationModel",),
    "hsam.output": ("Segmentation",),
    "hsam.weights.published_adapter": ("load_published_adapter",),
    "hsam.weights.sam_checkpoint": ("LoadReport", "load_sam_checkpoint"),
    "hsam.weights.record": ("read_record",),
    "hsam.weights.storage": ("load", "save"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hsam' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
