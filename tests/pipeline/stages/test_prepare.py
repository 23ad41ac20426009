import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline import datasets
from pipeline.core import files
from pipeline.core.cost import Cost
from pipeline.core.errors import UserError
from pipeline.datasets.synapse import image_path, label_path
from pipeline.imaging.geometry import restore_labels
from pipeline.shards.case import ShardReader
from pipeline.shards.manifest import read_manifest
from pipeline.stages import prepare
from tests.pipeline.conftest import (
    AFFINE,
    make_params,
    save_nifti,
    save_nifti_header,
    tiny_image,
    tiny_label,
)


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "results" / "prepare", tmp_path / "runs"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("provenance.json", "cost.json")
    }


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_what_comes_out(synapse_params, synapse_root, folders):
    out, runs = folders
    prepare.run(synapse_params(), out, runs)
    manifest = read_manifest(out / "manifest.parquet")
    assert (manifest.name, len(manifest)) == ("synapse", 3)
    assert manifest.intensity == {"kind": "window", "low": -125.0, "high": 275.0}
    row = manifest.case("img0005")
    assert (row.role, manifest.case("img0001").role) == ("train", "test")
    assert row.shape == (30, 20, 10)
    assert row.spacing_mm == pytest.approx((3.0, 0.7, 0.8))
    assert row.source_shape == (10, 20, 30)
    assert row.orientation == "LAS"
    assert row.shard_sha256 == files.sha256(out / "shards" / row.shard)
    assert row.image_sha256 == files.sha256(image_path(synapse_root, "img0005"))
    assert row.label_sha256 == files.sha256(label_path(synapse_root, "img0005"))
    assert row.counts[1] == (tiny_label() == 1).sum()
    assert sum(row.counts) == tiny_label().size
    provenance = files.read_json(out / "provenance.json")
    assert provenance["inputs"]["img0005"] == [row.image_sha256, row.label_sha256]
    assert provenance["stage"] == "prepare"


def test_warnings_go_into_shard_and_manifest_and_are_printed(
    synapse_params, synapse_root, folders, capsys
):
    out, runs = folders
    prepare.run(synapse_params(), out, runs)
    plain = files.sha256(out / "shards" / "img0005.parquet")
    assert "warning: " not in capsys.readouterr().err
    image = image_path(synapse_root, "img0005")
    save_nifti_header(image, tiny_image(), qform_code=0, sform_code=0)
    save_nifti(label_path(synapse_root, "img0001"), tiny_label() * 0)
    label = label_path(synapse_root, "img0005")
    save_nifti_header(label, tiny_label(), qform_code=0, sform_code=0)
    prepare.run(synapse_params(), out, runs)
    first = capsys.readouterr().err
    prepare.run(synapse_params(), out, runs)  # everything is there already
    again = capsys.readouterr().err
    said = [[line for line in text.splitlines() if "warning: " in line] for text in (first, again)]
    assert said[0] == said[1] and "prepare: already done in" in again
    printed = " ".join(first.split())
    guess = "image and label: qform and sform codes are 0"
    assert f"warning: img0005: {guess}" in printed
    assert "warning: img0001: the label volume shows no organ of the map." in printed
    manifest = read_manifest(out / "manifest.parquet")
    assert manifest.case("img0005").warnings[0].startswith(guess)
    assert manifest.case("img0006").warnings == ()
    assert ShardReader(out / "shards" / "img0005.parquet").warnings[0].startswith(guess)
    assert files.sha256(out / "shards" / "img0005.parquet") != plain


def test_window_keeps_whole_hounsfield_units(synapse_params, folders):
    out, runs = folders
    prepare.run(synapse_params(), out, runs, case="img0005")
    reader = ShardReader(out / "shards" / "img0005.parquet")
    images, _ = reader.read_volume()
    # LAS to (head, back, left): x stays, y is turned round
    expected = np.clip(tiny_image(), -125, 275)[:, ::-1].transpose(2, 1, 0)
    assert np.array_equal(np.rint(images * 400 - 125), expected)
    assert not (out / "manifest.parquet").exists()


def test_batches_are_found_prepared(synapse_params, folders, monkeypatch):
    out, runs = folders
    params = synapse_params()
    for batch in ("1-2", "3-3"):
        prepare.run(params, out, runs, batch=batch)
    assert not (out / "shards").exists() and not (out / "manifest.parquet").exists()
    kept = [files.read_json(out / "batches" / f"{name}.json")["shards"] for name in ("1-2", "3-3")]
    assert [len(shards) for shards in kept] == [2, 1]
    assert all((runs / shard).is_file() for shards in kept for shard in shards)
    monkeypatch.setattr(prepare, "prepare_case", None)  # nothing is left to be computed
    prepare.run(params, out, runs)
    assert len(read_manifest(out / "manifest.parquet")) == 3


@pytest.mark.parametrize("axes", [None, "SAL", "RIA"])
def test_labels_go_back_to_the_source_grid(synapse_params, synapse_root, folders, axes):
    out, runs = folders
    oblique = AFFINE[:, [2, 0, 1, 3]].copy()
    oblique[:3, :3] += 0.05
    save_nifti(image_path(synapse_root, "img0005"), tiny_image(), oblique)
    save_nifti(label_path(synapse_root, "img0005"), tiny_label(), oblique)
    params = synapse_params(prepare={"axes": axes})
    prepare.run(params, out, runs)
    manifest = read_manifest(out / "manifest.parquet")
    assert manifest.axes == (axes or "SPL")
    row = manifest.case("img0005")
    _, labels = ShardReader(out / "shards" / row.shard).read_volume()
    expected = datasets.get(params.dataset).labels(params.dataset).apply(tiny_label())
    assert np.array_equal(restore_labels(labels, row.geometry, manifest.axes), expected)


def test_flipped_twin_gives_the_same_pixels(synapse_params, synapse_root, folders):
    out, runs = folders
    flipped = AFFINE.copy()
    flipped[:3, 3] += AFFINE[:3, 0] * 9
    flipped[:3, 0] *= -1
    save_nifti(image_path(synapse_root, "img0006"), tiny_image()[::-1], flipped)
    save_nifti(label_path(synapse_root, "img0006"), tiny_label()[::-1], flipped)
    prepare.run(synapse_params(), out, runs)
    first, twin = (
        ShardReader(out / "shards" / f"{case}.parquet").read_volume()
        for case in ("img0005", "img0006")
    )
    assert np.array_equal(first[0], twin[0])
    assert np.array_equal(first[1], twin[1])


def test_resampling_in_plane(synapse_params, folders):
    out, runs = folders
    params = synapse_params(prepare={"spacing_mm": 1.6})
    prepare.run(params, out, runs)
    row = read_manifest(out / "manifest.parquet").case("img0005")
    # 20 rows of 0.7 mm and 10 columns of 0.8 mm: 14 mm and 8 mm
    assert row.shape == (30, 9, 5)
    assert row.spacing_mm == pytest.approx((3.0, 14 / 9, 1.6))
    images, labels = ShardReader(out / "shards" / row.shard).read_volume()
    assert 0 <= images.min() < images.max() <= 1
    assert restore_labels(labels, row.geometry, "SPL").shape == (10, 20, 30)


def test_percentiles(synapse_params, folders):
    out, runs = folders
    rule = {"kind": "percentile", "low": 10.0, "high": 90.0}
    prepare.run(synapse_params(prepare={"intensity": rule}), out, runs, case="img0001")
    reader = ShardReader(out / "shards" / "img0001.parquet")
    assert reader.bounds == pytest.approx(np.percentile(tiny_image(), [10, 90]))
    images, _ = reader.read_volume()
    assert (images.min(), images.max()) == (0, 1)
    assert (images == 0).mean() == pytest.approx(0.1, abs=0.01)


@pytest.fixture(scope="module")
def in_one_go(phantom_params, tmp_path_factory):
    out = tmp_path_factory.mktemp("one")
    prepare.run(phantom_params, out / "prepare", out / "runs")
    return contents(out / "prepare")


def test_jobs_do_not_change_the_output(phantom_params, folders, in_one_go):
    prepare.run(phantom_params, *folders, jobs=2)
    assert contents(folders[0]) == in_one_go


def test_case_by_case_is_the_same_as_in_one_go(phantom_params, folders, in_one_go):
    for case in ("img0003", "img0001", "img0002", "img0005", "img0004"):
        prepare.run(phantom_params, *folders, case=case)
    prepare.run(phantom_params, *folders)
    assert contents(folders[0]) == in_one_go


def test_second_run_touches_nothing(synapse_params, folders, monkeypatch):
    out, runs = folders
    prepare.run(synapse_params(), out, runs)
    before = times(out) | times(runs)
    monkeypatch.setattr(prepare, "prepare_case", None)
    prepare.run(synapse_params(), out, runs)
    prepare.run(synapse_params(), out, runs, case="img0001")
    assert times(out) | times(runs) == before


def test_deleted_outputs_come_from_the_run_folder(synapse_params, folders, monkeypatch):
    out, runs = folders
    prepare.run(synapse_params(), out, runs)
    before = contents(out)
    shutil.rmtree(out)
    monkeypatch.setattr(prepare, "prepare_case", None)
    prepare.run(synapse_params(), out, runs)
    assert contents(out) == before


def test_interrupted_run_goes_on(synapse_params, folders, monkeypatch):
    out, runs = folders
    made = []
    original = prepare.prepare_case

    def interrupted(raw, recipe):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(raw.case)
        return original(raw, recipe)

    monkeypatch.setattr(prepare, "prepare_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare.run(synapse_params(), out, runs)
    assert not out.exists()
    made.clear()

    def counted(raw, recipe):
        made.append(raw.case)
        return original(raw, recipe)

    monkeypatch.setattr(prepare, "prepare_case", counted)
    prepare.run(synapse_params(), out, runs)
    assert made == ["img0005", "img0006"]
    assert len(read_manifest(out / "manifest.parquet")) == 3


def test_the_cost_is_that_of_all_cases_whichever_call_prepared_them(synapse_params, folders):
    out, runs = folders
    prepare.run(synapse_params(), out, runs, batch="1-2")
    first = {path: Cost.read(path.parent, path.name) for path in runs.glob("*/*.cost.json")}
    assert len(first) == 2 and not (out / "cost.json").exists()
    prepare.run(synapse_params(), out, runs)
    every = [Cost.read(path.parent, path.name) for path in runs.glob("*/*.cost.json")]
    assert len(every) == 3 and all(cost in every for cost in first.values())
    whole = Cost.read(out)
    assert whole.seconds == pytest.approx(sum(cost.seconds for cost in every), abs=1e-3)
    assert whole.peak_memory_mib == max(cost.peak_memory_mib for cost in every)
    shutil.rmtree(out)
    prepare.run(synapse_params(), out, runs)
    assert Cost.read(out) == whole


def test_changed_volume_is_made_anew_and_only_that(synapse_params, synapse_root, folders):
    out, runs = folders
    prepare.run(synapse_params(), out, runs)
    before = times(out / "shards")
    save_nifti(label_path(synapse_root, "img0005"), tiny_label() // 2)
    prepare.run(synapse_params(), out, runs)
    after = times(out / "shards")
    assert [path.stem for path in before if before[path] != after[path]] == ["img0005"]
    row = read_manifest(out / "manifest.parquet").case("img0005")
    assert row.counts[1] == (tiny_label() // 2 == 1).sum()


def test_one_changed_case_takes_the_manifest_away(synapse_params, synapse_root, folders):
    out, runs = folders
    prepare.run(synapse_params(), out, runs)
    save_nifti(label_path(synapse_root, "img0005"), tiny_label() // 2)
    prepare.run(synapse_params(), out, runs, case="img0006")
    assert (out / "manifest.parquet").exists()
    prepare.run(synapse_params(), out, runs, case="img0005")
    assert not (out / "manifest.parquet").exists()


def test_shards_of_other_cases_are_removed(synapse_params, folders):
    out, runs = folders
    prepare.run(synapse_params(), out, runs)
    (out / "shards" / ".img0009.parquet-abc").mkdir()
    (out / "shards" / "notes.txt").write_text("mine")
    prepare.run(synapse_params(dataset={"cases": ["img0001", "img0005"]}), out, runs)
    names = sorted(path.name for path in (out / "shards").iterdir())
    assert names == ["img0001.parquet", "img0005.parquet", "notes.txt"]
    assert [row.case for row in read_manifest(out / "manifest.parquet")] == ["img0001", "img0005"]


def test_damaged_shard_in_the_run_folder_is_made_anew(synapse_params, folders):
    out, runs = folders
    prepare.run(synapse_params(), out, runs)
    before = contents(out)
    path = next(runs.glob("synapse-prepare-*/img0005-*.parquet"))
    path.write_bytes(path.read_bytes()[:-50])
    prepare.run(synapse_params(), out, runs)
    assert contents(out) == before
    ShardReader(path).verify()


def test_order_of_the_organs_matters(synapse_params, folders):
    out, runs = folders
    for labels in ({"liver": 6, "spleen": 1}, {"spleen": 1, "liver": 6}):
        prepare.run(synapse_params(dataset={"labels": labels}), out, runs)
        manifest = read_manifest(out / "manifest.parquet")
        assert manifest.class_names == list(labels)
        reader = ShardReader(out / "shards" / "img0001.parquet")
        assert reader.class_names == list(labels)


def test_bad_cases_are_all_named_and_nothing_is_published(synapse_params, synapse_root, folders):
    out, runs = folders
    prepare.run(synapse_params(), out, runs)
    before = contents(out)
    label_path(synapse_root, "img0001").unlink()
    save_nifti(label_path(synapse_root, "img0005"), tiny_label() + 90)
    with pytest.raises(UserError) as caught:
        prepare.run(synapse_params(), out, runs)
    assert len(caught.value.problems) == 2
    assert "img0001.nii.gz: the image has no label volume" in caught.value.problems[0]
    assert "are not in the map" in caught.value.problems[1]
    assert contents(out) == before


def test_problems_come_whole_out_of_other_processes(synapse_params, synapse_root, folders):
    for case in ("img0001", "img0005"):
        save_nifti(label_path(synapse_root, case), tiny_label((10, 20, 29)) + 90)
    with pytest.raises(UserError) as caught:
        prepare.run(synapse_params(), *folders, jobs=2)
    assert len(caught.value.problems) == 4


def test_unknown_case(synapse_params, folders):
    with pytest.raises(UserError, match="case img0002 is not there; found img0001, img0005"):
        prepare.run(synapse_params(), *folders, case="img0002")


def test_empty_range_of_intensities(synapse_params, synapse_root, folders):
    sparse = np.zeros((10, 20, 30), np.int16)
    sparse[0, 0, 0] = 1
    save_nifti(image_path(synapse_root, "img0005"), sparse)
    rule = {"kind": "percentile", "low": 5.0, "high": 95.0}
    with pytest.raises(UserError, match="prepare.intensity leaves no range: 0 to 0"):
        prepare.run(synapse_params(prepare={"intensity": rule}), *folders)


def test_published_shards_are_those_of_the_schema(prepared_phantoms):
    for row in read_manifest(prepared_phantoms / "manifest.parquet"):
        reader = ShardReader(prepared_phantoms / "shards" / row.shard)
        reader.verify()
        assert reader.case == row.case
        assert reader.shape == row.shape


def test_params_of_other_stages_share_the_work(synapse_params, folders, monkeypatch):
    out, runs = folders
    prepare.run(synapse_params(), out, runs)
    monkeypatch.setattr(prepare, "prepare_case", None)
    prepare.run(synapse_params(base={"seed": 7}, train={"epochs": 1}), out, runs)
    assert len(list(runs.iterdir())) == 1


def test_changed_code_works_in_another_folder(synapse_params, folders, monkeypatch):
    out, runs = folders
    prepare.run(synapse_params(), out, runs)
    monkeypatch.setattr("pipeline.core.sources.stage_digest", lambda *_: "changed")
    prepare.run(synapse_params(), out, runs)
    assert len(list(runs.iterdir())) == 2


def test_a_split_that_cannot_be_is_said_before_anything_is_prepared(
    phantom_params, tmp_path, capsys
):
    dataset = phantom_params.dataset.model_dump() | {"cases": ["img0001"]}
    prepare.run(make_params(dataset=dataset), tmp_path / "prepare", tmp_path / "runs")
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("prepare: warning: ")
    assert "split.test: null takes" in first and "dataset.cases names none of them" in first
    assert last == f"prepare: 1 cases of phantom in {tmp_path / 'prepare'}; next: hsam split"
    shared = make_params(dataset=dataset, split={"test": 0.3})
    prepare.run(shared, tmp_path / "prepare", tmp_path / "runs")
    assert "warning" not in capsys.readouterr().err
