"""`hsam doctor`: what is wrong with this installation and machine, and what mends it.

A check is one line: `ok`, `note` for what only some work needs, `problem` for what stops the work.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from packaging.markers import Marker
from packaging.specifiers import SpecifierSet

from hsam.backbones import known_weights
from hsam.version import __version__
from pipeline.core import devices, home, installed, locks, weight_files, writable
from pipeline.core.errors import UserError

PYTHONS = SpecifierSet(">=3.11,<3.14")
MIB, GIB = 2**20, 2**30
LEAST_SHARED, LEAST_DISK = 1 * GIB, 5 * GIB
SECONDS = 120  # for PyTorch, whose first import reads much from the disk
TRY_TORCH = """
import torch
gpus = torch.cuda.device_count()
for device in ("cpu", "cuda")[: 1 + (gpus > 0)]:
    ones = torch.ones(4, 4, device=device)
    assert float((ones @ ones).sum()) == 64
print(gpus)
"""

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Check:
    """What one look found.

    Attributes:
        name: what was looked at.
        state: "ok", "note" or "problem".
        found: what was found, and what to do about it.
    """

    name: str
    state: State
    found: str


def run(folders: Sequence[Path], as_json: bool, echo: Callable[[str], None] = print) -> bool:
    """Look at everything and say what was found, line by line.

    Args:
        folders: that the stages write to.
        as_json: print a list for programs at the end instead.
        echo: takes each line.

    Returns:
        Whether there is no problem.
    """
    found = []
    for check in checks(folders):
        found.append(check)
        if not as_json:
            echo(f"{check.state:<7}  {check.name}: {check.found}")
    problems = sum(check.state == "problem" for check in found)
    if as_json:
        echo(json.dumps([asdict(check) for check in found], indent=2))
    else:
        echo(f"{problems or 'no'} problem{'' if problems == 1 else 's'}")
    return not problems


def checks(folders: Sequence[Path]) -> Iterator[Check]:
    """All looks, the quick ones first."""
    yield _python()
    yield _packages()
    yield _command()
    yield from _extras()
    yield from _programs()
    yield from _weights()
    yield _shared_memory()
    yield from (_folder(folder) for folder in folders)
    yield _folder(Path(tempfile.gettempdir()))
    yield from _torch()


def _python() -> Check:
    found = f"{platform.python_version()}, hsam {__version__} in {home.ROOT}"
    if platform.python_version() in PYTHONS:
        return Check("python", "ok", found)
    return Check("python", "problem", f"{found}; make an environment of Python 3.11 to 3.13")


def _packages() -> Check:
    wanted = [each for each in installed.requirements() if each.extra is None]
    if not wanted:
        lost = "no metadata of hsam is installed, so what it needs can't be checked"
        return Check("packages", "note", f"{lost}; `pip install .` in its clone mends it")
    wrong = list(_wrong(wanted))
    if wrong:
        mend = "`pip install --upgrade --force-reinstall --no-deps PACKAGE` brings another version"
        return Check("packages", "problem", f"{'; '.join(wrong)}; {mend}")
    return Check("packages", "ok", f"{len(wanted)}, of versions that fit")


def _wrong(wanted: Iterable[installed.Requirement]) -> Iterator[str]:
    """What is missing or of another version, in words."""
    for name, versions, extra, marker in wanted:
        if marker and not Marker(marker).evaluate({"extra": extra or ""}):
            continue
        found = installed.version(name)
        if found is None:
            yield f"{name}{versions} is missing"
        elif not SpecifierSet(versions).contains(found, prereleases=True):
            yield f"{name} is {found}, expected {versions}"


def _command() -> Check:
    """Whether `hsam` in a shell is the one of this installation."""
    first, mine = shutil.which("hsam"), Path(sys.executable).parent
    recorded = installed.version("hsam")
    if recorded not in (None, __version__):
        mend = "install it again: another version's metadata were left behind"
        return Check("command", "problem", f"metadata of hsam {recorded}; {mend}")
    if first is None:
        return Check("command", "note", f"hsam isn't on PATH; add {mine} to it")
    if Path(first).parent.resolve() != mine.resolve():
        return Check("command", "note", f"{first} comes first on PATH, this one is in {mine}")
    return Check("command", "ok", first)


def _extras() -> Iterator[Check]:
    for name in installed.extras():
        wrong = list(_wrong(each for each in installed.requirements() if each.extra == name))
        if wrong:
            mend = f"`pip install 'hsam[{name}]'` brings it"
            yield Check(f"extra {name}", "note", f"{', '.join(wrong)}; {mend}")
        else:
            yield Check(f"extra {name}", "ok", "complete")


def _programs() -> Iterator[Check]:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    needed = {
        "git": "DVC's versions and the commit in provenance need it; install git",
        "dvc": "`pip install 'hsam[pipeline]'` brings it",
        "snakemake": "`pip install 'hsam[pipeline]'` brings it",
    }
    for program, mend in needed.items():
        found = shutil.which(program, path=path)
        state: State = "note" if found is None else "ok"
        yield Check(program, state, f"isn't there; {mend}" if found is None else found)


def _weights() -> Iterator[Check]:
    missing = []
    for name, file in known_weights().items():
        path = weight_files.find(file)
        if path is None:
            missing.append(name)
        elif (damage := weight_files.damage(path, file)) is not None:
            mend = f"remove it; {weight_files.how_to_get(name)}"
            yield Check(f"weights {name}", "problem", f"{path} {damage}; {mend}")
        else:
            yield Check(f"weights {name}", "ok", str(path))
    if missing:
        where = f"not in {weight_files.looked()}; `hsam weights` says how to get them"
        yield Check("weights", "note", f"{', '.join(missing)}: {where}")


def _shared_memory() -> Check:
    free = devices.free_shared_memory()
    if free is None:
        return Check("shared memory", "ok", "the system sets no bound")
    found = f"{free / MIB:,.0f} MiB free in {devices.SHARED_MEMORY}"
    if free >= LEAST_SHARED:
        return Check("shared memory", "ok", found)
    mend = "processes that read slices may not fit; `docker run --shm-size 8g` makes it larger"
    return Check("shared memory", "note", f"{found}; {mend}")


def _folder(path: Path) -> Check:
    """Whether files, and locks on them, can be made in a folder, and how much room there is."""
    name = f"folder {path}"
    place = path.resolve()
    while not place.exists():
        place = place.parent
    try:
        writable.check_folder(path)
        with tempfile.TemporaryDirectory(prefix=".hsam-", dir=place) as folder:
            release = locks.try_lock(Path(folder, "lock"))
            if release is not None:
                release()
    except UserError as error:
        return Check(name, "problem", str(error).rstrip("."))
    free = shutil.disk_usage(place).free
    found = f"can be written, {free / GIB:,.1f} GiB free"
    if free < LEAST_DISK:
        return Check(name, "note", f"{found}; `hsam runs gc` removes what nothing needs")
    return Check(name, "ok", found)


def _torch() -> Iterator[Check]:
    """PyTorch in a process of its own, since a broken build may end it."""
    built = installed.pytorch()
    if built is None:
        yield Check("pytorch", "problem", "isn't installed; `pip install torch` brings it")
        return
    version, software = built
    try:
        done = subprocess.run(
            [sys.executable, "-c", TRY_TORCH], capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        yield Check("pytorch", "problem", f"{version} doesn't answer; install it again")
        return
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield Check("pytorch", "problem", f"{version} fails ({last}); install it again")
        return
    yield Check("pytorch", "ok", f"{version} for {software or 'the CPU'}")
    yield _gpus(int(done.stdout.split()[-1]), software)


def _gpus(seen: int, software: str | None) -> Check:
    """The cards of the machine beside those that PyTorch sees."""
    cards = [card["name"] for card in devices.gpus()]
    if seen:
        return Check("gpu", "ok", f"{seen} to compute on ({', '.join(dict.fromkeys(cards))})")
    if not cards:
        return Check("gpu", "ok", "none here; everything runs on the CPU")
    found = f"PyTorch sees none of {', '.join(cards)}"
    visible = devices.hidden()
    if visible is not None:
        return Check("gpu", "note", f"{found}; CUDA_VISIBLE_DEVICES={visible} hides them")
    if software is None:
        return Check("gpu", "problem", f"{found}: it is built for the CPU; install pip's own build")
    mend = f"the driver may be older than {software}; `nvidia-smi` shows the newest that it takes"
    return Check("gpu", "problem", f"{found}; {mend}")
