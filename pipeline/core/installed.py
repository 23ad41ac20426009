"""What the installed `hsam` asks for, and which of it is here, by the packages' metadata alone."""

import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from pipeline.core.errors import UserError

NAME = "hsam"
# a line of the metadata: name[extras]specifiers; markers
LINE = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*([^;]*)(?:;(.*))?")
EXTRA = re.compile(r"""extra == ["']([^"']+)["']""")
BUILD = re.compile(r"""^(cuda|hip)(?::[^=]*)? = ["']([^"']+)["']""", re.MULTILINE)


class Requirement(NamedTuple):
    """A package that is asked for.

    Attributes:
        name: of its distribution.
        versions: that are allowed, such as ">=2.9,<3"; empty: any.
        extra: of `hsam[extra]`, which asks for it; None: `hsam` itself.
        marker: for which Python and system, as in the metadata; empty: all.
    """

    name: str
    versions: str
    extra: str | None
    marker: str


def requirements() -> Iterator[Requirement]:
    """All that `hsam` and its extras ask for; nothing where no metadata is found."""
    try:
        lines = metadata.requires(NAME) or ()
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        if (match := LINE.match(line)) is not None and match[1] != NAME:
            marker = (match[3] or "").strip()
            extra = EXTRA.search(marker)
            yield Requirement(match[1], match[2].strip(" ()"), extra and extra[1], marker)


def extras() -> dict[str, list[str]]:
    """Extra to those of its packages that aren't installed, for people who use the pipeline."""
    found: dict[str, list[str]] = {}
    for requirement in requirements():
        if requirement.extra not in (None, "dev"):
            missing = found.setdefault(str(requirement.extra), [])
            if not is_here(requirement.name):
                missing.append(requirement.name)
    return found


def is_here(name: str) -> bool:
    """Whether a distribution is installed."""
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def version(name: str) -> str | None:
    """The version of an installed distribution, None where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def pytorch() -> tuple[str, str | None] | None:
    """PyTorch's version and the GPU software that it was built for, such as "CUDA 12.8".

    Read from its files: the import alone takes seconds.

    Returns:
        version and software, None for a build without any; None: it isn't installed.
    """
    found = find_spec("torch")
    if found is None or found.origin is None:
        return None
    try:
        text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return version("torch") or "unknown", None
    said = re.search(r"""^__version__ = ["']([^"']+)["']""", text, re.MULTILINE)
    built = dict(BUILD.findall(text))
    software = next((f"{name.upper()} {built[name]}" for name in built), None)
    return (said[1] if said else version("torch") or "unknown"), software


def need(modules: Iterable[str], extra: str, what: str) -> None:
    """Refuse work before it begins where a package of an extra isn't installed.

    Args:
        modules: that the work imports.
        extra: that brings them.
        what: the work, as people call it.

    Raises:
        UserError: one isn't there.
    """
    if missing := [module for module in modules if find_spec(module) is None]:
        raise UserError(_advice(missing, extra, what))


def absent(error: ModuleNotFoundError) -> str | None:
    """The sentence on a missing package that an extra brings; None: no extra brings it."""
    module = (error.name or "").partition(".")[0]
    for requirement in requirements():
        if requirement.extra is not None and _normal(requirement.name) == _normal(module):
            return _advice([module], requirement.extra, "this command")
    return None


def _advice(modules: Sequence[str], extra: str, what: str) -> str:
    many = len(modules) > 1
    return (
        f"{what}: needs the Python package{'s' * many} {' and '.join(modules)}, which "
        f"{'are' if many else 'is'}n't installed; `pip install '{NAME}[{extra}]'` brings "
        f"{'them' if many else 'it'}."
    )


def _normal(name: str) -> str:
    """A name as it is compared: distributions' and modules' names differ in dashes alone."""
    return re.sub("[-_.]+", "-", name).lower()
