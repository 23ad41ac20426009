import pytest

from pipeline import datasets
from pipeline.core.errors import UserError
from pipeline.datasets import check
from pipeline.datasets.recognise import recognise
from pipeline.planning.survey import survey
from tests.pipeline.conftest import make_params, save_nifti, tiny_image, tiny_label


def write(root, *images, labels, values=3):
    for path in images:
        save_nifti(root / path, tiny_image())
    for path in labels:
        save_nifti(root / path, tiny_label() % values)
    return recognise(root)


@pytest.mark.parametrize(
    ("image", "label", "case"),
    [
        ("images/a.nii.gz", "labels/a.nii.gz", "a"),
        ("imgs/a_1.nii", "masks/a_1_mask.nii", "a_1"),
        ("a.nii.gz", "a_seg.nii.gz", "a"),
        ("a.b.nii.gz", "a.b-label.nii.gz", "a.b"),
        ("a/image.nii.gz", "a/Segmentation.nii.gz", "a"),
        ("a/a.nii.gz", "a/a_gt.nii.gz", "a"),
        ("site1/a/image.nii.gz", "site1/a/mask.nii.gz", "site1_a"),
        ("volume-12.nii", "segmentation-12.nii", "12"),
        ("train/img0001.nii.gz", "train/label0001.nii.gz", "train_0001"),
        (
            "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz",
            "derivatives/manual/sub-01/ses-2/anat/sub-01_ses-2_space-T1w_desc-x_dseg.nii.gz",
            "sub-01_ses-2",
        ),
    ],
)
def test_names_that_pair_up(tmp_path, image, label, case):
    dataset = write(tmp_path, image, labels=[label])
    assert dataset.name == "pairs"
    found = datasets.get(dataset).find(dataset)
    assert list(found) == [case]
    assert (found[case].image, found[case].label) == (tmp_path / image, tmp_path / label)


def test_a_word_within_another_says_nothing(tmp_path):
    dataset = write(tmp_path, "masked_a.nii.gz", labels=["masked_a_seg.nii.gz"])
    assert list(datasets.get(dataset).find(dataset)) == ["masked_a"]


def test_two_images_of_a_case_are_a_problem(tmp_path):
    dataset = write(tmp_path, "images/a.nii.gz", "scans/a.nii.gz", labels=["a_seg.nii.gz"])
    with pytest.raises(UserError, match="case a has more than one image file"):
        datasets.get(dataset).find(dataset)


@pytest.mark.parametrize(
    ("images", "label"),
    [
        ("sub-01/anat/sub-01_{}.nii.gz", "sub-01/anat/sub-01_dseg.nii.gz"),
        ("x-1/x-1-{}.nii.gz", "x-1/x-1-seg.nii.gz"),
        ("images/x.1_{}.nii", "labels/x.1.nii"),
    ],
)
def test_images_of_several_channels(tmp_path, images, label):
    paths = [images.format(name) for name in ("t1c", "t2w", "adc")]
    dataset = write(tmp_path, *paths, labels=[label])
    entry = datasets.get(dataset)
    assert entry.channels(dataset) == ("adc", "t1c", "t2w")
    with pytest.raises(UserError, match=r"has 3 channels \(adc, t1c, t2w\) and none is chosen"):
        entry.find(dataset)
    chosen = dataset.model_copy(update={"channels": ["t2w", "adc"]})
    (raw,) = entry.find(chosen).values()
    assert [str(found) for found in raw.channels] == [
        str(tmp_path / images.format(name)) for name in ("t2w", "adc")
    ]
    assert raw.label == tmp_path / label


def test_a_case_that_lacks_a_channel(tmp_path):
    # names that hold one another
    names = ("2_1.nii", "2_2.nii", "1_1.nii")
    dataset = write(tmp_path, *names, labels=["1_seg.nii", "2_seg.nii"])
    chosen = dataset.model_copy(update={"channels": ["1", "2"]})
    raw = datasets.get(dataset).find(chosen)["1"]
    assert check.missing_files(raw) == [
        f"1: {tmp_path / '1_2.nii'}: there is no such file; add it or remove the case."
    ]


def test_a_suffix_of_every_image_is_no_choice(tmp_path):
    dataset = write(tmp_path, "a_t1.nii", "b_t1.nii", labels=["a_seg.nii", "b_seg.nii"])
    found = datasets.get(dataset).find(dataset)
    assert {case: raw.image.name for case, raw in found.items()} == {
        "a": "a_t1.nii",
        "b": "b_t1.nii",
    }
    assert not any(raw.channels for raw in found.values())


def test_images_alone_are_no_data_set(tmp_path):
    with pytest.raises(UserError, match="nothing that can be read as scans with labels"):
        write(tmp_path, "a.nii.gz", "b.nii.gz", labels=[])


def test_labels_get_their_values_and_the_names_of_a_table(tmp_path):
    dataset = write(tmp_path, "a.nii.gz", "b.nii.gz", labels=["a_seg.nii.gz", "b_seg.nii.gz"])
    with pytest.raises(UserError, match="don't say what their labels mean"):
        datasets.get(dataset).labels(dataset)
    assert survey(dataset, jobs=1).dataset.labels == {"label 1": 1, "label 2": 2}
    (tmp_path / "dseg.tsv").write_text("index\tname\n0\tnothing\n2\tleft atrium\n")
    assert survey(dataset, jobs=1).organs == ("label 1", "left atrium")


def test_labels_that_are_images_are_refused(tmp_path):
    dataset = write(tmp_path, "a.nii.gz", labels=["a_seg.nii.gz"], values=14)
    save_nifti(tmp_path / "a_seg.nii.gz", tiny_image())
    with pytest.raises(UserError, match="values; expected at most 64; are they images"):
        survey(dataset, jobs=1)
    save_nifti(tmp_path / "a_seg.nii.gz", tiny_label() * 0.5)
    with pytest.raises(UserError, match="expected whole numbers as labels, found 0.5"):
        survey(dataset, jobs=1)


def test_a_map_that_names_fewer_labels_says_what_to_do(tmp_path):
    write(tmp_path, "a.nii.gz", labels=["a_seg.nii.gz"])
    about = {"name": "pairs", "root": str(tmp_path), "labels": {"liver": 1}}
    dataset = make_params(dataset=about).dataset
    with pytest.raises(UserError, match="labels 2 are not in the map"):
        survey(dataset, jobs=1)
