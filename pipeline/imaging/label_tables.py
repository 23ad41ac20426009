"""Names and colours of the organs in a label map, as files that ITK-SNAP and 3D Slicer load."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.core.files import write_text
from pipeline.imaging.colours import organ_colours, rgb

ITK_SNAP, SLICER = "labels_itksnap.txt", "labels_slicer.ctbl"
HEAD = """################################################
# ITK-SnAP Label Description File
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
################################################
"""


def write_label_files(folder: Path, names: Sequence[str]) -> None:
    """Write the files for ITK-SNAP and 3D Slicer, with the colours of the report.

    Args:
        folder: to write to.
        names: organs; `names[k - 1]` is label k.
    """
    write_text(folder / ITK_SNAP, itk_snap(names))
    write_text(folder / SLICER, slicer(names))


def itk_snap(names: Sequence[str]) -> str:
    """Text of an ITK-SNAP label file: index, colour 0-255, opacity, visibility, mesh, name."""
    rows = [f'{0:5} {0:5} {0:4} {0:4} {0:5} {0:3} {0:3}    "Clear Label"']
    for index, name, (red, green, blue) in _coloured(names):
        plain = name.replace('"', "'")
        rows.append(f'{index:5} {red:5} {green:4} {blue:4} {1:5} {1:3} {1:3}    "{plain}"')
    return HEAD + "\n".join(rows) + "\n"


def slicer(names: Sequence[str]) -> str:
    """Text of a 3D Slicer colour table: index, name without spaces, colour and opacity 0-255."""
    rows = ["# Color table file", "0 background 0 0 0 0"]
    for index, name, (red, green, blue) in _coloured(names):
        rows.append(f"{index} {'_'.join(name.split())} {red} {green} {blue} 255")
    return "\n".join(rows) + "\n"


def _coloured(names: Sequence[str]) -> Iterator[tuple[int, str, tuple[int, int, int]]]:
    """Label, name and (red, green, blue) of each organ."""
    for label, (name, colour) in enumerate(zip(names, organ_colours(names), strict=True), 1):
        yield label, name, rgb(colour)
