"""Meta's SAM checkpoints: their published sizes and hashes, and a check of the user's file."""

from dataclasses import dataclass
from pathlib import Path

from hsam.weights.files import text_instead
from pipeline.core import files
from pipeline.core.errors import UserError


@dataclass(frozen=True)
class SamFile:
    """One published checkpoint.

    Attributes:
        url: where to get it.
        size: bytes.
        sha256: of the file.
    """

    url: str
    size: int
    sha256: str


# https://github.com/facebookresearch/segment-anything#model-checkpoints
_BASE = "https://dl.fbaipublicfiles.com/segment_anything/"
SAM_FILES = {
    "vit_b": SamFile(
        _BASE + "sam_vit_b_01ec64.pth",
        375_042_383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": SamFile(
        _BASE + "sam_vit_l_0b3195.pth",
        1_249_524_607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": SamFile(
        _BASE + "sam_vit_h_4b8939.pth",
        2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
}


def checked_sha256(path: Path, backbone: str) -> str:
    """SHA-256 of the user's SAM file.

    A file of another name than the published one, such as fine-tuned weights, may have any content.

    Args:
        path: the file.
        backbone: a key of SAM_FILES.

    Raises:
        UserError: no such file, a web page or a pointer of Git LFS, the file of another backbone,
            or a file with the published name but another content (a download cut short).
    """
    expected = SAM_FILES[backbone]
    wanted = (
        f"expected SAM's {backbone} from {expected.url}, "
        f"{expected.size:,} bytes, SHA-256 {expected.sha256}"
    )
    if not path.is_file():
        raise UserError(f"train.sam_checkpoint: there is no file {path}; {wanted}.")
    if (text := text_instead(path)) is not None:
        raise UserError(f"train.sam_checkpoint: {path} is {text}; {wanted}.")
    for other, known in SAM_FILES.items():
        if other != backbone and path.stat().st_size == known.size:
            raise UserError(f"train.sam_checkpoint: {path} is SAM's {other} file; {wanted}.")
    published_name = path.name == expected.url.rsplit("/", 1)[1]
    if published_name and path.stat().st_size != expected.size:
        raise UserError(
            f"train.sam_checkpoint: {path} has {path.stat().st_size:,} bytes, "
            f"a download cut short?; {wanted}."
        )
    found = files.sha256(path)
    if published_name and found != expected.sha256:
        raise UserError(f"train.sam_checkpoint: {path} has SHA-256 {found}; {wanted}.")
    return found
