import shutil
from pathlib import Path

import pytest
import torch

import hsam
from pipeline.commands import export
from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.scoring import calibration
from pipeline.scoring.predicted_dice import FEWEST
from pipeline.shards.manifest import read_manifest
from pipeline.shards.roles import SplitFile, write_split
from pipeline.stages import phantom, prepare
from tests.pipeline.conftest import make_params
from tests.pipeline.stages.test_evaluate import ORGANS, evaluate_into

CASES = FEWEST + 2


def new_model(folder: Path, seed: int, manifest, image_size: int = 32) -> Path:
    torch.manual_seed(seed)
    model = hsam.build("unet", image_size=image_size, num_classes=len(ORGANS))
    about = {"class_names": manifest.class_names, "intensity": manifest.intensity}
    return hsam.save(model, folder, **about, preparation=manifest.preparation)


@pytest.fixture(scope="module")
def folds(tmp_path_factory) -> Path:
    """An arm of two folds, each an untrained model evaluated on half of the cases, and `final`."""
    root = tmp_path_factory.mktemp("folds")
    about = {"cases": CASES, "seed": 2, "size": 32}
    phantom.run(root / "raw", **about)
    data = {"name": "phantom", "root": str(root / "raw"), "phantom": about}
    params = make_params(dataset=data)
    prepare.run(params, root / "prepare", root / "runs")
    manifest = read_manifest(root / "prepare" / "manifest.parquet")
    for fold in (0, 1):
        place = root / "arm" / f"draw-1-seed-1-fold-{fold}"
        new_model(place / "train", fold, manifest)
        slices = {
            (row.case, i): "test" if number % 2 == fold else "train"
            for number, row in enumerate(manifest)
            for i in range(row.slices)
        }
        write_split(place / "split.parquet", SplitFile(manifest.name, slices))
        prepared = {"prepared": root / "prepare", "split": place, "model": place / "train"}
        evaluate_into(root, params, out=place / "evaluate", **prepared)
    new_model(root / "final", 2, manifest)
    return root


def exported(folds: Path, out: Path, calibrate: Path, format: export.Format = "huggingface"):
    export.run(folds / "final", out, format, "mean", 1, None, calibrate)


def test_the_cases_of_all_folds_calibrate_a_model_of_no_fold(folds, tmp_path, capsys):
    exported(folds, tmp_path / "mine", folds / "arm")
    weights = files.sha256(folds / "final" / "model.safetensors")
    known = calibration.find([tmp_path / "mine"], weights, "mean")
    assert known.source == f"{CASES} test cases of 2 models trained alike"
    assert known.calibration is not None and known.calibration.cases == CASES
    assert f"calibrated on {known.source}; over " in capsys.readouterr().err
    # neither fold alone has enough
    for fold in (0, 1):
        own = folds / "arm" / f"draw-1-seed-1-fold-{fold}"
        found = files.read_json(own / "evaluate" / "calibration.json")
        assert found["calibration"] is None and "hsam export --calibrate" in found["source"]


def test_too_few_cases_calibrate_nothing(folds, tmp_path):
    with pytest.raises(UserError, match=f"expected {FEWEST} cases or more .* found {CASES // 2} "):
        exported(folds, tmp_path / "mine", folds / "arm" / "draw-1-seed-1-fold-0")
    with pytest.raises(UserError, match=r"expected evaluations .* found none; name an arm"):
        exported(folds, tmp_path / "mine", tmp_path)
    assert not (tmp_path / "mine").exists()


def test_models_of_another_kind_or_of_other_weights_are_refused(folds, tmp_path):
    shutil.copytree(folds / "arm", tmp_path / "arm")
    train = tmp_path / "arm" / "draw-1-seed-1-fold-1" / "train"
    record = files.read_json(train / "model.json")
    other = record | {"config": record["config"] | {"image_size": 64}}
    files.write_json(train / "model.json", other)
    with pytest.raises(UserError, match=r"config: image_size: expected 32, as .*final has it, fou"):
        exported(folds, tmp_path / "mine", tmp_path / "arm")
    shutil.copy(folds / "final" / "model.safetensors", train)
    with pytest.raises(UserError, match=r"expected the model that it evaluated in .* found anothe"):
        exported(folds, tmp_path / "mine", tmp_path / "arm")


def test_only_a_folder_to_hand_on_has_a_calibration(folds, tmp_path):
    with pytest.raises(UserError, match="--calibrate: expected --format huggingface"):
        exported(folds, tmp_path / "mine", folds / "arm", "torch-export")
    assert not (tmp_path / "mine").exists()
