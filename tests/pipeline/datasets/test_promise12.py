import SimpleITK as sitk

from pipeline import datasets
from pipeline.datasets import promise12
from tests.pipeline.conftest import make_params, tiny_image, tiny_label


def test_cases_with_the_files_that_hold_their_voxels(tmp_path):
    for name, array in (("Case05", tiny_image()), ("Case05_segmentation", tiny_label() % 2)):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"{name}.mhd"))
    dataset = make_params(dataset={"name": "promise12", "root": str(tmp_path)}).dataset
    cases = datasets.get(dataset).find(dataset)
    assert list(cases) == ["Case05"]
    assert [path.name for path in cases["Case05"].files] == [
        "Case05.mhd",
        "Case05.raw",
        "Case05_segmentation.mhd",
        "Case05_segmentation.raw",
    ]


def test_header_without_its_voxels_still_names_them(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(tiny_image()), str(tmp_path / "Case05.mhd"))
    (tmp_path / "Case05.raw").unlink()
    dataset = make_params(dataset={"name": "promise12", "root": str(tmp_path)}).dataset
    raw = datasets.get(dataset).find(dataset)["Case05"]
    assert raw.image_files[1] == tmp_path / "Case05.raw"
    assert raw.label is None


def test_split_of_the_literature():
    split = promise12.Promise12().canonical(None)
    assert (len(split.train), len(split.test)) == (40, 10)
    assert [split.role(case) for case in ("Case29", "Case14", "Case05")] == ["train"] * 3
    assert split.role("Case49") == "test"
