"""Speed of the image encoder on the CPU, and how much of the machine it uses.

    python benchmarks/model.py [--rounds 10] [--threads 2] [--json model.json]

Prints Markdown tables. An encoder's forward is compared with two rates of the same machine: that
of a large float32 matrix product, and that of the encoder's own linear layers run alone, which are
smaller and slower per FLOP. All are measured in turn and the fastest of each is kept, so a busy
neighbour does little harm. FLOPs are the useful ones: products of linear layers, convolutions and
attention for real patches, none for padding. Every measurement has a process
of its own.
"""

from collections.abc import Callable

import torch
from measure import MATRIX_FLOPS, alone, fastest, machine, matrix_work, options, report
from published_step import sams_encoder

import hsam
from hsam.backbones import PATCH, Backbone, get_backbone


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


def linear_flops(encoder: torch.nn.Module, patches: int) -> tuple[Callable[[], None], int]:
    """A run of all linear layers of the blocks, one after the other, and its FLOPs."""
    layers = [m for m in encoder.blocks.modules() if isinstance(m, torch.nn.Linear)]
    inputs = {layer.in_features: torch.rand(patches, layer.in_features) for layer in layers}

    def run() -> None:
        for layer in layers:
            layer(inputs[layer.in_features])

    return run, sum(2 * patches * layer.weight.numel() for layer in layers)


def encoder(name: str, image_size: int, batch: int, rounds: int) -> dict:
    """Forward of ours and of SAM's, as shares of both rates."""
    backbone = get_backbone(name)
    model = hsam.build_hsam(name, image_size=image_size)
    ours = hsam.for_inference(model).image_encoder
    sams = sams_encoder(name, image_size).eval()
    image = torch.rand(batch, 3, image_size, image_size)
    linear, own_flops = linear_flops(sams, batch * (image_size // PATCH) ** 2)
    flops = batch * encoder_flops(backbone, image_size)
    work = {
        "matrix": (matrix_work(), MATRIX_FLOPS),
        "linear": (linear, own_flops),
        "ours": (lambda: ours(image), flops),
        "SAM's": (lambda: sams(image), flops),
    }
    with torch.inference_mode():
        times = fastest({label: run for label, (run, _) in work.items()}, rounds)
    rate = {label: count / times[label] / 1e9 for label, (_, count) in work.items()}
    return {
        "backbone": name,
        "image_size": image_size,
        "batch": batch,
        "gflop": flops / 1e9,
        "matrix_gflops": rate["matrix"],
        "linear_gflops": rate["linear"],
        "ours_s": times["ours"],
        "sams_s": times["SAM's"],
        "ours_of_matrix": rate["ours"] / rate["matrix"],
        "sams_of_matrix": rate["SAM's"] / rate["matrix"],
        "ours_of_linear": rate["ours"] / rate["linear"],
        "sams_of_linear": rate["SAM's"] / rate["linear"],
    }


def main() -> None:
    arguments = options(__doc__, rounds=10, threads=2)
    rounds, threads = arguments.rounds, arguments.threads
    result = {
        "machine": machine(threads),
        "Encoder, forward": [
            alone(encoder, threads, "vit_b", size, batch, rounds)
            for size, batch in ((224, 1), (224, 4), (512, 1))
        ],
    }
    report(result, arguments.json)


if __name__ == "__main__":
    main()
