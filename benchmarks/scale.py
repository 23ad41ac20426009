"""Time, memory and disk of every stage as the number of cases grows.

    python benchmarks/scale.py [--threads 2] [--side 32] [--most 100] [--json scale.json]

Phantoms of `side` voxels a side in the plane, 10 of them, 100, and so on up to `most`, each number
in a temporary folder of its own: all training slices, one trial of one epoch, a training of one
epoch, so that every stage handles every slice a fixed number of times. Each stage is a command of
its own. Memory is that of its largest process. Disk is what the stage leaves below results/,
reports/ and runs/.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import machine, options, report

STAGES = {
    "prepare": ("results/prepare", "--jobs"),
    "split": ("results/split", None),
    "search": ("results/search", "--gpus"),
    "train": ("results/train", "--gpus"),
    "evaluate": ("results/evaluate", "--gpus"),
    "report": ("reports", None),
}
PARAMS = """
dataset: {{name: phantom, root: raw, phantom: {{cases: {cases}, size: {side}}}}}
split: {{slices: null}}
train: {{image_size: {side}, epochs: 1, validate_every: 1}}
search: {{trials: 1, epochs: 1}}
"""


def bytes_in(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run(folder: Path, threads: int, *words: str) -> tuple[float, float]:
    """Seconds of a command, and GiB of the largest of its processes."""
    command = [str(Path(sys.executable).with_name("hsam")), *words]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with open(folder / "log.txt", "ab") as log:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit((folder / "log.txt").read_text()[-2000:])
    return time.perf_counter() - start, usage.ru_maxrss / 2**20  # Linux: KiB


def measure(cases: int, side: int, threads: int) -> list[dict]:
    """A row a stage for so many cases."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "params.yaml").write_text(PARAMS.format(cases=cases, side=side))
        making = ("--out", "raw", "--cases", str(cases), "--seed", "1", "--size", str(side))
        run(folder, threads, "phantom", *making)
        for stage, (place, option) in STAGES.items():
            before = bytes_in(folder / "runs") if (folder / "runs").exists() else 0
            value = str(threads) if option == "--jobs" else "0"
            seconds, memory = run(folder, threads, stage, *([option, value] if option else []))
            disk = bytes_in(folder / place) + bytes_in(folder / "runs") - before
            row = {"cases": cases, "stage": stage, "seconds": seconds, "memory, GiB": memory}
            rows.append(row | {"disk, MiB": disk / 2**20})
    return rows


def main() -> None:
    arguments = options(
        __doc__, rounds=1, threads=2, side=(32, "rows and columns"), most=(100, "cases")
    )
    numbers = [10**power for power in range(1, 7) if 10**power <= arguments.most]
    rows = [row for n in numbers for row in measure(n, arguments.side, arguments.threads)]
    title = f"phantoms of {arguments.side} x {arguments.side} voxels in the plane"
    report({"machine": machine(arguments.threads), title: rows}, arguments.json)


if __name__ == "__main__":
    main()
