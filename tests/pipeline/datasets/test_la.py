import h5py
import numpy as np
import SimpleITK as sitk

from pipeline import datasets
from pipeline.datasets import la
from pipeline.imaging import volumes
from tests.pipeline.conftest import make_params, tiny_image, tiny_label


def write_hdf5(folder):
    folder.mkdir()
    with h5py.File(folder / "mri_norm2.h5", "w") as file:
        file["image"] = tiny_image().astype(np.float32)
        file["label"] = tiny_label() % 2


def write_nrrd(folder):
    folder.mkdir()
    for name, array in (("lgemri", tiny_image()), ("laendo", tiny_label() % 2 * 255)):
        image = sitk.GetImageFromArray(array.astype(np.uint8))
        sitk.WriteImage(image, str(folder / f"{name}.nrrd"))


def test_both_forms_are_found_and_read(tmp_path):
    write_hdf5(tmp_path / "AAA")
    write_nrrd(tmp_path / "BBB")
    (tmp_path / "notes").mkdir()
    dataset = make_params(dataset={"name": "la", "root": str(tmp_path)}).dataset
    entry = datasets.get(dataset)
    cases = entry.find(dataset)
    assert list(cases) == ["AAA", "BBB"]
    assert cases["AAA"].files == (tmp_path / "AAA" / "mri_norm2.h5",)
    for raw in cases.values():
        label = volumes.read(raw.label, raw.label_key)
        classes = entry.labels(dataset).apply(label.array)
        assert set(np.unique(classes)) == {0, 1}
        assert classes.sum() == (tiny_label() % 2).sum()


def test_lists_of_the_literature():
    split = la.LeftAtrium().canonical(None)
    assert (len(set(split.train)), len(set(split.test))) == (80, 20)
    assert not set(split.train) & set(split.test)
    assert split.train[:4] == (
        "06SR5RBREL16DQ6M8LWS",
        "0RZDK210BSMWAA6467LU",
        "1D7CUD1955YZPGK8XHJX",
        "1GU15S0GJ6PFNARO469W",
    )
    assert {"ULHWPWKKLTE921LQLH1P", "V0MZOWJ6MU3RMRCV9EXR"} <= set(split.test)
