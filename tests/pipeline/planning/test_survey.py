import nibabel as nib
import numpy as np
import pytest

from pipeline.core.errors import UserError
from pipeline.planning.survey import survey
from tests.pipeline.conftest import save_nifti
from tests.pipeline.planning.folders import block, write_nnunet


def test_a_case_says_what_the_rules_ask_for(tmp_path):
    # 4 x 5 x 6 mm; the organ of 2 x 3 x 4 voxels of 100 lies in 0
    found = survey(block(write_nnunet(tmp_path, cases=3, spacing=(4, 5, 6))), jobs=1)
    assert found.title == "Toy"
    assert found.organs == ("liver",)
    first = found.cases[0]
    assert first["voxels"] == {"liver": 24}
    assert first["labelled"] == {"0.5%": 100.0, "50%": 100.0, "99.5%": 100.0}
    assert first["organ_slices"] == [2, 3, 4]
    assert found.volumes_ml()["liver"] == dict.fromkeys(["c0", "c1", "c2"], 24 * 0.12)
    assert found.sliced("SPL")[0] == (16, 14, 12, 4)
    assert found.in_plane_mm("SPL") == [5.0] * 3
    assert found.remarks() == []


@pytest.mark.parametrize(
    ("axes", "spacing", "plane"),
    [
        ("RAS", (1, 1, 1), "axial"),
        ("RAS", (1, 1, 5), "axial"),
        ("RAS", (5, 1, 1), "sagittal"),
        ("PIR", (1, 1, 5), "sagittal"),
        ("RAS", (1, 3, 1), "coronal"),
        ("RAS", (1, 1.4, 1), "axial"),
    ],
)
def test_slices_lie_across_the_coarsest_axis(tmp_path, axes, spacing, plane):
    folder = write_nnunet(tmp_path, cases=2, spacing=spacing, axes=axes)
    assert survey(block(folder), jobs=1).plane == plane


def test_ct_is_known_by_its_name_or_by_its_air(tmp_path):
    assert survey(block(write_nnunet(tmp_path / "a", channel="CT")), jobs=1).ct
    assert survey(block(write_nnunet(tmp_path / "b", channel="scan", air=-1000)), jobs=1).ct
    assert not survey(block(write_nnunet(tmp_path / "c", channel="scan")), jobs=1).ct


def test_what_is_far_from_the_others_is_named(tmp_path):
    sizes = {"c5": (6, 7, 8), "c2": (0, 0, 0)}
    found = survey(block(write_nnunet(tmp_path, cases=8, sizes=sizes)), jobs=1)
    assert "c2: the label volume shows no organ of the map." in found.remarks()
    assert "liver: not in c2." in found.remarks()
    assert "c5: liver 0.336 ml, where the median is 0.024 ml." in found.remarks()
    assert found.cases[2]["labelled"] == {}


def test_labels_without_images_are_one_sentence(tmp_path):
    folder = write_nnunet(tmp_path, cases=8)
    for number in range(6):
        (folder / "imagesTr" / f"c{number}_0000.nii.gz").unlink()
    with pytest.raises(UserError, match=r"6 labels have no image \(c0, c1, c2, c3, c4") as caught:
        survey(block(folder), jobs=1)
    assert len(caught.value.problems) == 1


def test_many_problems_are_cut_short(tmp_path):
    folder = write_nnunet(tmp_path, cases=9)
    for number in range(8):
        (folder / "labelsTr" / f"c{number}.nii.gz").unlink()
    with pytest.raises(UserError, match="3 more problems; `hsam check`") as caught:
        survey(block(folder), jobs=1)
    assert len(caught.value.problems) == 6


def test_processes_find_the_same(tmp_path):
    folder = write_nnunet(tmp_path, cases=3)
    one, two = (survey(block(folder), jobs=jobs).as_json() for jobs in (1, 2))
    assert one == two
    assert np.isfinite(one["cases"][0]["percentiles"]["50%"])


def test_spacing_size_and_intensity_far_from_the_others_are_named(tmp_path):
    folder = write_nnunet(tmp_path, cases=7, spacing=(1, 1, 2))
    odd = folder / "imagesTr" / "c3_0000.nii.gz"
    for path in (odd, folder / "labelsTr" / "c3.nii.gz"):
        image = nib.load(path)
        save_nifti(path, np.asarray(image.dataobj), image.affine @ np.diag([1, 1, 3, 1]))
    dark = folder / "imagesTr" / "c5_0000.nii.gz"
    image = nib.load(dark)
    array = np.asarray(image.dataobj).copy()
    array[array == 100] = 60
    array[-1] = 100
    save_nifti(dark, array, image.affine)
    far = survey(block(folder), jobs=1).far_from_others()
    assert set(far) == {"c3", "c5"}
    assert "distance of axial slices 6 mm, where the median is 2 mm" in far["c3"]
    assert "from feet to head 96 mm, where the median is 32 mm" in far["c3"]
    unit = "% of the way from dark to bright"
    assert far["c5"] == [f"median of the organs 60 {unit}, where the median is 100 {unit}"]


def test_a_sketch_shows_the_organs_slice_with_square_pixels(tmp_path):
    # (12, 14, 16) voxels of 1 x 2 x 1 mm; the organ lies at x 1 to 2, y 1 to 3, z 1 to 4
    found = survey(block(write_nnunet(tmp_path, cases=2, spacing=(1, 2, 1))), jobs=1)
    first = found.sketches[0]
    # across y, the coarsest axis: rows from the head down, columns from right to left
    assert first.plane == "coronal, R L"
    assert first.image.shape == first.classes.shape == (16, 12)
    assert (first.classes == 1).sum() == 4 * 2
    assert np.all(first.image[first.classes == 1] == 255)
    assert first.whole.sum() == pytest.approx(1)
    assert first.labelled.argmax() == len(first.labelled) - 1
    assert first.labelled.max() == 1
