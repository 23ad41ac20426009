"""The stages on tiny phantoms, each as a process of its own that can be killed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.core.files import sha256, write_text
from pipeline.core.params.render import render
from pipeline.stages import phantom
from tests.pipeline.conftest import ROOT, make_params

STAGES = ("prepare", "split", "search", "train", "evaluate", "report")
HSAM = (sys.executable, "-c", "from pipeline.cli import main; main()")
CASES, SIZE = 5, 32
TINY = {
    "split": {"slices": None, "validation": 0.3},
    "search": {"trials": 3, "epochs": 1},
    "train": {
        "image_size": 32,
        "epochs": 4,
        "batch_size": 6,
        "validate_every": 2,
        "checkpoint_minutes": 0.0,
        "workers": 0,
    },
    "report": {"slices": 2},
}
WITH_WORKERS = {"workers": 1, "cache_mib": 0}  # of the block train


class Workspace:
    """A folder with phantoms, params.yaml, results/, runs/ and reports/."""

    def __init__(self, folder: Path, changes: dict | None = None) -> None:
        self.folder = Path(folder)
        about = {"cases": CASES, "seed": 1, "size": SIZE}
        phantom.run(self.folder / "raw", **about)
        dataset = {"name": "phantom", "root": str(self.folder / "raw"), "phantom": about}
        params = make_params(dataset=dataset, **(TINY if changes is None else changes))
        write_text(self.folder / "params.yaml", render(params))

    @property
    def environment(self) -> dict[str, str]:
        """Of its processes: one thread each, and the code of this repository."""
        return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def command(self, stage: str, *options: str) -> list[str]:
        """The command line of a stage."""
        gpus = ["--gpus", "0"] if stage in ("search", "train", "evaluate") else []
        return [*HSAM, stage, "--params", "params.yaml", *gpus, *options]

    def start(self, stage: str, *options: str) -> subprocess.Popen:
        """Start a stage in a process group of its own; what it prints goes to its log."""
        # no pipe: what a killed process leaves behind would keep it open
        with open(self.folder / f"{stage}.log", "wb") as log:
            return subprocess.Popen(
                self.command(stage, *options),
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self, stage: str) -> str:
        """What the stage printed when it was started last."""
        return (self.folder / f"{stage}.log").read_text(encoding="utf-8")

    def finish(self, stage: str, *options: str) -> str:
        """Run a stage to its end.

        Returns:
            What it printed.

        Raises:
            AssertionError: it failed; with what it printed.
        """
        process = self.start(stage, *options)
        assert process.wait() == 0, self.log(stage)
        return self.log(stage)

    def published(self, stage: str) -> dict[str, str]:
        """Name to SHA-256 of a stage's published files, but for what it took."""
        folder = self.folder / ("reports" if stage == "report" else f"results/{stage}")
        return {
            path.relative_to(folder).as_posix(): sha256(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.is_symlink() and path.name != "cost.json"
        }

    def forget(self, stage: str) -> None:
        """Remove a stage's results and its run folder."""
        for folder in (self.folder / "results" / stage, *self.folder.glob(f"runs/*-{stage}-*")):
            shutil.rmtree(folder, ignore_errors=True)
        if stage == "report":
            shutil.rmtree(self.folder / "reports", ignore_errors=True)
