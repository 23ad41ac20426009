"""The user's file of pretrained weights, checked against the published ones."""

from pathlib import Path

from hsam.backbones import BACKBONES, WeightFile, get_backbone
from hsam.registry import MODELS
from hsam.weights.foreign import text_instead
from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Train


def sam_file(settings: Train) -> Path | None:
    """The SAM file that the model starts from; None: it starts without one."""
    if not MODELS[settings.model].pretrained or settings.sam_checkpoint is None:
        return None
    return Path(settings.sam_checkpoint)


def checked_sha256(path: Path, backbone: str) -> str:
    """SHA-256 of the user's SAM file.

    A file of another name than the published one, such as fine-tuned weights, may have any content.

    Args:
        path: the file.
        backbone: name of a backbone that has published weights.

    Raises:
        UserError: no such file, a web page or a pointer of Git LFS, the file of another backbone,
            or a file with the published name but another content (a download cut short).
    """
    expected = get_backbone(backbone).weights
    assert expected is not None, "the parameters were checked"
    wanted = (
        f"expected the weights of {backbone} from {expected.url}, "
        f"{expected.size:,} bytes, SHA-256 {expected.sha256}"
    )
    if not path.is_file():
        raise UserError(f"train.sam_checkpoint: there is no file {path}; {wanted}.")
    if (text := text_instead(path)) is not None:
        raise UserError(f"train.sam_checkpoint: {path} is {text}; {wanted}.")
    for other, line in BACKBONES.items():
        if _is_other(path, line.weights, expected):
            raise UserError(f"train.sam_checkpoint: {path} is the file of {other}; {wanted}.")
    published_name = path.name == expected.name
    if published_name and path.stat().st_size != expected.size:
        raise UserError(
            f"train.sam_checkpoint: {path} has {path.stat().st_size:,} bytes, "
            f"a download cut short?; {wanted}."
        )
    found = files.sha256(path)
    if published_name and found != expected.sha256:
        raise UserError(f"train.sam_checkpoint: {path} has SHA-256 {found}; {wanted}.")
    return found


def _is_other(path: Path, known: WeightFile | None, expected: WeightFile) -> bool:
    """Whether a file has the size of another backbone's."""
    return known is not None and known != expected and path.stat().st_size == known.size
