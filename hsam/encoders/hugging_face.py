"""Image encoders in Hugging Face form, built by the package transformers.

Source: DINOv3, arXiv 2508.10104; DINOv2, arXiv 2304.07193; SAM 2, arXiv 2408.00714.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hsam.backbones import Backbone
from hsam.encoders.base import ImageEncoder, Projection
from hsam.lora import unmerge_lora
from hsam.weights.files import check_finite, listed
from hsam.weights.foreign import text_instead

# names that transformers gives an attention's layers, and what their outputs are
_LAYERS = {
    "q_proj": ("q",),
    "query": ("q",),
    "v_proj": ("v",),
    "value": ("v",),
    "qkv": ("q", "k", "v"),
}
# of a whole SAM 2, the tensors of its image encoder
_PREFIX = "vision_encoder."
# an encoder gives an image the same embedding in training and prediction
_NOT_RANDOM: dict[str, Any] = {
    "attention_dropout": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
    "hidden_dropout_prob": 0.0,
    "pos_embed_jitter": None,
    "pos_embed_rescale": None,
    "pos_embed_shift": None,
}


class HuggingFaceEncoder(ImageEncoder):
    """Base of the encoders in Hugging Face form.

    Attributes:
        vision: the model of transformers.
    """

    own_files = True

    def __init__(
        self,
        backbone: Backbone,
        image_size: int,
        checkpoint_blocks: bool = False,
        normalise: bool = False,
    ) -> None:
        """Build the encoder, with random weights.

        Args:
            backbone: from `hsam.hugging_face.backbone`.
            image_size: side E of the images in pixels.
            checkpoint_blocks, normalise: as in `Family`.

        Raises:
            ValueError: a side that doesn't suit the encoder, transformers isn't installed, or it
                can't build what the config describes.
        """
        self.check_side(backbone, image_size)
        super().__init__()
        self.set_up(backbone, image_size, normalise)
        self._sizes = backbone.sizes
        with _quiet() as transformers:
            try:
                config = self._config(transformers)
                self.vision = getattr(transformers, self._sizes["model"])(config)
                self._try(backbone)
            except Exception as error:  # what doesn't go together raises many unrelated types
                raise ValueError(
                    f"backbone: transformers can't build {self.kind()} ({_first_line(error)})"
                ) from None
        if checkpoint_blocks:
            _recompute(self.vision)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, E, E) in [0, 1] -> (B, D, G, G)."""
        return self.features(self.vision(pixel_values=self.normalised(image)), self.grid)

    @abstractmethod
    def features(self, output: Any, grid: int) -> Tensor:
        """The embedding (B, D, G, G), G = `grid`, in what transformers' model gives."""

    def projections(self) -> Iterator[Projection]:
        """Queries and values of each block, in layers of their own or in one with the keys."""
        for module in self.vision.modules():
            for name, parts in _LAYERS.items():
                if isinstance(getattr(module, name, None), nn.Linear):
                    yield Projection(module, name, parts)

    def kind(self) -> str:
        """See the base class."""
        return f"{self._sizes['title']} ({self.width} wide, {self._sizes['depth']} deep)"

    @staticmethod
    def kind_in(state: Mapping[str, Tensor]) -> str | None:
        """None: no file of SAM's form holds such an encoder."""
        return None

    def load_file(self, path: str | Path) -> list[str]:
        """Load a safetensors file with the names that transformers has for the encoder.

        Returns:
            names of the encoder's tensors that have the file's values.

        Raises:
            FileNotFoundError: no such file.
            ValueError: another kind of file, NaN, or tensors that are missing or misshapen.
        """
        state = _read(Path(path))
        plain, found = self._published(state)
        problems = [f"missing {name}" for name in sorted(found["missing_keys"])]
        problems += [f"another shape of {name}" for name, *_ in sorted(found["mismatched_keys"])]
        if problems:
            raise ValueError(
                f"{path}: expected weights for {self.kind()}: {listed(problems, '; ')}"
            )
        unmerge_lora(self)
        target, values = self.vision.state_dict(), plain.state_dict()
        with torch.no_grad():
            for name, value in values.items():
                target[name].copy_(value)
        return [f"vision.{name}" for name in values]

    @torch.no_grad()
    def _try(self, backbone: Backbone) -> None:
        """Embed the smallest image: sizes that don't go together raise an error here."""
        side = backbone.side_multiple
        grid = side // backbone.stride
        image = next(self.vision.parameters()).new_zeros(1, 3, side, side)
        found = tuple(self.features(self.vision(pixel_values=image), grid).shape)
        if found != (expected := (1, self.width, grid, grid)):
            raise ValueError(f"expected an embedding of {expected}, got {found}")

    def _published(self, state: dict[str, Tensor]) -> tuple[Any, dict[str, Any]]:
        """A model of transformers with a file's weights, and what became of the names.

        Files of earlier versions have other names, which transformers knows.
        """
        with _quiet() as transformers:
            model, found = getattr(transformers, self._sizes["model"]).from_pretrained(
                None,
                config=self._config(transformers),
                state_dict=state,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        return model, found

    def _config(self, transformers: Any) -> Any:
        kind = getattr(transformers, self._sizes["model"]).config_class
        config = kind.from_dict(dict(self._sizes["config"]))
        for key, value in _NOT_RANDOM.items():
            if hasattr(config, key):
                setattr(config, key, value)
        return config


class TokenEncoder(HuggingFaceEncoder):
    """An encoder whose output is a row of tokens: DINOv2 and DINOv3."""

    def features(self, output: Any, grid: int) -> Tensor:
        """The patches, which follow the class token and the registers."""
        tokens: Tensor = output.last_hidden_state[:, self._sizes["first_patch"] :]
        batch, _, width = tokens.shape
        return tokens.transpose(1, 2).reshape(batch, width, grid, grid)


class PyramidEncoder(HuggingFaceEncoder):
    """SAM 2's encoder, Hiera and the neck after it: the coarsest map of its pyramid."""

    def features(self, output: Any, grid: int) -> Tensor:
        """The map that SAM 2's decoder takes as the embedding."""
        embedding: Tensor = output.fpn_hidden_states[-1]
        return embedding


def _recompute(vision: nn.Module) -> None:
    """Recompute blocks in the backward pass, as transformers does it for whole models."""
    block = import_module("transformers.modeling_layers").GradientCheckpointingLayer
    for module in vision.modules():
        if isinstance(module, block):
            module.gradient_checkpointing = True
            module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: expected a file, found none at {path}")
    if (found := text_instead(path)) is not None:
        raise ValueError(f"checkpoint: expected a safetensors file, {path} is {found}")
    try:
        state = safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"checkpoint: expected a safetensors file, can't read {path} as one ({error})"
        ) from None
    check_finite(state, path)
    if not any(name.startswith(_PREFIX) for name in state):
        return state
    return {
        name.removeprefix(_PREFIX): value
        for name, value in state.items()
        if name.startswith(_PREFIX)
    }


@contextmanager
def _quiet() -> Iterator[Any]:
    """The package transformers, without its progress bars and reports."""
    try:
        transformers: Any = import_module("transformers")
    except ImportError as error:
        raise ValueError(
            "backbone: an encoder in Hugging Face form needs the Python package transformers "
            f"({error}); `pip install 'hsam[hf]'` brings it"
        ) from None
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
