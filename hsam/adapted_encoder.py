"""Building an image encoder for a model: its side, LoRA, freezing, pretrained weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from hsam.backbones import Backbone, get_backbone
from hsam.encoders.base import ImageEncoder
from hsam.hugging_face import weights_file
from hsam.lora import add_lora, check_rank
from hsam.model import EncodedModel
from hsam.weights.files import sha256
from hsam.weights.sam_checkpoint import load_sam_checkpoint

Model = TypeVar("Model", bound=EncodedModel)


@dataclass(frozen=True)
class EncoderOptions:
    """What all builders of models with an image encoder take alike.

    Attributes:
        backbone: a name of `hsam.backbones()`, or "hf:" and a folder or hub name with an encoder in
            Hugging Face form.
        encoder_size: side E in pixels at which the encoder sees the images; None: the images' own.
        normalise: bring images into the value range of the encoder's pretraining; False: [0, 1],
            as in the published H-SAM code.
        train_encoder: train all weights of the encoder, not its LoRA alone; None: only for a
            backbone without published weights.
        checkpoint_blocks: recompute encoder blocks in the backward pass to save memory.
        hugging_face: what the folder of "hf:" said when a model was built, as its config has it;
            None: read the folder.
    """

    backbone: str = "vit_b"
    encoder_size: int | None = None
    normalise: bool = False
    train_encoder: bool | None = None
    checkpoint_blocks: bool = False
    hugging_face: Mapping[str, Any] | None = None

    @cached_property
    def line(self) -> Backbone:
        """The backbone's line of the table."""
        return get_backbone(self.backbone, self.hugging_face)

    def resolved(self) -> dict[str, Any]:
        """The values as a model's config holds them."""
        values = asdict(self) | {"train_encoder": self._trained()}
        del values["hugging_face"]
        form = self.line.hugging_face
        return values if form is None else values | {"hugging_face": form}

    def _trained(self) -> bool:
        return not self.line.pretrained if self.train_encoder is None else self.train_encoder

    def weights(self, given: str | Path | None) -> Path | None:
        """The file that a model starts from, None without one.

        Args:
            given: that the builder was told; None: for "hf:" the one beside config.json, unless
                the model was built before and so has its own.

        Raises:
            ValueError: there is no such file.
        """
        if self.line.hugging_face is None:
            return None if given is None else Path(given)
        if given is None and self.hugging_face is not None:
            return None
        return weights_file(self.backbone if given is None else given)

    def build(self, image_size: int, lora_rank: int = 0, lora_scale: float = 1.0) -> ImageEncoder:
        """Build the encoder.

        Args:
            image_size: side S of the images in pixels.
            lora_rank: rank of its LoRA; 0: none.
            lora_scale: factor of the LoRA's update.

        Raises:
            ValueError: an argument out of range.
        """
        side = image_size if self.encoder_size is None else self.encoder_size
        encoder = self.line.load_family()(self.line, side, self.checkpoint_blocks, self.normalise)
        encoder.requires_grad_(self._trained())
        widths = [projection.layer.in_features for projection in encoder.projections()]
        check_rank(lora_rank, min(widths))
        if lora_rank:
            add_lora(encoder, lora_rank, lora_scale)
        return encoder


def load_start(model: Model, options: EncoderOptions, sam_checkpoint: str | Path | None) -> Model:
    """Load pretrained weights into a model, if there are any; returns the same model."""
    path = options.weights(sam_checkpoint)
    if path is not None and model.image_encoder.own_files:
        loaded = model.image_encoder.load_file(path)
        model.sam_sha256 = sha256(path)
        model.pretrained = frozenset(f"image_encoder.{name}" for name in loaded)
    elif path is not None:
        load_sam_checkpoint(model, path)
    return model
