"""What an image encoder costs: its pass and the decoders', step with LoRA, step on embeddings.

    python benchmarks/encoders.py [--rounds 3] [--threads 2] [--batch 2] [--json encoders.json]

H-SAM behind each encoder at several sides; times are of a slice, from the fastest round. The
passes are those of a prediction: of the encoder alone, and of the decoders on its embeddings, as
validations run it behind cached ones. On a GPU if there is one, else on the CPU.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from measure import fastest, machine, options, report

import hsam
from pipeline.core.params.load import load
from pipeline.inference.precision import set_tf32
from pipeline.training.batches import Batches
from pipeline.training.devices import make_fabric
from pipeline.training.step import Trainer, training_step

CASES = {  # backbone and sides
    "cuda": (("litemedsam", (128, 224, 256, 512)), ("vit_b", (224, 512))),
    "cpu": (("litemedsam", (128, 224, 256)), ("vit_tiny", (128,))),
}
RECIPE = Path(__file__).parents[1] / "workflow" / "presets" / "paper.yaml"
CLASSES = 9


def forward(
    backbone: str, side: int, batch: int, device: str, decoders: bool
) -> Callable[[], object]:
    """The encoder, or the decoders on its embeddings, as prediction runs them."""
    model = hsam.build_hsam(backbone, image_size=side, num_classes=CLASSES - 1)
    model = hsam.for_inference(model, device)
    images = torch.rand(batch, 1, side, side, device=device)

    def run() -> None:
        with torch.inference_mode():
            if decoders:
                model(None, embedding=embedding).logits("mean")
            else:
                model.embed(images)

    with torch.inference_mode():
        embedding = model.embed(images)
    return run


def step(backbone: str, side: int, batch: int, device: str, cached: bool) -> Callable[[], object]:
    """A training step with LoRA, or one of the decoders alone on embeddings."""
    sizes = {"backbone": backbone, "image_size": side, "batch_size": batch}
    cache = {"cache_embeddings": 1, "lora_rank": 0} if cached else {}
    settings = load([RECIPE]).train.model_copy(update=sizes | cache)
    fabric = make_fabric(settings, device)
    fabric.launch()
    set_tf32(settings.tf32)
    model = hsam.build_hsam(
        backbone,
        image_size=side,
        num_classes=CLASSES - 1,
        lora_rank=settings.lora_rank,
        train_encoder=False,
    )
    trainer = Trainer.make(fabric, model, settings, seed=0)
    shape = (batch, *model.embedding_shape) if cached else (batch, side, side)
    images = torch.rand(shape, device=device)
    labels = torch.randint(CLASSES, (batch, side, side), dtype=torch.uint8, device=device)
    one = next(Batches(batch, 1, batch, batch, seed=0).steps())
    return lambda: training_step(trainer, one, [(images, labels, one.indices)], 1e-4, 0.4)


def row(backbone: str, side: int, batch: int, device: str, rounds: int) -> dict:
    """One line of the table."""
    case = backbone, side, batch, device
    times = fastest(
        {
            "encoder, s": forward(*case, decoders=False),
            "decoders, s": forward(*case, decoders=True),
            "step with LoRA, s": step(*case, cached=False),
            "step on embeddings, s": step(*case, cached=True),
        },
        rounds,
    )
    per_slice = {name: value / batch for name, value in times.items()}
    return {"backbone": backbone, "image": side, "batch": batch, **per_slice}


def main() -> None:
    arguments = options(__doc__, 3, 2, batch=(2, "slices at a time"))
    torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = [
        row(backbone, side, arguments.batch, device, arguments.rounds)
        for backbone, sides in CASES[device]
        for side in sides
    ]
    report({"machine": machine(arguments.threads), "A slice": rows}, arguments.json)


if __name__ == "__main__":
    main()
