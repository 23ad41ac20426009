"""Slices per second and memory of a training step, against the published recipe's step.

    python benchmarks/train.py [--rounds 9] [--threads 2] [--json train.json]

On a GPU when there is one (bfloat16 against float32), else on the CPU (float32 against float32).
Both steps start from the same decoded slices of 512 x 512 pixels in memory and end with updated
weights; `published_step.py` says what the other one includes. Each step has a process of its own;
they take turns. Slices per second are those of the fastest round; the ratio is the median of the
ratios of all rounds.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import machine, options, ratio, report, rounds_apart
from published_step import PublishedStep
from slices import SIDE

import hsam
from pipeline.core.params.load import load
from pipeline.inference.precision import set_tf32
from pipeline.training.batches import Batches
from pipeline.training.devices import make_fabric
from pipeline.training.step import Trainer, training_step

CLASSES = 9
RECIPE = Path(__file__).parents[1] / "workflow" / "presets" / "paper.yaml"
CASES = {  # backbone, image size, batch
    "cuda": (("vit_tiny", 128, 32), ("vit_b", 224, 32), ("vit_b", 512, 16)),
    "cpu": (("vit_tiny", 128, 16), ("vit_b", 224, 2), ("vit_b", 512, 1)),
}
PAPER_SLICES = 300 * 221  # epochs x slices of the paper's run on 10% of Synapse

Step = Callable[[], object]


def slices(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (B, 512, 512) in [0, 1] and labels: smooth blobs of every class."""
    random = np.random.default_rng(0)
    coarse = torch.from_numpy(random.random((batch, 1, 8, 8), dtype=np.float32))
    image = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1)
    return image[:, 0].numpy(), (image[:, 0] * (CLASSES - 1)).round().to(torch.uint8).numpy()


def published(backbone: str, image_size: int, batch: int, device: str) -> Step:
    """The published recipe's step, its augmentation included."""
    step = PublishedStep(backbone, image_size, CLASSES, device)
    images, labels = slices(batch)
    return lambda: step(images, labels)


def ours(backbone: str, image_size: int, batch: int, device: str) -> Step:
    """The pipeline's step, its augmentation included."""
    sizes = {"backbone": backbone, "image_size": image_size, "batch_size": batch}
    settings = load([RECIPE]).train.model_copy(update=sizes)
    fabric = make_fabric(settings, device)
    fabric.launch()
    set_tf32(settings.tf32)
    model = hsam.build_hsam(backbone, image_size=image_size, num_classes=CLASSES - 1)
    trainer = Trainer.make(fabric, model, settings, seed=0)
    images, labels = (torch.from_numpy(array) for array in slices(batch))
    one = next(Batches(batch, 1, batch, batch, seed=0).steps())

    def step() -> None:
        read = [(images.to(device), labels.to(device), one.indices)]
        training_step(trainer, one, read, settings.learning_rate, 0.4)

    return step


STEPS = {"published": published, "ours": ours}


def speed(
    backbone: str, image_size: int, batch: int, device: str, threads: int, rounds: int
) -> dict:
    """Both steps, in turn."""
    case = (backbone, image_size, batch, device)
    work = {name: (make, case) for name, make in STEPS.items()}
    all_times, peaks = rounds_apart(work, threads, rounds)
    times = {name: min(values) for name, values in all_times.items()}
    return {
        "backbone": backbone,
        "image": image_size,
        "batch": batch,
        "published, slices/s": batch / times["published"],
        "here, slices/s": batch / times["ours"],
        "ratio": ratio(all_times["published"], all_times["ours"]),
        "paper's 10% run, min": PAPER_SLICES * times["ours"] / batch / 60,
        "published, GiB": peaks["published"],
        "here, GiB": peaks["ours"],
    }


def main() -> None:
    arguments = options(__doc__, rounds=9, threads=2)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads, rounds = arguments.threads, arguments.rounds
    rows = [speed(*case, device, threads, rounds) for case in CASES[device]]
    report({"machine": machine(threads), "Training step": rows}, arguments.json)


if __name__ == "__main__":
    main()
