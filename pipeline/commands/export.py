"""`hsam export`: a run's whole model as one file for other programs, compared with the run's.

LoRA is merged into the weights, which are float32; image size and batch size are fixed. Beside the
file lies FILE.json: input, output, and how far the exported model's logits are from the run's.

Two formats are folders instead: "huggingface", the run's own two files, which `hsam predict --run`
and `hsam.load` take, with a model card; and "monai-bundle", which MONAI's runner takes.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hsam.model import SegmentationModel
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.core.files import atomic_folder, atomic_path, sha256, write_json
from pipeline.imaging.channels import recorded
from pipeline.inference import bundle, records, trained
from pipeline.inference.trained import Ready
from pipeline.inference.volume import model_stages, predict_volume
from pipeline.versioning import model_folder
from pipeline.versioning.fold_calibration import over_folds

Format = Literal["onnx", "torch-export", "huggingface", "monai-bundle"]
SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}
# the lowest that PyTorch's exporter writes without conversion, so that older runtimes read the file
OPSET = 18
PARITY_IMAGES = 4  # least number of images on which the two models are compared
TOLERANCE = 1e-3  # largest difference of a logit; labels then differ only where classes nearly tie
# format to the packages that it needs
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch-export": ()}
ANOTHER = "choose another --out"

# an exported model: images (B, channels, S, S) -> logits (B, C, S, S)
Exported = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Logits(nn.Module):
    """A model whose output is the logits of one stage."""

    def __init__(self, model: SegmentationModel, stage: str) -> None:
        super().__init__()
        self.model, self.stage = model, stage

    def forward(self, image: Tensor) -> Tensor:
        """(B, channels, S, S) in [0, 1] -> (B, C, S, S)."""
        return self.model(image).logits(self.stage)


def run(
    run_path: Path,
    out: Path,
    format: Format,
    stage: str,
    batch: int,
    checkpoint: Path | None,
    calibrate: Path | None = None,
) -> None:
    """Export a run's model, read the file again and compare; the file appears if they agree.

    Args:
        run_path: a run folder of training, results/train or an imported one.
        out: folder for `model.onnx` or `model.pt2` and its JSON record, or the folder to make.
        format: of the file or folder; for "huggingface" stage and batch say nothing.
        stage: whose logits are the output: "mean", "coarse" or "fine".
        batch: slices per forward pass.
        checkpoint: SAM's file for a model with a frozen encoder; None: the recorded one.
        calibrate: for "huggingface": folder of evaluations that calibrate predicted Dice
            (`fold_calibration.over_folds`); None: as the model's own evaluation did.

    Raises:
        UserError: a package that isn't installed, no model, a stage that the model lacks, or an
            exported model that doesn't agree with the run's.
    """
    folder = records.model_folder(run_path)
    record = records.read_record(folder)
    if format == "huggingface":
        _write_folder(folder, record, out, calibrate)
        return
    if calibrate is not None:
        raise UserError(
            f"--calibrate: expected --format huggingface, whose folder holds a calibration, found "
            f"{format}."
        )
    if format == "monai-bundle":
        _write_bundle(folder, record, out, stage, batch, checkpoint)
        return
    _check_packages(format)
    model = trained.load_for_inference(folder, checkpoint, "cpu").model
    _check_stage(model, stage)
    network = Logits(model, stage).eval()
    names = list(recorded(record.get("preparation")))
    channels = max(1, len(names))
    images = torch.from_numpy(parity_images(batch, model.image_size, channels))
    path = out / f"model{SUFFIXES[format]}"
    with atomic_path(path) as temporary:
        write = _write_onnx if format == "onnx" else _write_torch
        write(network, images[:batch], temporary)
        parity = compare(network, _reader(format, temporary), images, batch)
        if parity["largest_difference"] > TOLERANCE:
            raise UserError(
                f"{path}: the exported model's logits differ from the run's by up to "
                f"{parity['largest_difference']:.3g}, more than {TOLERANCE:g}; nothing was written."
            )
        digest = sha256(temporary)
    side = model.image_size
    about = {
        "file": path.name,
        "sha256": digest,
        "format": format,
        "opset": OPSET if format == "onnx" else None,
        "stage": stage,
        "input": {"name": "image", "shape": [batch, channels, side, side], "range": [0, 1]},
        "output": {"name": "logits", "shape": [batch, model.classes, side, side]},
        "class_names": record["class_names"],
        "intensity": record["intensity"],
        "preparation": record["preparation"],
        "resizing": record.get("resizing") or "linear",
        "pretraining": records.pretraining(record, record.get("data_set")),
        "torch": torch.__version__,
        "parity": parity,
    }
    write_json(path.with_name(path.name + ".json"), about)
    say(
        f"export: {path}, largest difference {parity['largest_difference']:.2g}, "
        f"labels equal at {100 * parity['label_agreement']:.4f}% of the pixels"
    )


def _check_stage(model: SegmentationModel, stage: str) -> None:
    known = model_stages(model)
    if stage not in known:
        raise UserError(f"--stage: this model has no {stage} stage; choose {' or '.join(known)}.")


def _write_folder(folder: Path, record: dict[str, Any], out: Path, calibrate: Path | None) -> None:
    """The model's files with a card, in a folder of its own; all of it, or nothing."""
    calibrated = None if calibrate is None else over_folds(calibrate, record, folder)
    with atomic_folder(out, ANOTHER) as new:
        model_folder.write(new, folder, record, out.name, calibrated)
    if calibrated is not None:
        say(f"export: predicted Dice: {calibrated.note}")
    say(f"export: {out}, a model with its card; hsam predict SCAN --run {out}")


def _write_bundle(
    folder: Path,
    record: dict[str, Any],
    out: Path,
    stage: str,
    batch: int,
    checkpoint: Path | None,
) -> None:
    """A MONAI bundle, kept if its network gives the labels of `hsam predict`."""
    ready = trained.load_for_inference(folder, checkpoint, "cpu")
    _check_stage(ready.model, stage)
    with atomic_folder(out, ANOTHER) as new:
        model = trained.load_model(folder, checkpoint, "cpu")
        bundle.write(new, folder, record, model, name=out.name, stage=stage, batch=batch)
        equal = _same_labels(ready, bundle.network(new), stage, batch)
        if equal < 1:
            raise UserError(
                f"{out}: the bundle's labels are those of hsam predict at {100 * equal:.4f}% of "
                "the pixels alone; nothing was written."
            )
    say(f"export: {out}, a MONAI bundle, its labels those of hsam predict; in it: {bundle.RUN}")


def _same_labels(ready: Ready, network: nn.Module, stage: str, batch: int) -> float:
    """Share of the pixels where a bundle's network gives the labels of `hsam predict`."""
    images = parity_images(1, ready.model.image_size)[:, 0]
    expected = predict_volume(
        ready.model, images, stage=stage, batch_size=batch, resizing=ready.resizing
    )
    found = network(torch.from_numpy(images)[None, None])[0, 0].numpy()
    return float((found == expected).mean())


def parity_images(batch: int, side: int, channels: int = 1) -> NDArray[np.float32]:
    """Images to compare on: noise and smooth fields in turn, PARITY_IMAGES or more.

    Args:
        batch: their number is a multiple of it.
        side: S, pixels.
        channels: of an image.

    Returns:
        (N, channels, S, S) in [0, 1], the same in every call.
    """
    number = -(-PARITY_IMAGES // batch) * batch
    random = np.random.Generator(np.random.Philox(key=1))
    coarse = torch.from_numpy(random.random((number, channels, 8, 8), np.float32))
    smooth = nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    images = smooth.numpy()
    images[::2] = random.random(images[::2].shape, np.float32)
    return images


@torch.inference_mode()
def compare(network: nn.Module, exported: Exported, images: Tensor, batch: int) -> dict[str, Any]:
    """How far an exported model is from the original on some images.

    Args:
        network: the original.
        exported: the exported one.
        images: (N, channels, S, S) in [0, 1].
        batch: slices per forward pass.

    Returns:
        images: their number; largest_difference of a logit; label_agreement: share of the pixels
        where both give the same class.
    """
    largest, equal, pixels = 0.0, 0, 0
    for part in images.split(batch):
        expected, found = network(part).numpy(), exported(part.numpy())
        largest = max(largest, float(np.abs(expected - found).max()))
        same = expected.argmax(1) == found.argmax(1)
        equal, pixels = equal + int(same.sum()), pixels + same.size
    return {
        "images": len(images),
        "largest_difference": largest,
        "label_agreement": equal / pixels,
    }


def _check_packages(format: Format) -> None:
    from importlib.util import find_spec

    missing = [name for name in NEEDED[format] if find_spec(name) is None]
    if missing:
        raise UserError(
            f"--format {format} needs {', '.join(missing)}; install them with "
            "pip install 'hsam[export]'."
        )


def _write_onnx(network: nn.Module, images: Tensor, path: Path) -> None:
    with _quiet():
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits"],
            external_data=False,
            verbose=False,
        )
    assert program is not None, "dynamo=True gives one"
    program.save(path, external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch's exporter says of packages and classes that no model here needs."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # PyTorch's own use of what it has deprecated
            warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")
            yield
    finally:
        logger.setLevel(level)


def _write_torch(network: nn.Module, images: Tensor, path: Path) -> None:
    torch.export.save(torch.export.export(network, (images,)), path)


def _reader(format: Format, path: Path) -> Exported:
    """The model in an exported file, as other programs run it."""
    if format == "onnx":
        import onnx
        import onnxruntime

        onnx.checker.check_model(path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda images: session.run(["logits"], {"image": images})[0]
    program = torch.export.load(path).module()
    return lambda images: program(torch.from_numpy(images)).numpy()
