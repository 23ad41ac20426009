"""A new data set, or a new rival, is one file and one line of a table: the rest derives from it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.conftest import ROOT, save_nifti, tiny_image, tiny_label

KNEE = '''"""Knee MR."""

from pathlib import Path

from pipeline.datasets.base import DataSet, LabelMap, file_cases, pair


class Knee(DataSet):
    name = "knee"
    layout = "CASE.nii.gz and CASE_mask.nii.gz"
    source = "the hospital"

    def _find_cases(self, dataset):
        root = Path(dataset.root)
        images = file_cases(root, r"(?P<case>k\\d+)\\.nii\\.gz")
        labels = file_cases(root, r"(?P<case>k\\d+)_mask\\.nii\\.gz")
        return pair(images, labels, lambda case: root / f"{case}.nii.gz")

    def _labels(self, dataset):
        return LabelMap({"bone": (1,), "cartilage": (2,)}, others="background")
'''

PIXELWISE = '''"""A convolution a class: the smallest rival."""

from torch import nn

from hsam.inputs import check_classes, check_images
from hsam.model import SegmentationModel
from hsam.output import Segmentation


class Pixelwise(SegmentationModel):
    def __init__(self, image_size, classes, width):
        super().__init__(image_size, classes)
        self.net = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, classes, 1)
        )

    def forward(self, image, labels=None, generator=None):
        return Segmentation(fine_logits=self.net(check_images(image, self.image_size, self.dtype)))


def build_pixelwise(*, image_size=512, num_classes=8, width=4):
    model = Pixelwise(image_size, check_classes(num_classes), width)
    model.config = {
        "model": "pixelwise", "image_size": image_size, "num_classes": num_classes, "width": width
    }
    return model
'''


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of the code, to which the test adds."""
    for package in ("hsam", "pipeline"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / "code" / package, ignore=skip)
    return tmp_path / "code"


@pytest.fixture
def hsam(tree, tmp_path) -> Callable[..., str]:
    """The `hsam` command of that copy; gives what it prints."""

    def run(*arguments: str, code: int = 0) -> str:
        env = os.environ | {"PYTHONPATH": str(tree)}
        command = [sys.executable, "-c", "from pipeline.cli import main; main()", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def add_line(path: Path, table: str, line: str) -> None:
    """Put a line at the beginning of a table."""
    text = path.read_text()
    changed = re.sub(rf"^({table}\b.*{{)$", lambda m: f"{m[1]}\n    {line}", text, flags=re.M)
    assert changed != text
    path.write_text(changed)


def test_a_data_set(tree, hsam, tmp_path):
    (tree / "pipeline" / "datasets" / "knee.py").write_text(KNEE)
    add_line(
        tree / "pipeline" / "core" / "registry.py",
        "DATASETS",
        '"knee": "pipeline.datasets.knee:Knee",',
    )
    names = json.loads(hsam("params", "--schema"))["$defs"]["Dataset"]["properties"]["name"]
    assert "knee" in names["enum"] and names["description"].startswith("knee | ")
    (tmp_path / "mine.yaml").write_text("dataset: {name: knee, root: raw}\n")
    assert "raw: there is no such folder" in hsam("check", "--params", "mine.yaml", code=2)
    for case in ("k1", "k2"):
        save_nifti(tmp_path / "raw" / f"{case}.nii.gz", tiny_image())
        save_nifti(tmp_path / "raw" / f"{case}_mask.nii.gz", tiny_label())
    assert "knee: 2 cases, no problems" in hsam("check", "--params", "mine.yaml")
    hsam("prepare", "--params", "mine.yaml", "--jobs", "1")
    shards = tmp_path / "results" / "prepare" / "shards"
    assert sorted(path.stem for path in shards.iterdir()) == ["k1", "k2"]


def test_a_rival(tree, hsam, tmp_path, prepared_phantoms):
    (tree / "hsam" / "rivals" / "pixelwise.py").write_text(PIXELWISE)
    add_line(
        tree / "hsam" / "registry.py",
        "MODELS",
        '"pixelwise": Model("Pixelwise", "hsam.rivals.pixelwise:build_pixelwise", ("fine",),'
        ' options={"width": Option(4, 1, 64, "channels")}),',
    )
    shutil.copytree(prepared_phantoms, tmp_path / "results" / "prepare")
    mine = {
        "train": {
            "model": "pixelwise",
            "model_options": {"width": 6},
            "image_size": 32,
            "epochs": 1,
            "validate_every": 0,
        }
    }
    (tmp_path / "mine.yaml").write_text(json.dumps(mine))
    refused = hsam("search", "--params", "mine.yaml", "--gpus", "0", code=2)
    assert "search.space.lora_rank: pixelwise has no LoRA whose rank could be tuned" in refused
    assert "search.space.lambda_start: pixelwise has one stage" in refused
    (tmp_path / "mine.yaml").write_text(json.dumps(mine | {"search": {"trials": 0}}))
    hsam("split", "--params", "mine.yaml")
    for stage in ("search", "train", "evaluate"):
        hsam(stage, "--params", "mine.yaml", "--gpus", "0")
    config = json.loads((tmp_path / "results" / "train" / "model.json").read_text())["config"]
    assert config == {"model": "pixelwise", "image_size": 32, "num_classes": 8, "width": 6}
    assert (tmp_path / "results" / "evaluate" / "metrics.json").is_file()
    mine["train"]["model_options"] = {"width": 0, "depth": 2}
    (tmp_path / "mine.yaml").write_text(json.dumps(mine | {"search": {"trials": 0}}))
    refused = hsam("train", "--params", "mine.yaml", "--gpus", "0", code=2)
    assert "train.model_options.width: expected a whole number from 1 to 64, found 0" in refused
    assert "train.model_options.depth: pixelwise has no such option, it has width" in refused
