"""The long form: `python -m tests.soak`, or `make soak`; writes the table of docs/reliability.md.

Takes about three quarters of an hour on two cores.
"""

import argparse
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from hsam.version import __version__
from pipeline.core.console import say
from pipeline.core.files import write_text
from tests.pipeline import trainings
from tests.pipeline.conftest import ROOT
from tests.soak import crowds, damage, engines, grids, kills, narrow
from tests.soak.outcome import Outcome
from tests.soak.stages import STAGES, TINY, WITH_WORKERS, Workspace

SHEET = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"


def damaged_files(folder: Path, share: float) -> Iterator[Outcome]:
    """Every format of `damage.FORMATS`."""
    for kind in damage.FORMATS:
        yield damage.damage_files(kind, _part(1500, share))


def random_grids(folder: Path, share: float) -> Iterator[Outcome]:
    """Scans on random grids in every format."""
    yield grids.keep_grids(folder, _part(1000, share))


def killed_stages(folder: Path, share: float) -> Iterator[Outcome]:
    """SIGKILL at random moments of the stages, and of the engines that run them."""
    yield from kills.kill_stages(folder / "stages", _part(100, share))
    for engine in engines.ENGINES:
        yield engines.kill_engine(folder / engine, engine, _part(6, share))


def killed_two_devices(folder: Path, share: float) -> Iterator[Outcome]:
    """SIGKILL of the parent of a training by two processes."""
    changes = TINY | {"train": trainings.TINY | trainings.TWO_DEVICES, "search": {"trials": 0}}
    space = Workspace(folder, changes)
    for stage in STAGES[:3]:
        space.finish(stage)
    yield kills.kill_parents(space, _part(20, share))


def crowded(folder: Path, share: float) -> Iterator[Outcome]:
    """Several processes at the same work."""
    space = Workspace(folder)
    yield crowds.prepare_together(space, _part(5, share))
    for stage in STAGES[1:3]:
        space.finish(stage)
    yield crowds.train_together(space, _part(5, share))


def narrowed(folder: Path, share: float) -> Iterator[Outcome]:
    """Full disks and a small /dev/shm."""
    if not narrow.possible():
        say("full disks and small /dev/shm: not tried, no file system can be mounted here")
        return
    space = Workspace(folder, TINY | {"train": TINY["train"] | WITH_WORKERS})
    for stage in STAGES:
        space.finish(stage)
    stages = ("prepare", "split", "search", "train", "evaluate", "report")
    yield narrow.fill_disks(space, stages, (16, 64, 256, 1024)[: _part(4, share)])
    yield narrow.train_without_shared_memory(space, (16, 256)[: _part(2, share)])


KINDS: dict[str, Callable[[Path, float], Iterator[Outcome]]] = {
    "damage": damaged_files,
    "grids": random_grids,
    "crowds": crowded,
    "narrow": narrowed,
    "kills": killed_stages,
    "parents": killed_two_devices,
}


def table(outcomes: list[Outcome]) -> str:
    """The outcomes as Markdown, under the versions that they were made with."""
    versions = f"hsam {__version__}, PyTorch {torch.__version__}, {platform.system()}"
    lines = [
        f"Made with {versions}.\n",
        "| what | tried | held | |",
        "| --- | ---: | ---: | --- |",
    ]
    for outcome in outcomes:
        lines.append(
            f"| {outcome.what} | {outcome.tried:,} | {outcome.held:,} | {outcome.detail} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run all, or the kinds that are named; exit code 1 where something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts")
    parser.add_argument("--write", action="store_true", help=f"put the table into {SHEET.name}")
    options = parser.parse_args()
    chosen = options.kinds or list(KINDS)
    if unknown := set(chosen) - set(KINDS):
        parser.error(f"expected {', '.join(KINDS)}, found {', '.join(sorted(unknown))}")
    outcomes = []
    for kind in chosen:
        with tempfile.TemporaryDirectory() as folder:
            for outcome in KINDS[kind](Path(folder), options.share):
                outcomes.append(outcome)
                say(f"{outcome.what}: {outcome.held} of {outcome.tried} held; {outcome.detail}")
                for failure in outcome.failures:
                    say(f"  {failure}")
    text = table(outcomes)
    print(text)
    if options.write:
        before, _, rest = SHEET.read_text(encoding="utf-8").partition(BEGIN)
        write_text(SHEET, before + BEGIN + text + END + rest.partition(END)[2])
    return 1 if any(outcome.failures for outcome in outcomes) else 0


def _part(count: int, share: float) -> int:
    return max(1, round(count * share))


if __name__ == "__main__":
    sys.exit(main())
