"""Where a training runs: CPU or GPUs, precision, and one process for each of several devices.

Lightning's Fabric starts the processes, wraps the model for them and takes care of the precision.
"""

import json
import logging
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.strategies import DDPStrategy
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from pipeline.core import children, cpus
from pipeline.core.errors import Stopped, UserError
from pipeline.core.params.blocks import Train
from pipeline.core.signals import listening
from pipeline.inference.precision import has_bf16

FORMATS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}
# its notes on every process that it starts are of no use to users
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
PATIENCE = timedelta(hours=6)  # a process waits this long for the others, say in a validation


def make_fabric(settings: Train, device: str) -> Fabric:
    """Fabric with the devices and precision of the parameters, not launched yet.

    Args:
        settings: the `train` block.
        device: "cuda" or "cpu"; with more than one of `settings.devices`, the processes
            communicate by NCCL or gloo.

    Raises:
        UserError: more devices than there are, or a precision that they lack.
    """
    if device == "cuda" and settings.devices > torch.cuda.device_count():
        raise UserError(
            f"train.devices: {settings.devices} GPUs are wanted, {torch.cuda.device_count()} can "
            "be used; lower it, or give the job more (--gpus, --resources gpu=N)."
        )
    cores = cpus.usable()
    if device == "cpu" and settings.devices > cores:
        raise UserError(
            f"train.devices: {settings.devices} are wanted, there is no GPU, and the CPU has "
            f"{cores} cores; lower it, or give the job GPUs (--gpus, --resources gpu=N)."
        )
    if device == "cpu":
        cpus.keep_freed_memory()
    strategy: Any = "auto"
    if settings.devices > 1:
        strategy = DDPStrategy(
            start_method="spawn",
            process_group_backend="nccl" if device == "cuda" else "gloo",
            timeout=PATIENCE,
        )
    return Fabric(
        accelerator=device,
        devices=settings.devices,
        strategy=strategy,
        precision=FORMATS[precision(settings.precision, device)],
        plugins=[LightningEnvironment()],  # Fabric starts the processes, also in a cluster's job
    )


def precision(wanted: str, device: str) -> str:
    """The precision to train in: "fp32", "bf16" or "fp16".

    Args:
        wanted: one of these, or "auto": fp32 on a CPU; on a GPU bf16, or fp16 where it lacks that.
        device: "cpu" or "cuda".

    Raises:
        UserError: the device lacks the precision.
    """
    if wanted == "auto":
        return "fp32" if device == "cpu" else "bf16" if has_bf16(device) else "fp16"
    if wanted == "fp16" and device == "cpu":
        raise UserError("train.precision: fp16 needs a GPU, and there is none; set auto or fp32.")
    if wanted == "bf16" and not has_bf16(device):
        name = torch.cuda.get_device_name()
        raise UserError(f"train.precision: {name} has no bf16; set auto, fp16 or fp32.")
    return wanted


def launch(fabric: Fabric, function: Callable[..., None], *arguments: Any) -> None:
    """Call `function(fabric, *arguments)` on every device.

    One device is served in this process, several in a new process each, which ends with this one
    and holds its locks until then.

    Args:
        fabric: from `make_fabric`.
        function: at the top level of a module, so that a new process can import it.
        arguments: must be picklable.

    Raises:
        UserError, Stopped: raised by the function in any of the processes.
        UserError: a process was killed.
    """
    if fabric.world_size == 1:
        fabric.launch()
        function(fabric, *arguments)
        return
    children.bind()
    with tempfile.TemporaryDirectory() as folder, _forwarding():
        message = Path(folder, "message.json")
        threads = max(1, torch.get_num_threads() // fabric.world_size)
        try:
            # bound with partial: Fabric inspects the arguments it is given and refuses some types
            fabric.launch(partial(_in_process, function, os.getpid(), message, threads, arguments))
        except (ProcessExitedException, ProcessRaisedException) as error:
            killed = isinstance(error, ProcessExitedException) and error.signal_name
            if killed and not message.exists():
                raise UserError(
                    f"a device's process was killed ({killed}), most likely for want of memory; "
                    "lower train.micro_batch or train.cache_mib, or let the same command go on."
                ) from None
            if not message.exists():
                raise
        if message.exists():
            _raise_from(json.loads(message.read_text()))


def _in_process(
    function: Callable[..., None],
    parent: int,
    message: Path,
    threads: int,
    arguments: tuple[Any, ...],
    fabric: Fabric,
) -> None:
    """Call the function in a new process; leave what it raises in the file `message`."""
    children.follow(parent)  # again, since PyTorch has asked for a mere SIGINT at its end
    torch.set_num_threads(threads)
    try:
        function(fabric, *arguments)
    except UserError as error:
        _write_message(message, {"problems": error.problems})
        # at this exit Fabric ends the other processes, which may be waiting for this one
        os._exit(2)
    except Stopped as stopped:
        _write_message(message, {"where": str(stopped), "signal": stopped.signal})
        if stopped.alone:
            os._exit(3)  # the others may be waiting for this one


def _write_message(message: Path, content: dict[str, Any]) -> None:
    """Write atomically, since several processes may do so at once."""
    part = message.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(content))
    part.replace(message)


def _raise_from(content: dict[str, Any]) -> None:
    """Raise the UserError or Stopped that a message describes."""
    if "problems" in content:
        raise UserError(content["problems"])
    raise Stopped(content["where"], content["signal"])


@contextmanager
def _forwarding() -> Iterator[None]:
    """Inside the block, a signal to stop is passed on to the processes started from here."""
    finished = threading.Event()
    with listening() as stop:

        def watch() -> None:
            while not finished.wait(0.2):
                if stop.signal is not None:
                    for child in multiprocessing.active_children():
                        child.terminate()
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            finished.set()
            watcher.join()
