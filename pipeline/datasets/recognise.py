"""Which data set a folder is: each of the registry is asked whether the files are its own."""

from collections import deque
from pathlib import Path

from pipeline.core import files
from pipeline.core.errors import UserError, few
from pipeline.core.params.blocks import Dataset
from pipeline.core.params.load import load
from pipeline.core.registry import DATASETS
from pipeline.datasets import named
from pipeline.datasets.base import walk
from pipeline.datasets.pairs import ENDINGS

LOOKED_AT, DEEPEST = 200, 3  # folders below one that is no data set, and how deep


def recognise(root: Path) -> Dataset:
    """The block `dataset` for a folder.

    Raises:
        UserError: no such folder, nothing in it that a data set takes for its own, or files of
            several data sets, in it or in the folders in it.
    """
    if not root.is_dir():
        found = "is a file" if root.exists() else "is not there"
        raise UserError(f"{root}: expected a folder of scans and their labels, {found}.")
    names = _names(root, generic=False)
    if len(names) > 1:
        raise UserError(
            f"{root}: holds files of several data sets, {' and '.join(names)}; move each into a "
            "folder of its own."
        )
    if not names and (inside := _inside(root)):
        holds = "one data set" if len(inside) == 1 else "several data sets"
        raise UserError(f"{root}: holds {holds}, {few(map(str, inside))}; name the folder to use.")
    names = names or _names(root, generic=True)
    if not names:
        # the phantoms have Synapse's layout, which goes by the later name
        layouts = {named(name).layout: name for name in DATASETS}
        lines = [f"  {name}: {layout}" for layout, name in layouts.items()]
        raise UserError(
            f"{root}: nothing that can be read as scans with labels: {_contents(root)}. Expected "
            "below it the files of one of these (docs/data.md):\n" + "\n".join(lines)
        )
    return _block(names[0], root)


def _inside(root: Path) -> list[Path]:
    """Folders below a root that data sets take for their own, the first `LOOKED_AT` looked at."""
    found: list[Path] = []
    left = deque((path, 1) for path in _folders(root))
    for _ in range(LOOKED_AT):
        if not left:
            break
        path, depth = left.popleft()
        if _names(path, generic=False):
            found.append(path)
        elif depth < DEEPEST:
            left += [(below, depth + 1) for below in _folders(path)]
    return found


def _folders(root: Path) -> list[Path]:
    return [path for path in files.entries(root) if path.is_dir() and path.name[0] != "."]


def _contents(root: Path) -> str:
    """What lies in a folder that is no data set, in words."""
    volumes = [path for path in walk(root) if path.name.lower().endswith(ENDINGS)]
    if not volumes:
        number = len(list(walk(root)))
        files_there = "1 file" if number == 1 else f"{number:,} files"
        return f"{files_there}, no volume among them" if number else "no files"
    return (
        f"{len(volumes):,} volumes, such as {volumes[0].relative_to(root)}, but none with both an "
        "image and a label"
    )


def _names(root: Path, *, generic: bool) -> list[str]:
    """The data sets that take the files of a folder for their own."""
    asked = {name: entry for name in DATASETS if (entry := named(name)).generic == generic}
    return [name for name, entry in asked.items() if entry.recognises(_block(name, root))]


def _block(name: str, root: Path) -> Dataset:
    return load([]).dataset.model_copy(update={"name": name, "root": str(root)})
