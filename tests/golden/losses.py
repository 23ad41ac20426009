"""Proof that a change leaves the results alone: the losses of a small seeded training, compared.

    python -m tests.golden.losses                     # compare with tests/golden/losses.csv
    python -m tests.golden.losses --write FILE        # this state's losses, to compare others with
    python -m tests.golden.losses --against FILE      # compare with them

Phantom volumes are made, prepared and split, and H-SAM is trained on them with every part on: LoRA,
both decoders, augmentation, the rare-organ sampler, several passes a step, clipping, the moving
average. An epoch is one step. On one machine the same code gives the same bits; other processors
and other versions of PyTorch round otherwise, which training amplifies.

The exit status is 0 for losses that are equal or within the tolerance, 1 for others and 2 where
there is nothing to compare with. A change that is meant to change results writes the file anew
(`--write` without a name) and says so in its commit.
"""

import argparse
import csv
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.core.params.load import validate
from pipeline.stages import phantom, prepare, split
from pipeline.training.build import build_model
from pipeline.training.devices import make_fabric
from pipeline.training.fit import fit
from pipeline.training.prepared import TrainingData

GOLDEN = Path(__file__).with_name("losses.csv")
COLUMNS = ("step", "total", "coarse", "fine")
STEPS = 40
WARMUP = 8  # until here a step depends on those before it alone, not on the length of the training
# tolerance of the first WARMUP steps and of all, as a share of the loss; AVX2 and plain code were
# 2e-6 and 1e-4 from AVX-512
FIRST, ALL = 2e-5, 1e-3
SIZE = 64  # pixels
PARAMS = {
    "base": {"seed": 42},
    "split": {"validation": 0.0, "slices": 0.2, "only_labelled": True},
    "search": {"trials": 0},
    "train": {
        "model": "hsam",
        "backbone": "vit_tiny",
        "train_encoder": True,
        "image_size": SIZE,
        "lora_rank": 4,
        "mask_attention": True,
        "pixel_decoder": True,
        "cm_attention": True,
        "gate": "spatial",
        "embedding_noise": 0.2,
        "micro_batch": 6,
        "precision": "fp32",
        "sampler": "rare_organ",
        "learning_rate": 0.0005,  # small: at 0.0025 rounding alone moves late losses by 5%
        "weight_decay": 0.1,
        "warmup_iterations": WARMUP,
        "lr_power": 0.9,
        "clip_norm": 1.0,
        "ema_decay": 0.99,
        "dice_weight": 0.9,
        "second_loss": "cross_entropy",
        "lambda_start": 0.4,
        "lambda_end_at_zero": False,
        "validate_every": 0,
        "augment": {
            "rotate": 0.45,
            "rotation_degrees": 20.0,
            "crop": 0.75,
            "crop_side": [0.5, 1.0],
            "elastic": 0.85,
            "elastic_shift": 0.02,
            "elastic_sigma": 0.08,
            "noise": 0.02,
            "gamma": 1.2,
        },
    },
}

Losses = list[tuple[float, ...]]


def train(folder: Path, steps: int = STEPS) -> Losses:
    """Losses of each step: total, coarse and fine stage. Data and run folders go to `folder`."""
    torch.set_num_threads(1)
    data = {"cases": 3, "seed": 1, "size": SIZE}
    phantom.run(folder / "raw", **data)
    block = {"name": "phantom", "root": str(folder / "raw"), "phantom": data}
    params = validate({**PARAMS, "dataset": block}, "golden")
    prepare.run(params, folder / "prepare", folder / "runs")
    split.run(params, folder / "prepare", folder / "split", folder / "runs")
    prepared = TrainingData.open(folder / "prepare", folder / "split")
    slices = prepared.slices("train")
    settings = params.train.model_copy(update={"epochs": steps, "batch_size": len(slices)})
    model = build_model(settings, len(prepared.class_names), params.seed_of("train"))
    fabric = make_fabric(settings, "cpu")
    fabric.launch()
    history = fit(fabric, model, slices, settings, seed=params.seed_of("train")).history
    names = ("train_loss", "train_loss_coarse", "train_loss_fine")
    return [tuple(row[name] for name in names) for row in history.epochs]


def facts() -> str:
    """What the last bits depend on beside the code."""
    capability = torch.backends.cpu.get_cpu_capability()
    return (
        f"torch {torch.__version__}, numpy {np.__version__}, {platform.system()} "
        f"{platform.machine()}, {capability}, 1 thread"
    )


def write(path: Path, losses: Losses) -> None:
    """Write losses with every digit, and what they depend on."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"# python -m tests.golden.losses --write\n# {facts()}\n")
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        rows.writerows([step, *map(repr, values)] for step, values in enumerate(losses))


def read(path: Path) -> tuple[str, Losses]:
    """The facts and the losses of a file that `write` made."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    losses = [tuple(float(row[name]) for name in COLUMNS[1:]) for row in rows]
    return lines[1].removeprefix("# "), losses


def differences(losses: Losses, golden: Losses) -> list[float]:
    """Of each step the largest difference of its losses, as a share of the golden one."""
    return [
        max(abs(a - b) / abs(b) for a, b in zip(one, other, strict=True))
        for one, other in zip(losses, golden, strict=True)
    ]


def compare(losses: Losses, golden: Losses) -> tuple[bool, str]:
    """Whether the losses are the golden ones, and in words how near they are."""
    found = differences(losses, golden)
    worst = max(found)
    if worst == 0:
        return True, f"{len(found)} steps, equal to the last bit"
    step, first = found.index(worst), max(found[:WARMUP])
    text = (
        f"largest difference {worst:.2g} of the loss, at step {step} of {len(found)}; "
        f"{first:.2g} in the first {WARMUP} steps"
    )
    if first <= FIRST and worst <= ALL:
        return True, f"{text}: within the tolerance ({FIRST:g} in those, {ALL:g} in all)"
    return False, f"{text}: beyond the tolerance ({FIRST:g} in those, {ALL:g} in all)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, then write or compare."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.losses")
    parser.add_argument("--write", metavar="FILE", nargs="?", type=Path, const=GOLDEN)
    parser.add_argument("--against", metavar="FILE", type=Path, default=GOLDEN)
    chosen = parser.parse_args(arguments)
    if chosen.write is None and not chosen.against.is_file():
        print(f"{chosen.against}: there are no losses to compare with.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        losses = train(Path(folder))
    if chosen.write is not None:
        write(chosen.write, losses)
        print(f"{chosen.write}: {len(losses)} steps, {facts()}")
        return 0
    made_with, golden = read(chosen.against)
    same, text = compare(losses, golden)
    print(f"golden: {made_with}\nhere:   {facts()}\n{text}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
