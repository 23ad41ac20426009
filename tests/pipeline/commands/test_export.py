import json
import shutil
from importlib import util

import numpy as np
import onnxruntime
import pytest
import torch

import hsam
from pipeline.commands import export
from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.inference import records
from pipeline.scoring import calibration

SIDE = 32


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A tiny random H-SAM with three organs."""
    torch.manual_seed(1)
    model = hsam.build("hsam", "vit_tiny", image_size=SIDE, num_classes=3)
    folder = tmp_path_factory.mktemp("run")
    return hsam.save(model, folder, class_names=["a", "b", "c"])


def logits(run_folder, images: np.ndarray, stage: str) -> np.ndarray:
    """What the run's own model says, LoRA not merged."""
    with torch.inference_mode():
        return hsam.load(run_folder)(torch.from_numpy(images)).logits(stage).numpy()


def test_onnx_gives_the_same_in_another_program(run_folder, tmp_path, capfd, recwarn):
    export.run(run_folder, tmp_path, "onnx", "fine", 2, None)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("export: ") and list(recwarn) == []
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.onnx.json"}
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    images = np.random.default_rng(5).random((2, 1, SIDE, SIDE), np.float32)
    found = session.run(None, {"image": images})[0]
    np.testing.assert_allclose(found, logits(run_folder, images, "fine"), atol=1e-4)
    record = json.loads((tmp_path / "model.onnx.json").read_text())
    assert record["opset"] == 18
    assert record["input"]["shape"] == [2, 1, SIDE, SIDE]
    assert record["output"]["shape"] == [2, 4, SIDE, SIDE]
    assert record["parity"]["images"] == 4
    assert 0 <= record["parity"]["largest_difference"] < 1e-4
    assert record["parity"]["label_agreement"] > 0.999


def test_torch_export_loads_and_gives_the_same(run_folder, tmp_path):
    export.run(run_folder, tmp_path, "torch-export", "mean", 1, None)
    program = torch.export.load(tmp_path / "model.pt2").module()
    images = np.random.default_rng(5).random((1, 1, SIDE, SIDE), np.float32)
    found = program(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(found, logits(run_folder, images, "mean"), atol=1e-4)
    record = json.loads((tmp_path / "model.pt2.json").read_text())
    assert record["class_names"] == ["a", "b", "c"] and record["opset"] is None


def test_the_comparison_sees_what_differs():
    images = torch.zeros(4, 1, 2, 2)
    network = torch.nn.Conv2d(1, 2, 1)
    network.weight.data.zero_()
    network.bias.data = torch.tensor([0.0, 1.0])

    def swapped(part: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(part), 2, 2, 2), np.float32)
        logits[:, 0, 0, 0] = 3  # the other class at one pixel of four
        logits[:, 1] = 1
        return logits

    found = export.compare(network, swapped, images, 2)
    assert found == {"images": 4, "largest_difference": 3.0, "label_agreement": 0.75}


def test_a_file_that_does_not_agree_is_not_kept(run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="differ from the run's by up to"):
        export.run(run_folder, tmp_path, "torch-export", "mean", 1, None)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_a_sentence(run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"needs onnx, onnxscript, onnxruntime; install.*\[export\]"
    ):
        export.run(run_folder, tmp_path, "onnx", "mean", 1, None)


def test_a_stage_that_the_model_does_not_have(tmp_path):
    model = hsam.build("samed", "vit_tiny", image_size=SIDE, num_classes=1)
    hsam.save(model, tmp_path / "run", class_names=["a"])
    with pytest.raises(UserError, match="--stage: this model has no fine stage"):
        export.run(tmp_path / "run", tmp_path / "out", "torch-export", "fine", 1, None)


def test_a_folder_with_a_card_is_a_run_to_predict_with(run_folder, tmp_path):
    export.run(run_folder, tmp_path / "mine", "huggingface", "mean", 1, None)
    names = ("model.json", "model.safetensors", "README.md", "SHA256SUMS")
    assert {path.name for path in (tmp_path / "mine").iterdir()} == set(names)
    for name in names[:2]:
        assert (tmp_path / "mine" / name).read_bytes() == (run_folder / name).read_bytes()
    assert records.model_folder(tmp_path / "mine") == tmp_path / "mine"
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]


def test_a_folder_that_holds_something_is_left_alone(run_folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="expected a new or an empty folder"):
        export.run(run_folder, tmp_path, "huggingface", "mean", 1, None)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_folder_takes_the_calibration_of_an_evaluation_along(run_folder, tmp_path):
    train, evaluated = tmp_path / "results" / "train", tmp_path / "results" / "evaluate"
    shutil.copytree(run_folder, train)
    weights = files.sha256(train / "model.safetensors")
    for about, folder in (("another model", evaluated), (weights, tmp_path / "own")):
        calibration.write(
            folder / calibration.CALIBRATION, calibration.Known(None, "too few"), "mean", about
        )
    export.run(train, tmp_path / "without", "huggingface", "mean", 1, None)
    assert not (tmp_path / "without" / calibration.CALIBRATION).exists()
    shutil.copy(tmp_path / "own" / calibration.CALIBRATION, evaluated)
    export.run(train, tmp_path / "with", "huggingface", "mean", 1, None)
    found = calibration.find([tmp_path / "with"], weights, "mean")
    assert found == calibration.Known(None, "too few")
