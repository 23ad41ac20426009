"""Names and colours of a label map for its readers: ITK-SNAP and 3D Slicer."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.core.files import write_text
from pipeline.imaging.colours import organ_colour, rgb

ITK_SNAP, SLICER = "labels_itksnap.txt", "labels_slicer.ctbl"
HEAD = """################################################
# ITK-SnAP Label Description File
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
################################################
"""


def write_label_files(folder: Path, names: Sequence[str]) -> None:
    """Write both files; label k is `names[k - 1]`, colours as in the report."""
    write_text(folder / ITK_SNAP, itk_snap(names))
    write_text(folder / SLICER, slicer(names))


def itk_snap(names: Sequence[str]) -> str:
    """ITK-SNAP's label descriptions: index, colour 0-255, opacity, visibility, mesh, name."""
    rows = [f'{0:5} {0:5} {0:4} {0:4} {0:5} {0:3} {0:3}    "Clear Label"']
    for index, name, (red, green, blue) in _coloured(names):
        plain = name.replace('"', "'")
        rows.append(f'{index:5} {red:5} {green:4} {blue:4} {1:5} {1:3} {1:3}    "{plain}"')
    return HEAD + "\n".join(rows) + "\n"


def slicer(names: Sequence[str]) -> str:
    """3D Slicer's colour table: index, name without spaces, red, green, blue, opacity 0-255."""
    rows = ["# Color table file", "0 background 0 0 0 0"]
    for index, name, (red, green, blue) in _coloured(names):
        rows.append(f"{index} {'_'.join(name.split())} {red} {green} {blue} 255")
    return "\n".join(rows) + "\n"


def _coloured(names: Sequence[str]) -> Iterator[tuple[int, str, tuple[int, int, int]]]:
    for index, name in enumerate(names):
        yield index + 1, name, rgb(organ_colour(index))
