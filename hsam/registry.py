"""The models by name: where each is built, what it gives and which arguments it takes.

A new model is one file with a `build_<name>` and one line in `MODELS`. The table imports no model
and no PyTorch, so that names and arguments can be checked at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hsam.model import SegmentationModel


@dataclass(frozen=True)
class Option:
    """A builder's argument that belongs to one model alone.

    Attributes:
        default: its value where none is given; a tuple stands for as many values.
        low, high: range of each value, both included.
        meaning: for people, with the unit.
    """

    default: int | float | tuple[int, ...]
    low: float
    high: float
    meaning: str

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, None where nothing is."""
        many = isinstance(self.default, tuple)
        count = len(self.default) if isinstance(self.default, tuple) else 1
        kind = float if isinstance(self.default, float) else int
        what = "a number" if kind is float else "a whole number"
        wanted = f"{f'{count} whole numbers' if many else what} from {self.low:g} to {self.high:g}"
        values = value if many and isinstance(value, list | tuple) else [value]
        right = len(values) == count and all(
            isinstance(item, int | kind)
            and not isinstance(item, bool)
            and self.low <= item <= self.high
            for item in values
        )
        return None if right else f"expected {wanted}, found {value!r}"


@dataclass(frozen=True)
class Model:
    """One model of the table.

    Attributes:
        title: what people call it.
        builder: "module:function" that builds it.
        stages: logits that it gives, of "coarse" and "fine".
        takes: arguments of its builder beside `image_size`, `num_classes` and the options.
        options: arguments that no other model has.
    """

    title: str
    builder: str
    stages: tuple[str, ...]
    takes: tuple[str, ...] = ()
    options: Mapping[str, Option] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """The module that it is built in."""
        return self.builder.partition(":")[0]

    @property
    def pretrained(self) -> bool:
        """Whether it can start from SAM's weights."""
        return "sam_checkpoint" in self.takes

    def load_builder(self) -> Callable[..., SegmentationModel]:
        """Import its builder."""
        module, _, function = self.builder.partition(":")
        builder: Callable[..., SegmentationModel] = getattr(import_module(module), function)
        return builder


_ENCODER = (
    "backbone",
    "sam_checkpoint",
    "encoder_size",
    "normalise",
    "train_encoder",
    "checkpoint_blocks",
)
_LORA = ("lora_rank", "lora_scale")
_PARTS = ("mask_attention", "pixel_decoder", "cm_attention", "gate", "embedding_noise")

MODELS: dict[str, Model] = {
    "hsam": Model(
        "H-SAM", "hsam.builders:build_hsam", ("coarse", "fine"), (*_ENCODER, *_LORA, *_PARTS)
    ),
    "samed": Model("SAMed", "hsam.rivals.samed:build_samed", ("coarse",), (*_ENCODER, *_LORA)),
    "sam_adapter": Model(
        "SAM-Adapter",
        "hsam.rivals.sam_adapter:build_sam_adapter",
        ("coarse",),
        _ENCODER,
        {
            "adapter_ratio": Option(
                0.25, 0.001, 1, "width of the adapters, share of the encoder's width"
            )
        },
    ),
    "autosam": Model("AutoSAM", "hsam.rivals.autosam:build_autosam", ("coarse",), _ENCODER),
    "unet": Model(
        "U-Net",
        "hsam.rivals.unet:build_unet",
        ("fine",),
        options={
            "features": Option(
                (32, 32, 64, 128, 256, 32), 1, 4096, "channels of the five levels and of the last"
            )
        },
    ),
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
    return MODELS[model].load_builder()(*args, **arguments)
