"""Files with bytes changed, lost or added: read, or refused in one sentence, and nothing else."""

import random
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
import torch
from safetensors.torch import save_file

import hsam
from hsam.weights.files import read_tensors
from pipeline.core.errors import UserError
from pipeline.core.params.load import load
from pipeline.imaging import scans, volumes
from pipeline.inference.identity import sentence
from pipeline.inference.predictor import Predictor
from pipeline.scoring.metrics_file import read_metrics
from pipeline.scoring.tables import cautions
from pipeline.shards.case import ShardReader
from pipeline.shards.roles import SplitFile, read_split, write_split
from tests.fixtures.write_runs import RUNS
from tests.pipeline.conftest import save_shard
from tests.pipeline.dicom_files import write_enhanced, write_series
from tests.soak.outcome import Outcome

ARRAY = (np.arange(6 * 7 * 5).reshape(6, 7, 5) % 200 - 100).astype(np.int16)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])
# none at random, so that a seed gives the same bytes again
UIDS = dict.fromkeys(("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"), "1.2.3")
HEADER = 600  # bytes of a file that damage goes to; the rest are mostly voxels


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        name: of the file, or of the folder that it lies in.
        write: writes a whole one below a folder and gives its path.
        read: reads it as the pipeline does.
        whole: whether damage goes to all of its bytes, not to the first HEADER alone.
        refusal: what `read` raises, in one sentence, where it can't.
    """

    name: str
    write: Callable[[Path], Path]
    read: Callable[[Path], object]
    whole: bool = True
    refusal: type[Exception] = UserError


def _nifti(kind: type) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        nib.save(kind(ARRAY, AFFINE), path)
        return path

    return write


def _itk(path: Path) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY), str(path))
    return path


def _hdf5(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["image"] = ARRAY
    return path


def _dicom(folder: Path) -> Path:
    return write_series(folder, ARRAY, **UIDS)[2]


def _frames(folder: Path) -> Path:
    return write_enhanced(folder / "ct.dcm", ARRAY, **UIDS)


def _packed(folder: Path) -> Path:
    path = _dicom(folder)
    image = pydicom.dcmread(path)
    # GDCM refuses whole images in RLE that are as small as these
    image.compress(pydicom.uid.JPEGLSLossless, generate_instance_uid=False)
    image.save_as(path)
    return path


def _bare(folder: Path) -> Path:
    path = _dicom(folder)
    path.write_bytes(path.read_bytes()[132:])
    return path.rename(path.with_suffix(""))


def _read_dicom(path: Path) -> None:
    for source in scans.find([path.parent]):
        scans.read(source)


def _shard(path: Path) -> Path:
    images = np.tile(np.arange(64, dtype=np.int16).reshape(1, 8, 8), (3, 1, 1))
    return save_shard(path, images, (images % 3).astype(np.uint8), organs=2)


def _read_shard(path: Path) -> None:
    reader = ShardReader(path)
    reader.verify()
    reader.read_volume()


def _split(path: Path) -> Path:
    roles = {("a", 0): "train", ("a", 1): "unused", ("b", 0): "test"}
    write_split(path, SplitFile("phantom", roles))
    return path


def _params(path: Path) -> Path:
    path.write_text("split:\n  slices: 0.1\n  test: [img0001]\ntrain: {epochs: 3, tf32: true}\n")
    return path


def _checkpoint(path: Path) -> Path:
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 4, 4, 8)}, path)
    return path


def _safetensors(path: Path) -> Path:
    save_file({"image_encoder.pos_embed": torch.zeros(1, 4, 4, 8)}, path)
    return path


def _model(path: Path) -> Path:
    model = hsam.build("unet", image_size=32, num_classes=2, features=(2, 2, 2, 2, 2, 2))
    about = {"intensity": {"kind": "window", "low": -125, "high": 275}}
    about["preparation"] = {"axes": "SPL", "spacing_mm": None}
    hsam.save(model, path.parent, class_names=["liver", "spleen"], data_set="phantom", **about)
    return path


def _read_model(path: Path) -> None:
    sentence(Predictor.load(path.parent, None, "cpu").identity)


def _metrics(path: Path) -> Path:
    shutil.copyfile(RUNS / "0.1.0/hsam/results/evaluate/metrics.json", path)
    return path


def _read_metrics(path: Path) -> None:
    cautions(read_metrics(path, evaluation=True))


def _read_volume(path: Path) -> None:
    volumes.read(path, "image")


FORMATS = {
    "NIfTI-1": Format("v1.nii", _nifti(nib.Nifti1Image), _read_volume, whole=False),
    "NIfTI-2": Format("v2.nii", _nifti(nib.Nifti2Image), _read_volume, whole=False),
    "NIfTI, compressed": Format("v1.nii.gz", _nifti(nib.Nifti1Image), _read_volume, whole=False),
    "NRRD": Format("a.nrrd", _itk, _read_volume, whole=False),
    "MetaImage": Format("a.mha", _itk, _read_volume, whole=False),
    "HDF5": Format("a.h5", _hdf5, _read_volume),
    "DICOM": Format("series", _dicom, _read_dicom),
    "DICOM, a frame a slice": Format("series", _frames, _read_dicom),
    "DICOM, compressed": Format("series", _packed, _read_dicom),
    "DICOM without preamble": Format("series", _bare, _read_dicom),
    "shard (parquet)": Format("img0001.parquet", _shard, _read_shard),
    "split (parquet)": Format("split.parquet", _split, read_split),
    "parameters (YAML)": Format("params.yaml", _params, lambda path: load([path])),
    "scores (metrics.json)": Format("metrics.json", _metrics, _read_metrics),
    "model.json of a run": Format("model.json", _model, _read_model),
    "model.safetensors of a run": Format("model.safetensors", _model, _read_model),
    "checkpoint (.pth)": Format("sam.pth", _checkpoint, read_tensors, refusal=ValueError),
    "checkpoint (.safetensors)": Format(
        "sam.safetensors", _safetensors, read_tensors, refusal=ValueError
    ),
}


def damaged(content: bytes, chance: random.Random, header: int) -> bytes:
    """The content, cut somewhere or with up to 20 bytes flipped, erased or inserted."""
    kind = chance.choice(["cut", "flip", "erase", "fill", "insert"])
    if kind == "cut":
        return content[: chance.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        place = chance.randrange(min(header, len(changed)))
        if kind == "flip":
            changed[place] ^= 1 << chance.randrange(8)
        elif kind == "insert":
            changed.insert(place, chance.randrange(256))
        else:
            changed[place] = 0 if kind == "erase" else 255
    return bytes(changed)


def damage_files(kind: str, count: int, seed: int = 0) -> Outcome:
    """Damage a file of one of FORMATS `count` times, and read it each time."""
    form = FORMATS[kind]
    chance = random.Random(f"{kind} {seed}")
    refused, failures = 0, []
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = form.write(Path(folder) / form.name)
        content = path.read_bytes()
        header = len(content) if form.whole else HEADER
        for number in range(count):
            path.write_bytes(damaged(content, chance, header))
            try:
                form.read(path)
            except form.refusal as error:
                refused += 1
                if str(path.parent) not in str(error):
                    failures.append(f"{kind}, number {number} of seed {seed}: no path in {error}")
            except Exception as error:
                failures.append(f"{kind}, number {number} of seed {seed}: {error!r}")
    detail = f"{refused} refused, {count - refused} read"
    return Outcome(f"damaged {kind}", count, tuple(failures), detail)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the readers' own warnings of values against the norm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
