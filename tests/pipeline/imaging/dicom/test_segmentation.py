import pytest
from pydicom.sr.codedict import codes

from pipeline.datasets import synapse
from pipeline.imaging.dicom.segmentation import organ_code


@pytest.mark.parametrize("name", [*synapse.ORGANS, "left atrium", "prostate"])
def test_the_projects_organs_have_codes_of_their_own(name):
    code, side = organ_code(name)
    assert code != codes.SCT.AnatomicalStructure
    assert (side is not None) == ("kidney" in name)


@pytest.mark.parametrize(
    ("name", "value", "side"),
    [
        ("Left_Kidney", "64033007", "7771000"),
        ("kidney right", "64033007", "24028007"),
        ("LIVER", "10200004", None),
        ("something else", "91723000", None),
        ("left something", "91723000", None),
    ],
)
def test_codes_of_snomed_ct(name, value, side):
    code, found = organ_code(name)
    assert code.value == value
    assert (found and found.value) == side
