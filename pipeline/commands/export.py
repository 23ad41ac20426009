"""`hsam export`: a run's whole model as one file for other programs, compared with the run's.

LoRA is merged into the weights, which are float32; image size and batch size are fixed. Beside the
file lies FILE.json: input, output, and how far the exported model's logits are from the run's.

The format "huggingface" is a folder instead: the run's own two files, which `hsam predict --run`
and `hsam.load` take, and a model card.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hsam.model import SegmentationModel
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.core.files import atomic_path, replace_folder, sha256, write_json, write_text
from pipeline.core.run_folder import MODEL_FILES
from pipeline.inference import records, trained
from pipeline.inference.card import card
from pipeline.inference.identity import evaluations
from pipeline.inference.volume import model_stages
from pipeline.scoring import calibration

Format = Literal["onnx", "torch-export", "huggingface"]
SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}
# the lowest that PyTorch's exporter writes without conversion, so that older runtimes read the file
OPSET = 18
PARITY_IMAGES = 4  # least number of images on which the two models are compared
TOLERANCE = 1e-3  # largest difference of a logit; labels then differ only where classes nearly tie
# format to the packages that it needs
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch-export": ()}
CARD = "README.md"

# an exported model: images (B, 1, S, S) -> logits (B, C, S, S)
Exported = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Logits(nn.Module):
    """A model whose output is the logits of one stage."""

    def __init__(self, model: SegmentationModel, stage: str) -> None:
        super().__init__()
        self.model, self.stage = model, stage

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, S, S) in [0, 1] -> (B, C, S, S)."""
        return self.model(image).logits(self.stage)


def run(
    run_path: Path, out: Path, format: Format, stage: str, batch: int, checkpoint: Path | None
) -> None:
    """Export a run's model, read the file again and compare; the file appears if they agree.

    Args:
        run_path: a run folder of training, results/train or an imported one.
        out: folder for `model.onnx` or `model.pt2` and its JSON record.
        format: "onnx", "torch-export", or "huggingface", for which stage and batch say nothing.
        stage: whose logits are the output: "mean", "coarse" or "fine".
        batch: slices per forward pass.
        checkpoint: SAM's file for a model with a frozen encoder; None: the recorded one.

    Raises:
        UserError: a package that isn't installed, no model, a stage that the model lacks, or an
            exported model that doesn't agree with the run's.
    """
    folder = records.model_folder(run_path)
    record = records.read_record(folder)
    if format == "huggingface":
        _write_folder(folder, record, out)
        return
    _check_packages(format)
    model = trained.load_for_inference(folder, checkpoint, "cpu").model
    known = model_stages(model)
    if stage not in known:
        raise UserError(f"--stage: this model has no {stage} stage; choose {' or '.join(known)}.")
    network = Logits(model, stage).eval()
    images = torch.from_numpy(parity_images(batch, model.image_size))
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
        "input": {"name": "image", "shape": [batch, 1, side, side], "range": [0, 1]},
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


def _write_folder(folder: Path, record: dict[str, Any], out: Path) -> None:
    """The model's files with a card, in a folder of its own; all of it, or nothing."""
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: expected a new or an empty folder; choose another --out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        new = Path(scratch) / "model"
        new.mkdir()
        for name in MODEL_FILES:
            shutil.copyfile(folder / name, new / name)
        places = [folder, *evaluations(folder)]
        if found := calibration.file_of(places, sha256(folder / MODEL_FILES[1])):
            shutil.copyfile(found, new / calibration.CALIBRATION)
        write_text(new / CARD, card(folder, record, out.name))
        replace_folder(new, out)
    say(f"export: {out}, a model with its card; hsam predict SCAN --run {out}")


def parity_images(batch: int, side: int) -> NDArray[np.float32]:
    """Images to compare on: noise and smooth fields in turn, PARITY_IMAGES or more.

    Args:
        batch: their number is a multiple of it.
        side: S, pixels.

    Returns:
        (N, 1, S, S) in [0, 1], the same in every call.
    """
    number = -(-PARITY_IMAGES // batch) * batch
    random = np.random.Generator(np.random.Philox(key=1))
    coarse = torch.from_numpy(random.random((number, 1, 8, 8), np.float32))
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
        images: (N, 1, S, S) in [0, 1].
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
