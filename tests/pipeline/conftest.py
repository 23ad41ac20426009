"""Tiny data that the tests of the pipeline share."""

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pipeline.core.params.blocks import Params
from pipeline.core.params.load import validate
from pipeline.imaging.geometry import Geometry
from pipeline.shards.case import Prepared, Source, write_shard
from pipeline.stages import phantom, prepare, search, split

pytest.register_assert_rewrite("tests.pipeline.pages")

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")  # names of the command
ROOT = Path(__file__).resolve().parents[2]
# LAS, as BTCV stores its volumes, and anisotropic
AFFINE = np.array([[-0.8, 0, 0, 90], [0, 0.7, 0, -110], [0, 0, 3, 40], [0, 0, 0, 1.0]])


def make_params(**changes: dict) -> Params:
    """The packaged defaults with changes laid over them, block by block."""
    return validate(changes, "test")


def tiny_image(shape: tuple[int, ...] = (10, 20, 30)) -> np.ndarray:
    """int16 HU between -1000 and 1000, the same in every run."""
    rng = np.random.Generator(np.random.Philox(key=1))
    return rng.integers(-1000, 1000, shape, np.int16, endpoint=True)


def tiny_label(shape: tuple[int, ...] = (10, 20, 30)) -> np.ndarray:
    """BTCV's labels 0 to 13, each somewhere."""
    return (np.arange(np.prod(shape)) % 14).reshape(shape).astype(np.uint8)


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Write an array (x, y, z) with nibabel, as others would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def save_nifti_header(path: Path, array: np.ndarray, **fields: object) -> Path:
    """Write an array (x, y, z) in AFFINE's places, the header's fields as given, uncompressed."""
    content = nib.Nifti1Image(array, AFFINE).to_bytes()
    header = nib.Nifti1Header.from_fileobj(io.BytesIO(content))
    for name, value in fields.items():
        header[name] = value
    size = len(header.binaryblock)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.binaryblock + content[size:])
    return path


def save_shard(path: Path, images: np.ndarray, labels: np.ndarray, organs: int = 8) -> Path:
    """Write a shard of images (Z, H, W), in [0, 1] or int16 from 0 to 1000, and labels."""
    source = Source("11", "22", Geometry(images.shape[::-1], AFFINE))
    names = [f"organ {number}" for number in range(1, organs + 1)]
    case, spacing = path.stem, (3.0, 0.7, 0.8)
    high = 1000.0 if images.dtype == np.int16 else 1.0
    images = images.astype(np.int16 if high > 1 else np.float32)
    prepared = Prepared(case, images, labels, spacing, 0.0, high, names, source)
    write_shard(path, prepared)
    return path


@pytest.fixture
def synapse_root(tmp_path: Path) -> Path:
    """Two cases of a training and one of the test set, in Synapse's layout."""
    root = tmp_path / "raw"
    for number in ("0001", "0005", "0006"):
        save_nifti(root / "Training" / "img" / f"img{number}.nii.gz", tiny_image())
        save_nifti(root / "Training" / "label" / f"label{number}.nii.gz", tiny_label())
    return root


@pytest.fixture
def synapse_params(synapse_root: Path) -> Callable[..., Params]:
    """Parameters for `synapse_root`; keywords change the blocks, as `make_params`' do."""

    def build(**changes: dict) -> Params:
        dataset = {"name": "synapse", "root": str(synapse_root), **changes.pop("dataset", {})}
        return make_params(dataset=dataset, **changes)

    return build


@pytest.fixture(scope="session")
def phantom_params(tmp_path_factory: pytest.TempPathFactory) -> Params:
    """Parameters for five phantoms of 32 x 32 pixels, made on the spot."""
    root = tmp_path_factory.mktemp("phantom")
    phantom.run(root, cases=5, seed=1, size=32)
    about = {"cases": 5, "seed": 1, "size": 32}
    return make_params(dataset={"name": "phantom", "root": str(root), "phantom": about})


@pytest.fixture(scope="session")
def prepared_phantoms(phantom_params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Published folder of prepare for `phantom_params`; read only."""
    out = tmp_path_factory.mktemp("prepared")
    prepare.run(phantom_params, out / "prepare", out / "runs")
    return out / "prepare"


def split_and_search(params: Params, prepared: Path, folder: Path) -> None:
    """Publish the stages split and search to `folder`, whose runs lie in `folder`/runs."""
    split.run(params, prepared, folder / "split", folder / "runs")
    inputs = prepared, folder / "split", folder / "search", folder / "runs"
    search.run(params, *inputs, device="cpu")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless browser for pages."""
    reason = "needs playwright, which the extra dev installs"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    command = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if command is None:
        pytest.skip("needs Chromium on the PATH")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=command, args=["--no-sandbox"])
        yield launched
        launched.close()
