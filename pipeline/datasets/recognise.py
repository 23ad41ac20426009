"""Which data set a folder is: each of the registry is asked whether the files are its own."""

from pathlib import Path

from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Dataset
from pipeline.core.params.load import load
from pipeline.core.registry import DATASETS
from pipeline.datasets import named
from pipeline.datasets.base import few


def recognise(root: Path) -> Dataset:
    """The block `dataset` for a folder.

    Raises:
        UserError: no such folder, nothing in it that a data set takes for its own, or files of
            several data sets, in it or in the folders in it.
    """
    if not root.is_dir():
        found = "is a file" if root.exists() else "is not there"
        raise UserError(f"{root}: expected a folder of scans and their labels, {found}.")
    names = _names(root)
    if len(names) > 1:
        raise UserError(
            f"{root}: holds files of several data sets, {' and '.join(names)}; move each into a "
            "folder of its own."
        )
    if names:
        return _block(names[0], root)
    inside = [path for path in files.entries(root) if path.is_dir() and _names(path)]
    if not inside:
        # the phantoms' is Synapse's
        layouts = " or ".join({named(name).layout: None for name in DATASETS})
        raise UserError(
            f"{root}: nothing that can be read as scans with labels; expected below it "
            f"{layouts} (docs/data.md)."
        )
    holds = "one data set" if len(inside) == 1 else "several data sets"
    raise UserError(f"{root}: holds {holds}, {few(map(str, inside))}; name the folder to use.")


def _names(root: Path) -> list[str]:
    """The data sets that take the files of a folder for their own."""
    return [name for name in DATASETS if named(name).recognises(_block(name, root))]


def _block(name: str, root: Path) -> Dataset:
    return load([]).dataset.model_copy(update={"name": name, "root": str(root)})
