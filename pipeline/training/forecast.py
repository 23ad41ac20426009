"""What a training will take on this machine, from a few passes of the model: time and memory."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric

from hsam.inference import for_inference
from hsam.model import EncodedModel
from pipeline.core.params.blocks import Train
from pipeline.training import preflight
from pipeline.training.build import build_model
from pipeline.training.devices import make_fabric
from pipeline.training.memory import step_bytes, zero_batch
from pipeline.training.step import Loss

TIMED = 4  # slices of a timed pass, at most


@dataclass(frozen=True)
class Forecast:
    """Expected of a training on one device.

    Attributes:
        seconds: of all steps, and of embedding the slices before them; on a CPU of idle cores,
            whatever else they do now.
        memory_bytes: of a pass, with gradients and the optimizer's state.
    """

    seconds: float
    memory_bytes: float


def forecast(settings: Train, organs: int, slices: int, device: str) -> Forecast:
    """Time a pass of the model, and scale it.

    Args:
        settings: the `train` block.
        organs: number of classes, without the background.
        slices: to learn from.
        device: "cpu" or "cuda".

    Raises:
        UserError: weights that don't fit, or not even one slice fits into memory.
    """
    fabric = make_fabric(settings.model_copy(update={"devices": 1}), device)
    fabric.launch()
    model = build_model(settings, organs, seed=0)
    size = preflight.passes(fabric, model, settings, settings.batch_size).slices
    loss = Loss(model, settings.model_copy(update={"compile": False}))
    timed = min(size, TIMED)

    def step() -> None:
        with fabric.autocast():
            values = loss(*zero_batch(loss, timed, fabric.device), 0.5, timed)
        values[0].backward()
        loss.zero_grad(set_to_none=True)

    steps = settings.epochs * -(-slices // settings.batch_size)
    seconds = steps * settings.batch_size * _seconds(fabric, step) / timed
    needed = step_bytes(fabric, loss)(size)
    if settings.cache_embeddings:
        assert isinstance(model, EncodedModel), "the parameters were checked"
        encoder, side = for_inference(model, device), settings.image_size

        @torch.inference_mode()
        def embed() -> None:
            encoder.embed(torch.zeros(timed, 1, side, side, device=fabric.device))

        seconds += slices * settings.cache_embeddings * _seconds(fabric, embed) / timed
    return Forecast(seconds, needed)


def _seconds(fabric: Fabric, work: Callable[[], None]) -> float:
    """Time of `work`, after a first time that isn't counted: the processor's, or the GPU's."""
    work()
    if fabric.device.type == "cpu":
        started = time.process_time()
        work()
        return (time.process_time() - started) / torch.get_num_threads()
    torch.cuda.synchronize(fabric.device)
    started = time.perf_counter()
    work()
    torch.cuda.synchronize(fabric.device)
    return time.perf_counter() - started
