"""SIGKILL of a workflow engine and all its jobs, as a cluster does it; then the same again."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from pipeline.core.files import sha256
from tests.soak.outcome import Outcome
from tests.soak.stages import SIZE, TINY
from tests.workflow.conftest import copy_repository

BIN = Path(sys.executable).parent
SNAKEMAKE = [str(BIN / "snakemake"), "--cores", "2", "--resources", "gpu=0"]
# engine to its command, and to what mends its own state after a kill
ENGINES: dict[str, tuple[list[str], list[str] | None]] = {
    "snakemake": (SNAKEMAKE, [*SNAKEMAKE, "--unlock"]),
    "dvc": ([str(BIN / "dvc"), "repro"], None),
}
OUTPUTS = (
    "results/prepare/manifest.parquet",
    "results/split/split.parquet",
    "results/search/best.yaml",
    "results/train/model.safetensors",
    "results/evaluate/metrics.json",
)
CHANGES = {"dataset": {"phantom": {"cases": 4, "size": SIZE}}, **TINY, "search": {"trials": 1}}


def kill_engine(folder: Path, engine: str, kills: int, seed: int = 0) -> Outcome:
    """Kill an engine with its jobs `kills` times, let it end, and compare the outputs.

    Args:
        folder: for a copy of the repository.
        engine: one of ENGINES.
        kills: each from where the last one has left the work.
        seed: of the moments.
    """
    folder.mkdir(parents=True)
    copy_repository(folder, CHANGES)
    command, unlock = ENGINES[engine]
    start = time.monotonic()
    assert _run(folder, command) == 0, _log(folder)
    seconds = time.monotonic() - start
    wanted = _outputs(folder)
    for name in ("results", "runs", "reports", "data", ".snakemake", "dvc.lock", ".dvc/tmp"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    chance = random.Random(f"{engine} {seed}")
    for _ in range(kills):
        _run(folder, command, chance.uniform(0, seconds))
        if unlock is not None:
            _run(folder, unlock)
    failures = []
    if _run(folder, command) != 0:
        failures.append(f"{engine} after {kills} kills: {_log(folder)[-300:]}")
    elif _outputs(folder) != wanted:
        failures.append(f"{engine} after {kills} kills: other outputs")
    what = f"SIGKILL of {engine} and its jobs, outputs equal"
    return Outcome(what, kills, tuple(failures), f"undisturbed {seconds:.0f} s")


def _run(folder: Path, command: list[str], kill_after: float | None = None) -> int:
    """Run a command to its end, or kill its process group after so many seconds."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DVC_")}
    environment |= {"OMP_NUM_THREADS": "1", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(folder)
    with open(folder / "engine.log", "wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return process.wait(kill_after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def _outputs(folder: Path) -> dict[str, str]:
    return {name: sha256(folder / name) for name in OUTPUTS}


def _log(folder: Path) -> str:
    return (folder / "engine.log").read_text(encoding="utf-8")
