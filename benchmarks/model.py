"""Speed and memory of the model library on the CPU.

    python benchmarks/model.py [--rounds 10] [--threads 2] [--json model.json]

Prints Markdown tables. Each encoder forward is timed between two products of 2048 x 2048 float32
matrices and divided by what the machine could have done at the better of the two rates, so the
ratio means something on any machine and bears a neighbour's load. FLOPs are the useful ones: the
products of linear layers, convolutions and attention for real patches, none for padding. Every
measurement runs in a process of its own, so that peak memory is its own as well.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

import hsam
from hsam import sam
from hsam.backbones import PATCH, Backbone, get_backbone
from hsam.encoder import ImageEncoder

SIDE = 2048  # of the matrices that the rate is measured with


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_gib() -> float:
    """Largest resident memory of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


def encoder_flops(backbone: Backbone, image_size: int) -> int:
    """Useful FLOPs of one image's forward; a product of m x k and k x n counts 2 m k n."""
    dim, width = backbone.embed_dim, backbone.width
    patches = (image_size // PATCH) ** 2
    linear = 2 * 12 * dim * dim * patches * backbone.depth
    windows = backbone.depth - len(backbone.global_blocks)
    keys = patches * len(backbone.global_blocks) + backbone.window**2 * windows
    attention = 2 * 2 * dim * patches * keys
    ends = 2 * patches * (3 * PATCH**2 * dim + dim * width + 9 * width * width)
    return linear + attention + ends


def matrix_rate() -> Callable[[], float]:
    """A function that measures FLOPs per second of a large matrix product."""
    a, b, out = (torch.rand(SIDE, SIDE) for _ in range(3))
    return lambda: 2 * SIDE**3 / min(seconds(lambda: torch.mm(a, b, out=out)) for _ in range(2))


def sams_encoder(backbone: Backbone, image_size: int) -> torch.nn.Module:
    """SAM's own encoder of the same sizes."""
    return sam.ImageEncoderViT(
        image_size,
        embed_dim=backbone.embed_dim,
        depth=backbone.depth,
        num_heads=backbone.num_heads,
        out_chans=backbone.width,
        use_rel_pos=True,
        window_size=backbone.window,
        global_attn_indexes=backbone.global_blocks,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
    )


def encoder(name: str, image_size: int, rounds: int) -> dict:
    """Forward of one image: ours and SAM's, as shares of the machine's matrix rate."""
    backbone = get_backbone(name)
    models = {
        "ours": ImageEncoder(backbone, image_size),
        "SAM's": sams_encoder(backbone, image_size),
    }
    image, flops = torch.rand(1, 3, image_size, image_size), encoder_flops(backbone, image_size)
    rate, times, shares = matrix_rate(), {m: [] for m in models}, {m: [] for m in models}
    with torch.inference_mode():
        for model in models.values():
            model.eval()(image)
        for _ in range(rounds):
            for label, model in models.items():
                before = rate()
                took = seconds(lambda model=model: model(image))
                times[label].append(took)
                shares[label].append(flops / took / max(before, rate()))
    return {
        "backbone": name,
        "image_size": image_size,
        "gflop": flops / 1e9,
        "matrix_gflops": rate() / 1e9,
        **{
            f"{label} {what}": value
            for label in models
            for what, value in (
                ("fastest_s", min(times[label])),
                ("share_median", statistics.median(shares[label])),
                ("share_best", max(shares[label])),
            )
        },
    }


def training_step(name: str, image_size: int, batch: int, recompute: bool, rounds: int) -> dict:
    """One optimizer step of H-SAM with 8 organs, and the encoder's share of its time."""
    torch.manual_seed(0)
    model = hsam.build_hsam(name, image_size=image_size, checkpoint_blocks=recompute)
    image = torch.rand(batch, 1, image_size, image_size)
    labels = torch.randint(0, 9, (batch, image_size, image_size))
    optimiser = torch.optim.AdamW(model.trainable_parameters(), 2.5e-3, weight_decay=0.1)

    def step() -> None:
        optimiser.zero_grad()
        hsam.two_stage_loss(model(image, labels), labels, 0.4).total.backward()
        optimiser.step()

    def encode() -> None:
        model.image_encoder(image.expand(-1, 3, -1, -1)).sum().backward()

    step()
    whole, part = [], []
    for _ in range(rounds):
        whole.append(seconds(step))
        part.append(seconds(encode))
    return {
        "backbone": name,
        "image_size": image_size,
        "batch": batch,
        "recompute": recompute,
        "trainable": model.count_trainable(),
        "step_s": min(whole),
        "encoder_share": min(part) / min(whole),
        "peak_gib": peak_gib(),
    }


def alone(work: Callable[..., dict], threads: int, *arguments: object) -> dict:
    """Run a measurement in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, torch.set_num_threads, (threads,)) as pool:
        return pool.apply(work, arguments)


def table(rows: list[dict]) -> str:
    """Rows with the same keys as a Markdown table."""
    shown = [
        [f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()]
        for row in rows
    ]
    lines = [list(rows[0]), ["---"] * len(rows[0]), *shown]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="repetitions of each measurement")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of PyTorch")
    parser.add_argument("--json", help="file to write the numbers to")
    arguments = parser.parse_args()
    rounds, threads = arguments.rounds, arguments.threads
    result = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "threads": threads,
            "torch": torch.__version__,
        },
        "encoder": [alone(encoder, threads, "vit_b", size, rounds) for size in (224, 512)],
        "training": [
            alone(training_step, threads, name, size, batch, recompute, rounds)
            for name, size, batch, recompute in (
                ("vit_b", 224, 2, False),
                ("vit_b", 224, 2, True),
                ("vit_tiny", 128, 16, False),
            )
        ],
    }
    print(f"{threads} threads, torch {torch.__version__}\n")
    print("Encoder, forward of one image\n")
    print(table(result["encoder"]))
    print("\nH-SAM, one training step\n")
    print(table(result["training"]))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()
