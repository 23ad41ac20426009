"""Which data set a folder is: each of the registry is asked whether the files are its own."""

from pathlib import Path

from pipeline.core import files
from pipeline.core.errors import UserError, few
from pipeline.core.params.blocks import Dataset
from pipeline.core.params.load import load
from pipeline.core.registry import DATASETS
from pipeline.datasets import named


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
    inside = [path for path in files.entries(root) if path.is_dir() and not names]
    inside = [path for path in inside if _names(path, generic=False)]
    if inside:
        holds = "one data set" if len(inside) == 1 else "several data sets"
        raise UserError(f"{root}: holds {holds}, {few(map(str, inside))}; name the folder to use.")
    names = names or _names(root, generic=True)
    if not names:
        # the phantoms' layout is Synapse's
        layouts = " or ".join({named(name).layout: None for name in DATASETS})
        raise UserError(
            f"{root}: nothing that can be read as scans with labels; expected below it {layouts} "
            "(docs/data.md)."
        )
    return _block(names[0], root)


def _names(root: Path, *, generic: bool) -> list[str]:
    """The data sets that take the files of a folder for their own."""
    asked = {name: entry for name in DATASETS if (entry := named(name)).generic == generic}
    return [name for name, entry in asked.items() if entry.recognises(_block(name, root))]


def _block(name: str, root: Path) -> Dataset:
    return load([]).dataset.model_copy(update={"name": name, "root": str(root)})
