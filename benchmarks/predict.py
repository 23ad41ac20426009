"""Slices per second of prediction, against the plain way.

    python benchmarks/predict.py [--rounds 5] [--threads 2] [--json predict.json]

On a GPU when there is one, else on the CPU. Both ways start from the same slices of 512 x 512
pixels in memory and end with a label map of that size, of the mean of the two stages. "Plain" is
one slice a call: cubic spline to the model's side (SciPy), SAM's own encoder with unmerged LoRA in
float32, the largest logit, nearest label back to 512 pixels (SciPy). "Here" is
`pipeline.inference.volume.predict_volume` with a model of `hsam.for_inference`: batches, LoRA
merged, on CUDA the encoder in bfloat16. "Three stages" are the labels of mean, coarse and fine from
one pass, as `hsam predict` needs them for its review list. "Uncertainty" is what each way to know
how unsure a prediction is costs: the probabilities and all signs of `pipeline.scoring.uncertainty`
(expected Dice, agreement of the stages, expected error), and the average over the views of `--tta`,
as seconds of a slice over those of the three stages' labels. Weights are random, the same in both
models. The ways are measured in turn in one process.
"""

from collections.abc import Callable

import numpy as np
import torch
from measure import alone, fastest, machine, options, report
from numpy.typing import NDArray
from published_step import sams_encoder
from scipy import ndimage

import hsam
from hsam.lora import add_lora
from hsam.output import STAGES
from pipeline.inference.tta import VIEWS, averaged
from pipeline.inference.volume import (
    STEPS,
    forward,
    predict_batches,
    predict_stages,
    predict_volume,
)
from pipeline.scoring.uncertainty import Uncertainty

SIDE = 512  # of the scan's slices, pixels
CLASSES = 9


def volume(count: int) -> NDArray[np.float32]:
    """(count, 512, 512) in [0, 1], smooth: noise of 8 x 8 enlarged."""
    random = np.random.default_rng(0)
    coarse = torch.from_numpy(random.random((count, 1, 8, 8), dtype=np.float32))
    fine = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic")
    return fine[:, 0].clamp(0, 1).numpy()


def build(backbone: str, image_size: int) -> hsam.SegmentationModel:
    """H-SAM with random weights, the same at every call."""
    torch.manual_seed(0)
    return hsam.build_hsam(backbone, image_size=image_size, num_classes=CLASSES - 1)


class PlainPrediction:
    """One slice a call, as the published code tests."""

    def __init__(self, backbone: str, image_size: int, device: str) -> None:
        model = build(backbone, image_size)
        encoder = sams_encoder(backbone, image_size)
        add_lora(encoder, rank=4)
        encoder.load_state_dict(model.image_encoder.state_dict())
        model.image_encoder = encoder
        self.model, self.device = model.to(device).eval(), device

    @torch.no_grad()
    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.uint8]:
        """(slices, rows, columns) in [0, 1] -> labels of the same shape."""
        return np.stack([self._slice(image) for image in images])

    def _slice(self, image: NDArray[np.float32]) -> NDArray[np.uint8]:
        side = self.model.image_size
        small = ndimage.zoom(image, [side / size for size in image.shape], order=3)
        batch = torch.from_numpy(small)[None, None].to(self.device).expand(-1, 3, -1, -1)
        logits = self.model(batch).logits("mean")
        labels = logits.softmax(1).argmax(1)[0].cpu().numpy().astype(np.uint8)
        back = [size / side for size, side in zip(image.shape, labels.shape, strict=True)]
        return ndimage.zoom(labels, back, order=0)


def ways(
    backbone: str, image_size: int, batch: int, device: str
) -> dict[str, Callable[[NDArray[np.float32]], object]]:
    """Name to what labels a volume."""
    model = hsam.for_inference(build(backbone, image_size), device, half_encoder=device == "cuda")
    return {
        "plain": PlainPrediction(backbone, image_size, device),
        "here": lambda images: predict_volume(model, images, batch_size=batch, device=device),
        "three": lambda images: predict_stages(
            model, images, STAGES, batch_size=batch, device=device
        ),
    }


def speed(backbone: str, image_size: int, batch: int, device: str, rounds: int) -> dict:
    """Slices per second of every way, over one batch of slices."""
    images = volume(batch)
    named = ways(backbone, image_size, batch, device)
    times = fastest({name: lambda way=way: way(images) for name, way in named.items()}, rounds)
    return {
        "backbone": backbone,
        "image": image_size,
        "batch": batch,
        "plain, slices/s": batch / times["plain"],
        "here, slices/s": batch / times["here"],
        "ratio": times["plain"] / times["here"],
        "three stages, slices/s": batch / times["three"],
        "ratio, three stages": times["plain"] / times["three"],
    }


def uncertainty(backbone: str, image_size: int, batch: int, device: str, rounds: int) -> dict:
    """Seconds of a slice, and what each way adds to the labels of three stages."""
    images = volume(batch)
    model = hsam.for_inference(build(backbone, image_size), device, half_encoder=device == "cuda")

    def signs(passes: Callable) -> Uncertainty:
        found = Uncertainty.of(batch, CLASSES - 1, (0.8, 0.8))
        options = {"batch_size": batch, "device": device, "forward": passes}
        for part in predict_batches(model, images, STAGES, probabilities="mean", **options):
            found.add(part.first, part.labels, "mean", part.probabilities, STEPS)
        return found

    times = fastest(
        {
            "labels": lambda: predict_stages(
                model, images, STAGES, batch_size=batch, device=device
            ),
            "signs": lambda: signs(forward),
            "views": lambda: signs(averaged),
        },
        rounds,
    )
    return {
        "backbone": backbone,
        "image": image_size,
        "labels, s/slice": times["labels"] / batch,
        "and signs, s/slice": times["signs"] / batch,
        f"and {len(VIEWS)} views, s/slice": times["views"] / batch,
        "signs, times": times["signs"] / times["labels"],
        "views, times": times["views"] / times["labels"],
    }


def main() -> None:
    arguments = options(__doc__, rounds=5, threads=2)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tiny, small, large = (64, 32, 16) if device == "cuda" else (16, 4, 2)
    cases = (("vit_tiny", 128, tiny), ("vit_b", 224, small), ("vit_b", 512, large))
    rows = [alone(speed, arguments.threads, *case, device, arguments.rounds) for case in cases]
    small_cases = (("vit_tiny", 128, tiny), ("litemedsam", 128, small))
    costs = [
        alone(uncertainty, arguments.threads, *case, device, arguments.rounds)
        for case in small_cases
    ]
    found = {"machine": machine(arguments.threads, "numpy", "scipy")}
    report(found | {"Prediction": rows, "Uncertainty": costs}, arguments.json)


if __name__ == "__main__":
    main()
