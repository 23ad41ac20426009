"""A run as a MONAI bundle: under MONAI's own runner and loader it labels as `hsam predict` does."""

import json
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import SaveImaged

import hsam
from hsam.weights import storage
from pipeline.commands import export, predict
from pipeline.commands.predict import Wanted
from pipeline.core.errors import UserError
from pipeline.imaging.volumes import read
from pipeline.inference import bundle, records
from pipeline.inference.bundle_parts import ScanSlicesd
from tests.hsam.hugging_face_folders import dinov2
from tests.pipeline.conftest import save_nifti, tiny_image

ROOT = Path(__file__).parents[3]
SIDE = 32
WINDOW = {"kind": "window", "low": -125.0, "high": 275.0}
PERCENTILES = {"kind": "percentile", "low": 1.0, "high": 99.0}
# RAS, LIP and an oblique one
AFFINES = (
    np.diag([0.8, 0.7, 3.0, 1.0]),
    np.array([[-0.8, 0, 0, 9], [0, 0, 0.9, -1], [0, -2.5, 0, 4], [0, 0, 0, 1.0]]),
    np.array([[0.8, 0.1, 0, 9], [-0.1, 0.7, 0, -1], [0, 0, 3, 4], [0, 0, 0, 1.0]]),
)
# intensity, axes, in-plane spacing and resizing of a run
RUNS = {
    "axial": (WINDOW, "SPL", None, None),
    "resampled": (PERCENTILES, "SLP", 1.1, "linear"),
    "published": (WINDOW, "ASR", None, "published"),
}


def save(folder: Path, name: str = "axial", names: tuple[str, ...] = ("a", "b", "c")) -> Path:
    """A tiny random H-SAM."""
    intensity, axes, spacing_mm, resizing = RUNS[name]
    torch.manual_seed(1)
    model = hsam.build("hsam", "vit_tiny", image_size=SIDE, num_classes=3, lora_rank=2)
    for parameter in model.parameters():  # a LoRA that changes nothing would hide how it is merged
        torch.nn.init.normal_(parameter, std=0.05)
    return hsam.save(
        model,
        folder,
        class_names=list(names),
        intensity=intensity,
        preparation={"axes": axes, "spacing_mm": spacing_mm},
        resizing=resizing,
    )


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """Scans along several axes, one of a single slice, one in a folder of its own."""
    folder = tmp_path_factory.mktemp("scans")
    for number, affine in enumerate(AFFINES):
        place = folder / "inner" if number == 2 else folder
        save_nifti(place / f"s{number}.nii.gz", tiny_image((21, 18, 24)), affine)
    save_nifti(folder / "one.nii", tiny_image((20, 24, 1)).astype(np.float32), AFFINES[0])
    return folder


def exported(run: Path, out: Path) -> Path:
    export.run(run, out, "monai-bundle", "mean", 16, None)
    return out


def predicted(scans: Path, run: Path, out: Path) -> Path:
    assert predict.run([scans], run, out, Wanted(), None, "cpu")
    return out


def parser_of(folder: Path) -> ConfigParser:
    """A bundle as MONAI Label's BundleInferTask reads it: from anywhere, its root laid over."""
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser.config["bundle_root"] = str(folder)
    return parser


@pytest.mark.parametrize("name", RUNS)
def test_the_parts_give_the_labels_of_hsam_predict(name, scans, tmp_path):
    """In the order of MONAI Label's BundleInferTask, which makes of them what it serves."""
    run = save(tmp_path / "run", name)
    parser = parser_of(exported(run, tmp_path / "bundle"))
    network = parser.get_parsed_content("network_def")
    state = torch.load(tmp_path / "bundle" / "models" / "model.pt", weights_only=True)
    assert set(network.state_dict()) == set(state)
    network.load_state_dict(state)
    found = predicted(scans, run, tmp_path / "predicted")
    for scan in sorted(scans.rglob("*.nii*")):
        data = {"image": str(scan)}
        for transform in parser.get_parsed_content("preprocessing").transforms:
            data = transform(data)
        with torch.no_grad():
            labels = parser.get_parsed_content("inferer")(data["image"][None], network.eval())
        data["pred"] = labels[0]
        for transform in parser.get_parsed_content("postprocessing").transforms:
            if not isinstance(transform, SaveImaged):
                data = transform(data)
        wanted = read(found / "_".join(scan.relative_to(scans).parts))
        assert len(np.unique(wanted.array)) > 1
        assert np.array_equal(data["pred"][0].numpy(), wanted.array)
        assert np.array_equal(data["pred"].affine.numpy(), wanted.affine)
        # what MONAI Label's Restored and Writer look for
        assert tuple(data["image"].meta["spatial_shape"]) == wanted.array.shape
        assert np.array_equal(data["image"].meta["original_affine"], wanted.affine)


@pytest.mark.skipif(
    find_spec("ignite") is None or find_spec("fire") is None,
    reason="MONAI's runner needs pytorch-ignite and fire (pip install 'hsam[bundle]')",
)
def test_under_monais_runner_the_files_are_those_of_hsam_predict(scans, tmp_path):
    run = save(tmp_path / "run", "resampled")
    folder, out = exported(run, tmp_path / "bundle"), tmp_path / "labels"
    folder = folder.rename(tmp_path / "moved")
    command = [sys.executable, *bundle.RUN.split()[1:]]
    command[command.index("SCANS")], command[command.index("LABELS")] = str(scans), str(out)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = predicted(scans, run, tmp_path / "predicted")
    for place, name in (("s0", "s0"), ("s1", "s1"), ("inner/s2", "inner_s2")):
        mine = (out / f"{place}_seg.nii.gz").read_bytes()
        assert mine == (found / f"{name}.nii.gz").read_bytes()
    one = nib.load(out / "one_seg.nii.gz")
    assert np.array_equal(np.asanyarray(one.dataobj), read(found / "one.nii").array)


def test_slices_know_where_they_lie(tmp_path):
    """The corners of the field of view are the scan's, whatever the axes and the resampling."""
    scan = save_nifti(tmp_path / "s.nii", tiny_image((21, 18, 24)), AFFINES[1])
    part = ScanSlicesd("image", WINDOW, "SLP", 0.35)
    image = part({"image": scan})["image"]
    assert image.shape[1:] != (24, 18, 21)
    corners = []
    for affine, shape in ((image.affine.numpy(), image.shape[1:]), (AFFINES[1], (21, 18, 24))):
        ends = np.array(np.meshgrid(*[(-0.5, side - 0.5) for side in shape])).reshape(3, -1)
        corners.append(sorted(map(tuple, (affine[:3, :3] @ ends).T.round(6) + affine[:3, 3])))
    np.testing.assert_allclose(*corners, atol=1e-5)


def test_a_bundle_says_what_it_is_and_names_no_place_of_this_machine(tmp_path):
    folder = exported(save(tmp_path / "run"), tmp_path / "mine")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {bundle.CONFIG, bundle.METADATA, bundle.LOGGING, bundle.WEIGHTS, bundle.README}
    for name in files - {bundle.WEIGHTS}:
        assert str(tmp_path) not in (folder / name).read_text()
    about = json.loads((folder / bundle.METADATA).read_text())
    data = about["network_data_format"]
    assert list(data["inputs"]) == ["image"] and len(data["inputs"]["image"]["spatial_shape"]) == 3
    assert data["outputs"]["pred"]["channel_def"] == {
        "0": "background",
        "1": "a",
        "2": "b",
        "3": "c",
    }
    assert about["required_packages_version"]["hsam"] == hsam.__version__
    with zipfile.ZipFile(folder / bundle.WEIGHTS) as archive:
        assert not [name for name in archive.namelist() if "/code/" in name]  # TorchScript's
    assert "hsam[bundle]" in (folder / bundle.README).read_text()


def test_the_packages_of_the_extra_are_those_that_are_pinned():
    pins = (ROOT / "requirements.txt").read_text().split()
    assert {f"{name}=={version}" for name, version in bundle.PACKAGES.items()} <= set(pins)
    extra = (ROOT / "pyproject.toml").read_text().partition(f"\n{bundle.EXTRA} = [")[2]
    assert all(f'"{name}>=' in extra.partition("]")[0] for name in bundle.PACKAGES)


def test_weights_that_are_loaded_later_count(tmp_path):
    network = bundle.network(exported(save(tmp_path / "run"), tmp_path / "bundle"))
    volume = torch.from_numpy(export.parity_images(1, SIDE)[:, 0])[None, None]
    first = network(volume)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for tensor in state.values():
        tensor.neg_()
    network.load_state_dict(state)
    assert not torch.equal(network(volume), first)


@pytest.mark.parametrize("name", ["$import os", "@network", "%metadata.json"])
def test_words_that_are_code_to_monai_are_refused(name, tmp_path):
    run = save(tmp_path / "run", names=("a", name, "c"))
    with pytest.raises(UserError, match=r"words that don't begin with \$ @ %.*name them otherw"):
        exported(run, tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_model_that_can_read_no_scan_is_refused(tmp_path):
    model = hsam.build("samed", "vit_tiny", image_size=SIDE, num_classes=1)
    hsam.save(model, tmp_path / "run", class_names=["a"])
    with pytest.raises(UserError, match="model.json: expected class names, intensity rule and pre"):
        exported(tmp_path / "run", tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_bundle_with_other_labels_is_not_kept(tmp_path, monkeypatch):
    run, whole = save(tmp_path / "run"), storage.stored_tensors
    other = hsam.build("hsam", "vit_tiny", image_size=SIDE, num_classes=3, lora_rank=2)
    state = {f"model.{name}": tensor for name, tensor in whole(other).items()}
    monkeypatch.setattr(bundle.torch, "load", lambda *_, **__: state)
    with pytest.raises(UserError, match="those of hsam predict at .*% of the pixels alone"):
        exported(run, tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_encoder_in_hugging_face_form_goes_along_without_its_folder(tmp_path):
    source = tmp_path / "encoder"
    dinov2(source)
    sizes = {"image_size": 128, "encoder_size": 112, "num_classes": 1}
    model = hsam.build("samed", f"hf:{source}", **sizes)
    about = {"class_names": ["a"], "intensity": WINDOW}
    run = hsam.save(
        model, tmp_path / "run", preparation={"axes": "SPL", "spacing_mm": None}, **about
    )
    folder = exported(run, tmp_path / "bundle")
    source.rename(tmp_path / "gone")  # all weights are in the bundle
    for name in (bundle.CONFIG, bundle.METADATA, bundle.README):
        assert str(tmp_path) not in (folder / name).read_text()
    assert records.read_record(run)["needs_sam_checkpoint"]
    assert bundle.network(folder)(torch.zeros(1, 1, 2, 50, 60)).shape == (1, 1, 2, 50, 60)
