"""DICOM series with Segmentations, written by the project's own writer and by highdicom."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from pipeline import datasets
from pipeline.core.errors import UserError
from pipeline.datasets import check
from pipeline.datasets.dicom import DicomCase
from pipeline.datasets.recognise import recognise
from pipeline.imaging.dicom.segmentation import write_dicom_seg
from pipeline.imaging.dicom.series import find_series
from pipeline.imaging.dicom.stack import read_series
from pipeline.planning.choices import Machine, choose
from pipeline.planning.survey import survey
from pipeline.shards.case import ShardReader
from pipeline.stages import prepare
from tests.pipeline.conftest import make_params
from tests.pipeline.dicom_files import PATIENT, changed, new_uids, write_enhanced, write_series

SHAPE = (5, 6, 8)  # slices, rows, columns
# directions of rows and of columns, and the step from slice to slice, LPS
AXIAL = ((1, 0, 0, 0, 1, 0), (0, 0, 3.0))
NEGATED = ((-1, 0, 0, 0, -1, 0), (0, 0, -3.0))
SAGITTAL = ((0, 1, 0, 0, 0, -1), (2.5, 0, 0))
OBLIQUE = ((0.8, 0.6, 0, -0.6, 0.8, 0), (0, 0, 3.0))
TILTED = ((0.8, 0, 0.6, 0, 1, 0), (-1.8, 0, 2.4))


def voxels() -> np.ndarray:
    """(slices, rows, columns): HU, each voxel its own."""
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)


def organs() -> np.ndarray:
    """(slices, rows, columns): liver 1 in slices 1 and 2, spleen 2 in slices 2 and 3."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 1:3, 2:7] = 1
    labels[2:4, 4, 1:4] = 2
    return labels


def write_seg(
    path: Path,
    folder: Path,
    labels: np.ndarray,
    names: Sequence[str],
    kind: str = "BINARY",
    slices: Sequence[int] | None = None,
) -> Path:
    """Write a Segmentation of a folder's series by highdicom.

    Args:
        path: the file.
        folder: of the series, one file a slice.
        labels: (slices, rows, columns) of the files sorted by InstanceNumber, or a mask a name
            with a further axis at the end.
        names: of the segments.
        kind: SegmentationType.
        slices: that it refers to; None: all.
    """
    sources = sorted(
        (pydicom.dcmread(file) for file in folder.glob("image*")), key=lambda s: s.InstanceNumber
    )
    chosen = range(len(sources)) if slices is None else slices
    described = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.AnatomicalStructure,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(names, 1)
    ]
    segmentation = hd.seg.Segmentation(
        source_images=[sources[index] for index in chosen],
        pixel_array=labels[list(chosen)],
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=hd.UID(),
        series_number=7,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="a reader",
        manufacturer_model_name="by hand",
        software_versions="1",
        device_serial_number="1",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    segmentation.save_as(path)
    return path


def write_case(folder: Path, plane=AXIAL, names=("Liver", "Spleen"), **tags: object) -> Path:
    """A series and its Segmentation in folders of their own."""
    write_series(folder / "ct", voxels(), axes=plane[0], step=plane[1], **tags)
    write_seg(folder / "seg" / "labels.dcm", folder / "ct", organs(), names)
    return folder


def found(root: Path, **dataset: object):
    params = make_params(dataset={"name": "dicom", "root": str(root), **dataset})
    return params.dataset, datasets.get(params.dataset)


def labels_of(root: Path, case: str, **dataset: object) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and classes of a case, each (column, row, slice)."""
    block, entry = found(root, **dataset)
    raw = entry.find(block)[case]
    image = raw.read_image()
    label = raw.read_label(image)
    assert label.array.shape == image.array.shape
    return image.array, entry.labels(block).apply(label.array)


def expected(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The classes that voxels of `voxels` have, wherever they went."""
    return labels.ravel()[image.astype(int)]


@pytest.mark.parametrize("plane", [AXIAL, NEGATED, SAGITTAL, OBLIQUE, TILTED])
def test_segments_lie_where_the_voxels_lie_that_they_were_drawn_on(tmp_path, plane):
    write_case(tmp_path / "p1", plane)
    image, classes = labels_of(tmp_path, "p1_ct")
    assert np.array_equal(classes, expected(image, organs()))
    assert np.bincount(classes.ravel())[1:].tolist() == [20, 6]


def test_the_projects_own_segmentation_is_read_back(tmp_path):
    write_series(tmp_path / "a", voxels(), axes=OBLIQUE[0])
    volume, series, _ = read_series(find_series(tmp_path / "a")[0])
    labels = organs().transpose(2, 1, 0)
    write_dicom_seg(tmp_path / "a" / "a.seg.dcm", labels, series, ["spleen", "left kidney"])
    image, classes = labels_of(tmp_path, "a")
    assert np.array_equal(image, volume.array)
    # classes are in the order of the segments' names
    assert np.array_equal(classes, np.array([0, 2, 1])[labels])


def test_several_segmentations_of_a_part_of_the_slices(tmp_path):
    write_series(tmp_path / "p1", voxels(), step=(0, 0, 3.0))
    liver, spleen = organs() == 1, organs() == 2
    write_seg(tmp_path / "p1" / "one.dcm", tmp_path / "p1", liver, ["Liver"], slices=[1, 2])
    write_seg(tmp_path / "p1" / "two.dcm", tmp_path / "p1", spleen, ["Spleen"], slices=[3, 2])
    image, classes = labels_of(tmp_path, "p1")
    assert np.array_equal(classes, expected(image, organs()))


def test_label_maps_and_enhanced_images(tmp_path):
    write_series(tmp_path / "p1", voxels())
    write_seg(tmp_path / "p1.dcm", tmp_path / "p1", organs(), ["Liver", "Spleen"], "LABELMAP")
    path = write_enhanced(tmp_path / "p2" / "image.dcm", voxels(), order=[2, 0, 1, 4, 3])
    _, series, _ = read_series(find_series(path.parent)[0])
    labels = organs().transpose(2, 1, 0)
    write_dicom_seg(tmp_path / "p2" / "a.seg.dcm", labels, series, ["liver", "spleen"])
    for case in ("p1", "p2"):
        image, classes = labels_of(tmp_path, case)
        assert np.array_equal(classes, expected(image, organs())), case


def test_segments_are_known_by_their_labels_not_by_their_numbers(tmp_path):
    write_case(tmp_path / "p1", names=("Liver", "Spleen"))
    write_case(tmp_path / "p2", names=("spleen ", "LIVER"))
    block, entry = found(tmp_path)
    assert entry.labels(block).names == ("liver", "spleen")
    _, first = labels_of(tmp_path, "p1_ct")
    _, second = labels_of(tmp_path, "p2_ct")
    assert np.array_equal(second, np.array([0, 2, 1])[first])


def test_the_parameters_join_choose_and_name_organs(tmp_path):
    write_case(tmp_path / "p1", names=("Left Kidney", "right_kidney"))
    _, joined = labels_of(tmp_path, "p1_ct", labels={"kidneys": ["left kidney", "Right Kidney"]})
    assert np.bincount(joined.ravel()).tolist()[1:] == [26]
    _, one = labels_of(tmp_path, "p1_ct", labels={"right": "right kidney"})
    assert np.bincount(one.ravel()).tolist()[1:] == [6]
    block, entry = found(tmp_path, labels={"liver": "Livr", "a": 6, "b": [], "c": "left kidney"})
    problems = entry.list_cases(block).problems
    assert len(problems) == 3
    assert "no segment is called 'livr'" in problems[0]
    assert "found left kidney, right kidney" in problems[0]


def test_a_segments_raw_label_depends_on_its_name_alone(tmp_path):
    write_case(tmp_path / "p1")
    block, entry = found(tmp_path)
    before = entry.labels(block).organs
    write_case(tmp_path / "p2", names=("Aorta", "Liver"))
    after = entry.labels(block).organs
    assert list(after) == ["aorta", "liver", "spleen"]
    assert {name: after[name] for name in before} == before


def test_overlapping_segments_are_refused_unless_one_is_left_out(tmp_path):
    write_series(tmp_path / "p1", voxels())
    liver = organs() == 1
    tumour = np.zeros_like(liver)
    tumour[1, 1, 3:5] = True
    both = np.stack([liver, tumour], -1).astype(np.uint8)
    write_seg(tmp_path / "p1" / "seg.dcm", tmp_path / "p1", both, ["Liver", "Tumour"])
    with pytest.raises(UserError, match="liver and tumour in 2 voxels.*dataset.labels"):
        labels_of(tmp_path, "p1")
    _, whole = labels_of(tmp_path, "p1", labels={"liver": "liver"})
    assert np.bincount(whole.ravel())[1] == 20
    _, one = labels_of(tmp_path, "p1", labels={"liver": ["liver", "tumour"]})
    assert np.array_equal(one, whole)


def test_what_belongs_together_is_told_by_references_not_by_names(tmp_path):
    write_case(tmp_path / "a")
    write_case(tmp_path / "b", NEGATED)
    # each in the other's folder, under any name
    (tmp_path / "a/seg/labels.dcm").rename(tmp_path / "b/x")
    (tmp_path / "b/seg/labels.dcm").rename(tmp_path / "a/y")
    for case in ("a_ct", "b_ct"):
        image, classes = labels_of(tmp_path, case)
        assert np.array_equal(classes, expected(image, organs()))


def test_a_series_uid_that_is_gone_is_made_up_for_by_the_frame_of_reference(tmp_path):
    frame = new_uids()["FrameOfReferenceUID"]
    write_case(tmp_path / "a", FrameOfReferenceUID=frame)
    write_case(tmp_path / "b")
    uid = str(hd.UID())
    for path in (tmp_path / "a/ct").iterdir():
        changed(path, SeriesInstanceUID=uid)
    assert set(found(tmp_path)[1].find(found(tmp_path)[0])) == {"a_ct", "b_ct"}
    # a second series of the same frame of reference makes it a guess
    write_series(tmp_path / "a/late", voxels(), FrameOfReferenceUID=frame)
    block, entry = found(tmp_path)
    listed = entry.list_cases(block)
    assert list(listed.cases) == ["b_ct"]
    assert "refers to 2 series that are there" in listed.problems[0]
    shutil.rmtree(tmp_path / "a/ct")
    shutil.rmtree(tmp_path / "a/late")
    assert "refers to no series that is there" in entry.list_cases(block).problems[0]


def test_series_without_segmentation_are_left_out(tmp_path):
    write_case(tmp_path / "p1")
    write_series(tmp_path / "p1" / "scout", voxels()[:1])
    block, entry = found(tmp_path)
    assert list(entry.find(block)) == ["p1_ct"]


def test_another_grid_and_slices_that_are_gone(tmp_path):
    write_case(tmp_path / "p1")
    for path in (tmp_path / "p1/ct").iterdir():
        x, y, z = pydicom.dcmread(path).ImagePositionPatient
        changed(path, ImagePositionPatient=[x + 0.2, y, z])
    with pytest.raises(UserError, match="expected the grid of the images.*off by 0.29 voxels"):
        labels_of(tmp_path, "p1_ct")
    shutil.rmtree(tmp_path / "p1")
    write_case(tmp_path / "p1")
    for path in (tmp_path / "p1/ct").iterdir():
        if pydicom.dcmread(path).InstanceNumber > 3:
            path.unlink()
    with pytest.raises(UserError, match="found some at .* is the series whole"):
        labels_of(tmp_path, "p1_ct")


def test_probabilities_two_readers_and_segments_without_a_name(tmp_path):
    write_series(tmp_path / "p1", voxels())
    mask = (organs() == 1).astype(np.float32)
    path = write_seg(tmp_path / "a.dcm", tmp_path / "p1", mask, ["Liver"], "FRACTIONAL")
    with pytest.raises(UserError, match="found FRACTIONAL.*threshold"):
        labels_of(tmp_path, "p1")
    write_seg(path, tmp_path / "p1", organs() == 1, ["Liver"])
    write_seg(tmp_path / "b.dcm", tmp_path / "p1", organs() == 1, ["liver"])
    block, entry = found(tmp_path)
    assert "found 'liver' also in a.dcm; two readers?" in entry.list_cases(block).problems[0]
    (tmp_path / "b.dcm").unlink()
    file = pydicom.dcmread(path)
    file.SegmentSequence[0].SegmentLabel = " "
    file.save_as(path)
    assert "expected a SegmentLabel for each segment" in entry.list_cases(block).problems[0]


def test_damaged_files_are_named(tmp_path):
    write_case(tmp_path / "p1")
    seg = tmp_path / "p1/seg/labels.dcm"
    whole = seg.read_bytes()
    seg.write_bytes(whole[:-4])
    with pytest.raises(UserError, match="labels.dcm: its frames can't be read"):
        labels_of(tmp_path, "p1_ct")
    seg.write_bytes(whole)
    (tmp_path / "p1/notes.dcm").write_bytes(b"none of it")
    block, entry = found(tmp_path)
    assert "notes.dcm: can't be read as DICOM" in entry.list_cases(block).problems[0]


def test_ids_and_messages_hold_nothing_of_the_patient(tmp_path, capsys):
    for name, tags in (
        ("Doe^Jane", {}),
        ("SECRET-4711/CT 1", {}),
        ("SECRET-4711/CT 2", {}),
        ("pat_0815", {"PatientID": "0815", "PatientIdentityRemoved": "YES"}),
    ):
        write_case(tmp_path / name, **tags)
    block, entry = found(tmp_path)
    cases = entry.find(block)
    text = " ".join(cases).lower()
    assert not any(part in text for part in ("doe", "jane", "secret", "4711"))
    assert "pat_0815_ct" in cases
    hidden = [case for case in cases if re.fullmatch("patient-[0-9a-f]{8}_[0-9a-f]{8}", case)]
    assert len(hidden) == 3
    # one patient by PatientID, whatever the folders
    assert len({case.partition("_")[0] for case in hidden}) == 1
    check.run(make_params(dataset=block.model_dump()), out=tmp_path / "check.json")
    told = capsys.readouterr().out + (tmp_path / "check.json").read_text()
    assert "so its id is a hash" in told
    assert not any(str(value) in told for value in PATIENT.values())


def test_flat_folders_and_several_series_in_one(tmp_path):
    for number in (1, 2):
        write_series(tmp_path / "all", voxels(), prefix=f"image{number}_")
        sources = tmp_path / f"only{number}"
        sources.mkdir()
        for path in (tmp_path / "all").glob(f"image{number}_*"):
            shutil.copy(path, sources / path.name)
        write_seg(tmp_path / "all" / f"seg{number}.dcm", sources, organs(), ["Liver", "Spleen"])
        shutil.rmtree(sources)
    ids = list(found(tmp_path)[1].find(found(tmp_path)[0]))
    assert [case[:4] for case in ids] == ["all_", "all_"]
    block, entry = found(tmp_path / "all")
    flat = list(entry.find(block))
    assert all(case.startswith("patient-") for case in flat)
    assert [case[-8:] for case in flat] == [case[-8:] for case in ids]


def test_a_folder_is_recognised_planned_and_prepared(tmp_path):
    root = tmp_path / "raw"
    for patient in ("p1", "p2", "p3"):
        for study in ("s1", "s2"):
            write_case(
                root / patient / study, OBLIQUE if study == "s1" else SAGITTAL, PatientID=patient
            )
    block = recognise(root)
    assert block.name == "dicom"
    surveyed = survey(block, jobs=1)
    assert surveyed.ct
    assert surveyed.organs == ("liver", "spleen")
    plan = choose(surveyed, Machine(2, 0, ()), None, None)
    chosen = {choice.key: choice for choice in plan.choices}
    group = chosen["split.group"].value
    assert {re.search(group, case["case"])[1] for case in surveyed.cases} == {"p1", "p2", "p3"}
    params = make_params(dataset=block.model_dump())
    prepare.run(params, tmp_path / "out", tmp_path / "runs", jobs=1)
    shard = ShardReader(tmp_path / "out" / "shards" / "p2_s1_ct.parquet")
    assert shard.counts.sum(0).tolist()[1:] == [20, 6]
    assert shard.class_names == ["liver", "spleen"]


def test_case_files_are_the_series_and_its_segmentations(tmp_path):
    write_case(tmp_path / "p1")
    block, entry = found(tmp_path)
    raw = entry.find(block)["p1_ct"]
    assert isinstance(raw, DicomCase)
    assert set(raw.image_files) == set((tmp_path / "p1/ct").iterdir())
    assert raw.label_files == (tmp_path / "p1/seg/labels.dcm",)
    assert set(raw.files) == {*raw.image_files, *raw.label_files}
