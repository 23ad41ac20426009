"""A data set as nnU-Net reads it: the same voxels, the same labels, the same split."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pipeline import datasets
from pipeline.commands import export_nnunet
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Params
from pipeline.imaging import volumes
from pipeline.imaging.geometry import to_slices
from pipeline.shards.case import ShardReader
from pipeline.shards.manifest import read_manifest
from pipeline.shards.roles import read_split
from pipeline.stages import prepare, split
from tests.pipeline.conftest import make_params, save_nifti

# orientation, not axial, and with other sides along each axis
AFFINES = {
    "las": np.array([[-0.8, 0, 0, 90], [0, 0.7, 0, -110], [0, 0, 3, 40], [0, 0, 0, 1.0]]),
    "pir": np.array([[0, 0, 0.7, 9], [-0.8, 0, 0, 11], [0, -3.0, 0, 4], [0, 0, 0, 1.0]]),
}
SHAPE = (12, 10, 14)
IGNORED = 3


def raw_folder(root: Path, cases: int, affine: str = "las") -> Path:
    """A data set of int16 images and labels 0, 5 (liver) and 2 (spleen), in nnU-Net's format."""
    rng = np.random.Generator(np.random.Philox(key=3))
    for number in range(cases):
        image = rng.integers(-900, 900, SHAPE, np.int16)
        label = rng.choice(np.array([0, 2, 5], np.uint8), SHAPE)
        save_nifti(root / "imagesTr" / f"c{number}_0000.nii.gz", image, AFFINES[affine])
        save_nifti(root / "labelsTr" / f"c{number}.nii.gz", label, AFFINES[affine])
    about = {"channel_names": {"0": "CT"}, "labels": {"liver": 5, "spleen": 2}}
    (root / "dataset.json").write_text(json.dumps(about))
    return root


def prepared(folder: Path, affine: str = "las", **blocks: dict) -> Params:
    """Stages prepare and split of six cases, below `folder`."""
    root = raw_folder(folder / "raw", 6, affine)
    settings = {"test": ["c5"], "validation": 0.2, "slices": 0.4, "subjects": 3}
    about = {"dataset": {"name": "nnunet", "root": str(root)}, "split": settings}
    params = make_params(**{**about, **blocks})
    prepare.run(params, folder / "prepare", folder / "runs")
    split.run(params, folder / "prepare", folder / "split", folder / "runs")
    return params


def export(params: Params, folder: Path, **options: int) -> Path:
    export_nnunet.run(params, folder / "prepare", folder / "split", folder / "nn", **options)
    return folder / "nn" / "nnUNet_raw" / f"Dataset{options.get('number', 501):03}_nnunet"


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("axes", [None, "LAS"])
def test_learned_slices_keep_their_labels_and_the_others_are_ignored(tmp_path, affine, axes):
    params = prepared(tmp_path, affine, prepare={"axes": axes})
    folder = export(params, tmp_path)
    roles, manifest = (
        read_split(tmp_path / "split" / "split.parquet").roles,
        read_manifest(tmp_path / "prepare" / "manifest.parquet"),
    )
    seen = 0
    for path in sorted((folder / "labelsTr").iterdir()):
        case = path.name.removesuffix(".nii.gz")
        written = volumes.read(path)
        slices = to_slices(written.array, written.geometry, manifest.axes)
        _, classes = ShardReader(tmp_path / "prepare" / "shards" / f"{case}.parquet").read_volume()
        for index, (found, true) in enumerate(zip(slices, classes, strict=True)):
            if roles[case, index] in ("train", "validation"):
                np.testing.assert_array_equal(found, true)
            else:
                assert (found == IGNORED).all()
                seen += 1
    assert seen


def test_images_and_test_labels_are_those_of_the_source(tmp_path):
    params = prepared(tmp_path)
    folder = export(params, tmp_path)
    raw = datasets.get(params.dataset).find(params.dataset)
    for path in sorted([*folder.glob("imagesT?/*")]):
        source = nib.load(raw[path.name.removesuffix("_0000.nii.gz")].image)
        image = nib.load(path)
        np.testing.assert_array_equal(image.get_fdata(), source.get_fdata())
        np.testing.assert_allclose(image.affine, source.affine)
        label = path.parent.with_name(path.parent.name.replace("images", "labels"))
        read = [sitk.ReadImage(p) for p in (path, label / path.name.replace("_0000", ""))]
        for attribute in ("GetOrigin", "GetSpacing", "GetDirection", "GetSize"):
            image_says, label_says = (getattr(one, attribute)() for one in read)
            np.testing.assert_allclose(image_says, label_says)
    truth = nib.load(raw["c5"].label).get_fdata()
    written = nib.load(folder / "labelsTs" / "c5.nii.gz").get_fdata()
    np.testing.assert_array_equal(written, np.select([truth == 2, truth == 5], [1, 2]))


def test_what_nnunet_is_told(tmp_path):
    params = prepared(tmp_path)
    folder = export(params, tmp_path, number=7)
    roles = read_split(tmp_path / "split" / "split.parquet")
    about = json.loads((folder / "dataset.json").read_text())
    assert about["labels"] == {"background": 0, "spleen": 1, "liver": 2, "ignore": IGNORED}
    assert (about["channel_names"], about["file_ending"]) == ({"0": "CT"}, ".nii.gz")
    assert about["hsam"]["split"] == roles.hash
    cases = {role: roles.cases[role] for role in ("train", "validation", "test")}
    # two of five cases without labels are left out
    images = [path.name.removesuffix("_0000.nii.gz") for path in (folder / "imagesTr").iterdir()]
    assert sorted(images) == sorted(cases["train"] + cases["validation"])
    assert about["numTraining"] == len(images) == 4
    folds = [{"train": cases["train"], "val": cases["validation"]}]
    preprocessed = tmp_path / "nn" / "nnUNet_preprocessed" / "Dataset007_nnunet"
    for place in (folder, preprocessed):
        assert json.loads((place / "splits_final.json").read_text()) == folds


def test_whole_labels_need_no_ignore_label_and_fold_0_always_validates(tmp_path):
    whole = {"test": ["c5"], "validation": 0.0, "slices": None, "subjects": None}
    params = prepared(tmp_path, split=whole, train={"validate_every": 0}, search={"trials": 0})
    folder = export(params, tmp_path)
    assert "ignore" not in json.loads((folder / "dataset.json").read_text())["labels"]
    (fold,) = json.loads((folder / "splits_final.json").read_text())
    assert fold["val"] == fold["train"] == ["c0", "c1", "c2", "c3", "c4"]


def test_the_same_export_stays_and_another_is_refused(tmp_path):
    params = prepared(tmp_path)
    folder = export(params, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    export(params, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    other = prepared(tmp_path, split={"test": ["c5"], "validation": 0.2, "slices": 0.8})
    with pytest.raises(UserError, match="another split, has this number; choose another"):
        export(other, tmp_path)
    assert export(other, tmp_path, number=502).is_dir()


def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path):
    params = prepared(tmp_path)
    path = tmp_path / "raw" / "imagesTr" / "c5_0000.nii.gz"
    image = nib.load(path)
    save_nifti(path, np.asarray(image.dataobj) + 1, image.affine)
    with pytest.raises(UserError, match="c5: .* has changed since it was prepared"):
        export(params, tmp_path)
    for folder in ("imagesTr", "labelsTr"):
        next((tmp_path / "raw" / folder).glob("c5*")).unlink()
    with pytest.raises(UserError, match="c5 were prepared and are not there any more"):
        export(params, tmp_path)
    assert not [path for path in (tmp_path / "nn").rglob("*") if path.is_file()]


def test_other_parameters_than_the_prepared_ones_are_refused(tmp_path):
    params = prepared(tmp_path)
    labels = {"liver": 5, "spleen": 2}
    dataset = params.dataset.model_copy(update={"labels": labels})
    with pytest.raises(
        UserError, match="prepared with the organs spleen, liver along SPL, the par"
    ):
        export(params.model_copy(update={"dataset": dataset}), tmp_path)


def test_a_case_in_training_and_validation_is_refused(tmp_path):
    rows = ["case,slice,role", "c0,0,train", "c0,1,validation", "c5,0,test"]
    listed = tmp_path / "list.csv"
    listed.write_text("\n".join(rows))
    alone = {"list": str(listed), "slices": None, "validation": 0.0, "test": None}
    params = prepared(tmp_path, split=alone)
    with pytest.raises(UserError, match="c0 have slices in train and in validation"):
        export(params, tmp_path)
