"""Speed of scoring: every measure of every organ, beside MedPy's hd95 on the same masks.

    python benchmarks/score.py [--rounds 3] [--slices 150] [--side 512] [--json score.json]

Two label volumes of eight organ-shaped bodies, of the sizes and places of abdominal ones, the
second a deformed copy of the first. `ours` is all that `hsam score` measures of an organ (sizes,
HD95 and HD in voxels and mm, ASSD, NSD). `MedPy` is `medpy.metric.binary.hd95` alone, on whole
masks, once in voxels and once in mm; it runs once, ours several times, of which the fastest counts.
Both work on one thread, in turn.
"""

import numpy as np
from measure import alone, fastest, machine, options, peak_gib, report, seconds
from medpy.metric import binary
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.scoring.measures import measure_organs

SPACING = (3.0, 0.76, 0.76)
# organ: centre (slice, row, column) and half axes, as shares of the volume
BODIES = {
    "liver": ((0.62, 0.45, 0.33), (0.30, 0.20, 0.19)),
    "spleen": ((0.66, 0.55, 0.72), (0.15, 0.11, 0.07)),
    "stomach": ((0.68, 0.36, 0.60), (0.15, 0.10, 0.12)),
    "right kidney": ((0.42, 0.62, 0.34), (0.16, 0.06, 0.06)),
    "left kidney": ((0.45, 0.62, 0.65), (0.16, 0.06, 0.06)),
    "pancreas": ((0.50, 0.47, 0.52), (0.08, 0.05, 0.13)),
    "aorta": ((0.50, 0.58, 0.51), (0.48, 0.025, 0.025)),
    "gallbladder": ((0.50, 0.38, 0.38), (0.08, 0.04, 0.04)),
}
ORGANS = {name: ((label,), (label,)) for label, name in enumerate(BODIES, 1)}


def volume(shape: tuple[int, int, int], shift: tuple[int, int, int], seed: int) -> NDArray:
    """Labels (slices, rows, columns) of eight bodies with bumpy surfaces."""
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for label, (centre, axes) in enumerate(BODIES.values(), 1):
        middle, half = (np.multiply(part, shape) for part in (centre, axes))
        reach = np.ceil(1.5 * half).astype(int)
        low = np.maximum(np.round(middle).astype(int) + shift - reach, 0)
        box = tuple(
            slice(a, min(b, s)) for a, b, s in zip(low, low + 2 * reach, shape, strict=True)
        )
        grid = np.ogrid[box]
        radius = sum(
            ((place - m - s) / h) ** 2
            for place, m, s, h in zip(grid, middle, shift, half, strict=True)
        )
        bumps = random.standard_normal((6, 8, 8))
        zoom = np.divide(radius.shape, bumps.shape)
        radius += 0.2 * ndimage.zoom(bumps, zoom, order=1, grid_mode=True, mode="nearest")
        labels[box][radius < 1] = label
    return labels


def measure(shape: tuple[int, int, int], rounds: int) -> dict:
    """Seconds of each way over all organs, and what they found."""
    truth, prediction = volume(shape, (0, 0, 0), 0), volume(shape, (1, 4, -3), 1)
    pairs = {name: (truth == label, prediction == label) for label, name in enumerate(BODIES, 1)}
    ways = {
        "ours": lambda: measure_organs(truth, prediction, ORGANS, SPACING),
        "MedPy, voxels": lambda: [binary.hd95(b, a) for a, b in pairs.values()],
        "MedPy, mm": lambda: [binary.hd95(b, a, SPACING) for a, b in pairs.values()],
    }
    times = fastest({"ours": ways["ours"]}, rounds)
    memory = peak_gib()
    for name in ("MedPy, voxels", "MedPy, mm"):
        times[name] = seconds(ways[name])
        # in turn, so that a busy neighbour harms both alike
        times["ours"] = min(times["ours"], seconds(ways["ours"]))
    # surfaces far apart are the slowest to search
    far = np.roll(truth, shape[1] // 3, axis=1)
    times["ours, the volumes a third of the image apart"] = seconds(
        lambda: measure_organs(truth, far, ORGANS, SPACING)
    )
    found = ways["ours"]()
    for name, (a, b) in pairs.items():
        assert abs(found[name].scores["hd95_mm"] - binary.hd95(b, a, SPACING)) < 1e-6, name
    return {"times": times, "peak_gib": memory, "voxels": int((truth > 0).sum())}


def main() -> None:
    arguments = options(
        __doc__, rounds=3, threads=1, slices=(150, "slices"), side=(512, "rows and columns")
    )
    shape = (arguments.slices, arguments.side, arguments.side)
    result = alone(measure, arguments.threads, shape, arguments.rounds)
    ours = result["times"]["ours"]
    rows = [
        {"way": name, "seconds": time, "times ours": time / ours}
        for name, time in result["times"].items()
    ]
    both = result["times"]["MedPy, voxels"] + result["times"]["MedPy, mm"]
    rows.append({"way": "MedPy, both", "seconds": both, "times ours": both / ours})
    title = f"{len(BODIES)} organs in {' x '.join(map(str, shape[::-1]))} voxels"
    memory = [{"way": "ours, with the volumes", "peak GiB": result["peak_gib"]}]
    packages = ("numpy", "scipy", "medpy")
    report(
        {"machine": machine(arguments.threads, *packages), title: rows, "memory": memory},
        arguments.json,
    )


if __name__ == "__main__":
    main()
