import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

import hsam
from pipeline.commands import score
from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Params
from pipeline.datasets import synapse
from pipeline.imaging import volumes
from pipeline.imaging.geometry import CANONICAL, to_slices
from pipeline.inference import usual, volume
from pipeline.inference.usual import Tally
from pipeline.scoring import calibration, dice
from pipeline.scoring.conventions import CONVENTIONS
from pipeline.scoring.measures import measure
from pipeline.scoring.predicted_dice import FEWEST
from pipeline.scoring.review import FIRST, MOST
from pipeline.scoring.scores import SCORES
from pipeline.shards.case import ShardReader
from pipeline.shards.manifest import Manifest, read_manifest
from pipeline.shards.roles import SplitFile, read_split, write_split
from pipeline.stages import evaluate, phantom, prepare, split
from tests.pipeline.conftest import make_params

ORGANS = list(synapse.ORGANS)
TEST_CASES = ["img0004", "img0005"]
TABLES = ("audit", "cases", "organs", "predicted_dice", "review", "stages")
LABELS = ("predictions", "stages/coarse", "stages/fine")


@pytest.fixture(scope="module")
def folders(phantom_params, prepared_phantoms, tmp_path_factory) -> dict[str, Path]:
    """Prepared phantoms, their split and an untrained model; read only."""
    root = tmp_path_factory.mktemp("inputs")
    split.run(phantom_params, prepared_phantoms, root / "split", root / "runs")
    manifest = read_manifest(prepared_phantoms / "manifest.parquet")
    save_model(root / "train", manifest)
    return {"prepared": prepared_phantoms, "split": root / "split", "model": root / "train"}


def save_model(folder: Path, manifest: Manifest, name: str = "hsam") -> None:
    """A model for the data of a manifest."""
    torch.manual_seed(3)
    model = hsam.build(name, "vit_tiny", image_size=32, num_classes=len(manifest.class_names))
    hsam.save(
        model,
        folder,
        class_names=manifest.class_names,
        intensity=manifest.intensity,
        preparation=manifest.preparation,
    )


def evaluate_into(root: Path, params, settings: dict | None = None, **folders: Path) -> Path:
    """Evaluate with changed values of the block; `root` gets out and runs."""
    block = params.evaluate.model_copy(update=settings or {})
    paths = {"out": root / "out", "runs": root / "runs"} | folders
    evaluate.run(params.model_copy(update={"evaluate": block}), **paths, device="cpu")
    return paths["out"]


def evaluate_two(root: Path, params, prepared: Path) -> tuple[Path, Path]:
    """Evaluations of an untrained model of one stage, and of one of two stages."""
    split.run(params, prepared, root / "split", root / "runs")
    manifest = read_manifest(prepared / "manifest.parquet")
    folders = {"prepared": prepared, "split": root / "split"}
    for name, model in (("one", "samed"), ("two", "hsam")):
        save_model(root / name / "model", manifest, model)
        evaluate_into(root / name, params, model=root / name / "model", **folders)
    return root / "one" / "out", root / "two" / "out"


@pytest.fixture(scope="module")
def finished(phantom_params, folders, tmp_path_factory) -> Path:
    """A folder with out and runs of a finished evaluation; read only."""
    root = tmp_path_factory.mktemp("finished")
    evaluate_into(root, phantom_params, **folders)
    return root


@pytest.fixture
def evaluated(phantom_params, folders, tmp_path):
    """Evaluate into tmp_path; keywords replace folders."""

    def run(settings: dict | None = None, **changes: Path) -> Path:
        return evaluate_into(tmp_path, phantom_params, settings, **folders | changes)

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def raw(params, case: str) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    root = Path(params.dataset.root)
    image, label = synapse.image_path(root, case), synapse.label_path(root, case)
    return nib.load(image), nib.load(label)


def test_what_comes_out(finished):
    out = finished / "out"
    tables = [f"{name}.{form}" for name in TABLES for form in ("csv", "parquet")]
    labels = [f"{folder}/{case}.nii.gz" for folder in LABELS for case in TEST_CASES]
    records = ("calibration", "cost", "metrics", "headline", "provenance")
    expected = [*tables, *labels, *(f"{name}.json" for name in records)]
    assert sorted(contents(out)) == sorted(expected)
    table = pd.read_parquet(out / "cases.parquet")
    columns = ["case", "organ", *SCORES, "truth_voxels", "predicted_voxels", "voxel_mm"]
    assert table.columns.to_list() == columns
    assert table["case"].to_list() == [case for case in TEST_CASES for _ in ORGANS]
    assert table["organ"].to_list() == ORGANS * 2
    assert (out / "cases.csv").read_text().startswith(",".join(columns) + "\nimg0004,spleen,")
    pd.testing.assert_frame_equal(table, pd.read_csv(out / "cases.csv"), check_dtype=False)


def test_metrics_are_the_means_of_the_table(finished, folders):
    out = finished / "out"
    scores, table = files.read_json(out / "metrics.json"), pd.read_csv(out / "cases.csv")
    for name in ("dice", "hd95_voxels", "hd95_mm"):
        assert list(scores[name]) == ORGANS
        assert scores[name] == pytest.approx(table.groupby("organ")[name].mean().to_dict())
        assert scores[f"mean_{name}"] == pytest.approx(table[name].mean())
    assert scores["cases"] == 2
    assert scores["split"] == read_split(folders["split"] / "split.parquet").hash
    assert (scores["stage"], scores["convention"]) == ("mean", "strict")


@pytest.mark.parametrize("case", TEST_CASES)
def test_predictions_lie_on_the_raw_grid_and_score_there_what_the_table_says(
    finished, phantom_params, case
):
    out = finished / "out"
    image, label = raw(phantom_params, case)
    prediction = nib.load(out / "predictions" / f"{case}.nii.gz")
    assert prediction.shape == image.shape
    np.testing.assert_allclose(prediction.affine, image.affine, atol=1e-4)
    assert prediction.get_data_dtype() == np.uint8
    truth, predicted = np.asarray(label.dataobj), np.asarray(prediction.dataobj)
    spacing = [float(side) for side in image.header.get_zooms()]
    table = pd.read_csv(out / "cases.csv").query("case == @case").set_index("organ")
    scored = 0
    for index, (organ, values) in enumerate(synapse.ORGANS.items(), 1):
        a, b = np.isin(truth, values), predicted == index
        assert (a.sum(), b.sum()) == tuple(table.loc[organ, ["truth_voxels", "predicted_voxels"]])
        if a.any() and b.any():
            scored += 1
            alone = measure(a, b, spacing)
            expected = dice.dice(a, b), alone.scores["hd95_voxels"], alone.scores["hd95_mm"]
            found = table.loc[organ, ["dice", "hd95_voxels", "hd95_mm"]].to_list()
            assert found == pytest.approx(expected, rel=1e-5)
    # the untrained model must predict enough for this test to say something
    assert scored >= 2


def test_other_peoples_label_volumes_are_scored_in_the_same_way(
    finished, phantom_params, folders, tmp_path
):
    out = finished / "out"
    files.write_json(tmp_path / "labels.json", {k: list(v) for k, v in synapse.ORGANS.items()})
    score.run(
        Path(phantom_params.dataset.root) / synapse.LABELS,
        out / "predictions",
        tmp_path / "labels.json",
        tmp_path / "scores",
        prediction_labels=folders["model"] / "model.json",
        names=("label{case}", "img{case}"),
        cases=[case.removeprefix("img") for case in TEST_CASES],
    )
    ours, theirs = (pd.read_csv(f / "cases.csv") for f in (out, tmp_path / "scores"))
    assert theirs["case"].map("img{:04}".format).equals(ours["case"])
    columns = ["organ", *SCORES, "truth_voxels", "predicted_voxels"]
    pd.testing.assert_frame_equal(theirs[columns], ours[columns], rtol=1e-5)


def refuse(*_, **__):
    raise AssertionError("computed again")


def test_a_second_run_computes_nothing(finished, evaluated, monkeypatch):
    monkeypatch.setattr(volume, "predict_batches", refuse)
    assert contents(evaluated(runs=finished / "runs")) == contents(finished / "out")


def test_an_interrupted_run_leaves_the_old_output_and_goes_on_to_the_same_bytes(
    finished, evaluated, monkeypatch, tmp_path
):
    old = tmp_path / "out"
    old.mkdir()
    (old / "old.txt").write_text("old")
    real, calls = volume.predict_batches, []

    def interrupted_at(number: int):
        def predict(*arguments, **keywords):
            calls.append(number)
            if len(calls) == number:
                raise KeyboardInterrupt
            return real(*arguments, **keywords)

        return predict

    monkeypatch.setattr(volume, "predict_batches", interrupted_at(2))
    with pytest.raises(KeyboardInterrupt):
        evaluated()
    assert sorted(contents(old)) == ["old.txt"]
    # what a process that is killed while it writes leaves behind
    (run,) = (tmp_path / "runs").iterdir()
    (run / "out" / ".metrics.json-x1").mkdir()
    (run / "out" / ".metrics.json-x1" / "metrics.json").write_text("{")
    (run / "cases-fp32" / ".img0005-x1").mkdir()
    (run / "cases-fp32" / ".img0005-x1" / "seconds.json").write_text("{")
    (run / "cases-fp32" / "img0004" / "seconds.json").write_text("1000.0")
    calls.clear()
    monkeypatch.setattr(volume, "predict_batches", interrupted_at(99))
    again, whole = contents(evaluated()), contents(finished / "out")
    costs = [json.loads(found.pop("cost.json")) for found in (again, whole)]
    assert again == whole
    assert len(calls) == 1
    assert costs[1]["seconds"] < 1000 < costs[0]["seconds"]


def test_what_a_gpu_and_a_cpu_have_predicted_is_not_mixed(evaluated, tmp_path, monkeypatch):
    real, calls = volume.predict_batches, []

    def counted(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    monkeypatch.setattr(volume, "predict_batches", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluated()
    (run,) = (tmp_path / "runs").iterdir()
    (run / "cases-fp32").rename(run / "cases-bf16")
    evaluated()
    assert len(calls) == 4
    assert not list(run.glob("cases-*"))


def test_the_stage_counts(finished, evaluated):
    name = "predictions/img0004.nii.gz"
    coarse = evaluated({"stage": "coarse"})
    assert contents(coarse)[name] != contents(finished / "out")[name]
    assert files.read_json(coarse / "metrics.json")["stage"] == "coarse"


def test_the_convention_counts(finished, evaluated):
    out = evaluated({"convention": "strict"})
    name = "predictions/img0004.nii.gz"
    assert contents(out)[name] == contents(finished / "out")[name]
    table = pd.read_csv(out / "cases.csv")
    missed = table[(table["truth_voxels"] > 0) & (table["predicted_voxels"] == 0)]
    assert len(missed) and (missed["dice"] == 0).all() and (missed["hd95_mm"] > 50).all()
    json.loads((out / "metrics.json").read_text(), parse_constant=refuse)


def test_every_convention_is_in_the_tables(finished):
    out = finished / "out"
    scores, table = files.read_json(out / "metrics.json"), pd.read_csv(out / "organs.csv")
    assert list(scores["conventions"]) == list(CONVENTIONS)
    for name, means in scores["conventions"].items():
        rows = table[(table["convention"] == name) & (table["organ"] == "mean over organs")]
        assert means["mean_dice"] == rows.set_index("score").loc["dice", "mean"]
    cases = pd.read_csv(out / "cases.csv")
    there, predicted = cases["truth_voxels"] > 0, cases["predicted_voxels"] > 0
    assert scores["pairs"] == {
        "all": len(cases),
        "missed": (there & ~predicted).sum(),
        "invented": (~there & predicted).sum(),
        "absent": (~there & ~predicted).sum(),
    }


def test_both_stages_are_scored_apart(finished, evaluated):
    out = finished / "out"
    scores, table = files.read_json(out / "metrics.json"), pd.read_csv(out / "stages.csv")
    assert (
        list(scores["stages"]) == list(dict.fromkeys(table["stage"])) == ["mean", "coarse", "fine"]
    )
    assert scores["stages"]["mean"]["mean_dice"] == scores["mean_dice"]
    coarse = evaluated({"stage": "coarse"})
    alone = files.read_json(coarse / "metrics.json")
    assert scores["stages"]["coarse"]["mean_dice"] == pytest.approx(alone["mean_dice"])
    for case in TEST_CASES:
        one = (out / "stages" / "coarse" / f"{case}.nii.gz").read_bytes()
        assert one == (coarse / "predictions" / f"{case}.nii.gz").read_bytes()


def test_the_review_list_is_what_the_label_maps_say(finished, folders):
    out = finished / "out"
    review = pd.read_csv(out / "review.csv")
    assert review["expected_mm2"].is_monotonic_decreasing and (review["expected_mm2"] > 0).all()
    assert review["case"].value_counts().max() <= MOST
    manifest = read_manifest(folders["prepared"] / "manifest.parquet")
    held = set()
    for row in review.itertuples():
        label = ORGANS.index(row.organ) + 1
        of_row = {(row.case, label, index) for index in range(row.first, row.last + 1)}
        assert not of_row & held
        held |= of_row
        coarse, fine, mean = (
            canonical(out / place / f"{row.case}.nii.gz")[row.first : row.last + 1] == label
            for place in ("stages/coarse", "stages/fine", "predictions")
        )
        shard = folders["prepared"] / "shards" / manifest.case(row.case).shard
        _, truth = ShardReader(shard).read_volume()
        wrong = (truth[row.first : row.last + 1] == label) != mean
        _, height, width = manifest.case(row.case).spacing_mm
        assert row.error_mm2 == pytest.approx(wrong.sum() * height * width)
        assert np.isnan(row.disagreement) or row.disagreement == pytest.approx(
            1 - dice.dice(coarse, fine)
        )
        geometry = volumes.read(out / "predictions" / f"{row.case}.nii.gz").geometry
        marked = np.zeros(geometry.shape, np.uint8)
        marked[tuple(int(index) for index in row.voxel.split())] = 1
        assert np.flatnonzero(to_slices(marked, geometry, CANONICAL).any(axis=(1, 2))) == row.slice
    found = files.read_json(out / "metrics.json")["review"]
    assert found["rows"] == len(review)
    assert 0 < found["found_in_first"] <= 1 and 0 < found["looked_at"] <= 1
    assert found["of_ideal"] * found["ideal"] == pytest.approx(found["found_in_first"])
    assert 0 < found["random"] < found["ideal"] <= 1
    whole = review["error_mm2"][:FIRST].sum() / found["found_in_first"]
    assert whole >= review["error_mm2"].sum() * (1 - 1e-9)  # the list may leave rows out


def canonical(path: Path) -> np.ndarray:
    volume = volumes.read(path)
    return to_slices(volume.array, volume.geometry, CANONICAL)


def test_a_model_of_one_stage_has_no_stage_analysis(evaluated, folders, tmp_path):
    manifest = read_manifest(folders["prepared"] / "manifest.parquet")
    save_model(tmp_path / "m", manifest, "samed")
    out = evaluated(model=tmp_path / "m")
    scores = files.read_json(out / "metrics.json")
    assert "stages" not in scores and pd.read_csv(out / "stages.csv").empty
    # the probabilities say where to look
    review = pd.read_csv(out / "review.csv")
    assert len(review) and review["disagreement"].isna().all()
    assert review["expected_mm2"].is_monotonic_decreasing and review["expected_mm2"].iloc[-1] > 0
    assert scores["review"]["found_in_first"] > 0
    assert (out / "stages").is_dir() and not list((out / "stages").iterdir())


def test_a_model_for_other_organs_or_intensities(evaluated, folders, tmp_path):
    manifest = read_manifest(folders["prepared"] / "manifest.parquet")
    other = {"kind": "window", "low": 0, "high": 9}
    fewer = manifest.class_names[:-1]
    turned = replace(manifest, preparation={"axes": "SAL", "spacing_mm": None})
    save_model(tmp_path / "turned", turned)
    with pytest.raises(UserError, match="the axes SAL, the data has SPL; set prepare.axes to SAL"):
        evaluated(model=tmp_path / "turned")
    finer = {"axes": "SPL", "spacing_mm": 1.0}
    save_model(
        tmp_path / "m",
        replace(manifest, class_names=fewer, intensity=other, preparation=finer),
    )
    with pytest.raises(UserError) as error:
        evaluated(model=tmp_path / "m")
    organs, intensity, preparation = error.value.problems
    assert "pancreas" in organs and "the organs" in organs
    assert "-125.0" in intensity and "'high': 9" in intensity
    assert "'spacing_mm': 1.0" in preparation and "'spacing_mm': None" in preparation
    assert not (tmp_path / "out").exists()


def test_a_missing_model_is_told_with_what_makes_it(evaluated, tmp_path):
    expected = "expected a trained model .model.json and model.safetensors.*run the train stage"
    with pytest.raises(UserError, match=expected):
        evaluated(model=tmp_path)


def test_an_audit_without_kept_models_is_refused(evaluated, tmp_path):
    with pytest.raises(UserError, match="train with train.snapshots"):
        evaluated({"audit": True})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_damaged_model(evaluated, folders, tmp_path, name):
    shutil.copytree(folders["model"], tmp_path / "m")
    (tmp_path / "m" / name).write_bytes(b"torn")
    with pytest.raises(UserError, match=f"{name}: can't be"):
        evaluated(model=tmp_path / "m")


def test_a_stage_that_the_model_does_not_have(evaluated, folders, tmp_path):
    manifest = read_manifest(folders["prepared"] / "manifest.parquet")
    save_model(tmp_path / "m", manifest, "samed")
    with pytest.raises(UserError, match="evaluate.stage: this model has no fine stage"):
        evaluated({"stage": "fine"}, model=tmp_path / "m")


def test_a_split_of_other_data(evaluated, folders, tmp_path):
    found = read_split(folders["split"] / "split.parquet")
    others = {("x1", 0): "train", ("x2", 0): "test"}
    other = SplitFile("la", {**found.roles, **others})
    write_split(tmp_path / "split.parquet", other)
    with pytest.raises(UserError) as error:
        evaluated(split=tmp_path)
    assert len(error.value.problems) == 3
    assert f"{other.hash[:12]} has 1 slices of x1, the prepared data has 0" in str(error.value)
    assert "is one of la, the prepared data is phantom" in str(error.value)


def test_a_split_without_test_slices(evaluated, folders, tmp_path):
    found = read_split(folders["split"] / "split.parquet")
    roles = {key: "unused" if role == "test" else role for key, role in found.roles.items()}
    write_split(tmp_path / "split.parquet", replace(found, roles=roles))
    with pytest.raises(UserError, match="no test slices"):
        evaluated(split=tmp_path)


def test_a_shard_that_is_not_the_manifests(evaluated, folders, tmp_path):
    shutil.copytree(folders["prepared"], tmp_path / "prepared")
    shards = tmp_path / "prepared" / "shards"
    shutil.copy(shards / "img0001.parquet", shards / "img0004.parquet")
    with pytest.raises(UserError, match="img0004.parquet"):
        evaluated(prepared=tmp_path / "prepared")


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> tuple[Params, dict[str, Path]]:
    """Parameters and folders of more small phantoms than a calibration needs, and a model."""
    root = tmp_path_factory.mktemp("many")
    about = {"cases": FEWEST + 4, "seed": 2, "size": 32}
    phantom.run(root / "raw", **about)
    data = {"name": "phantom", "root": str(root / "raw"), "phantom": about}
    params = make_params(dataset=data)
    prepare.run(params, root / "prepare", root / "runs")
    manifest = read_manifest(root / "prepare" / "manifest.parquet")
    torch.manual_seed(3)
    about = {"class_names": manifest.class_names, "intensity": manifest.intensity}
    model = hsam.build("unet", image_size=32, num_classes=len(ORGANS))
    hsam.save(model, root / "model", **about, preparation=manifest.preparation)
    return params, {"prepared": root / "prepare", "model": root / "model"}


def with_roles(folders: dict[str, Path], folder: Path, validation: int) -> dict[str, Path]:
    """The folders, with a split of one training case, some validation cases and else test cases."""
    manifest = read_manifest(folders["prepared"] / "manifest.parquet")
    roles = ["train", *["validation"] * validation]
    named = {
        row.case: roles[place] if place < len(roles) else "test"
        for place, row in enumerate(manifest)
    }
    slices = {(row.case, i): named[row.case] for row in manifest for i in range(row.slices)}
    write_split(folder / "split.parquet", SplitFile(manifest.name, slices))
    return folders | {"split": folder}


@pytest.mark.parametrize(("validation", "role"), [(FEWEST, "validation"), (1, "test")])
def test_predicted_dice_is_calibrated_and_judged(many, tmp_path, validation, role):
    params, folders = many
    out = evaluate_into(tmp_path, params, **with_roles(folders, tmp_path / "split", validation))
    about = files.read_json(out / "metrics.json")["predicted_dice"]
    table, cases = (pd.read_csv(out / f"{n}.csv") for n in ("predicted_dice", "cases"))
    number = FEWEST if role == "validation" else len(set(cases["case"]))
    assert about["calibrated_on"] == f"{number} {role} cases"
    assert about["pairs"] == len(table) == (cases["predicted_voxels"] > 0).sum() > 0
    scored = cases.set_index(["case", "organ"])["dice"]
    for row in table.itertuples():
        assert row.dice == pytest.approx(scored[row.case, row.organ])
        assert 0 <= row.low <= row.predicted <= row.high <= 1
    held = (table["low"] <= table["dice"]) & (table["dice"] <= table["high"])
    assert about["coverage"] == pytest.approx(held.mean())
    known = calibration.find([out], files.sha256(folders["model"] / "model.safetensors"), "mean")
    assert known.calibration is not None and known.source == about["calibrated_on"]


def test_few_cases_calibrate_nothing_and_the_metrics_say_why(finished, folders):
    about = files.read_json(finished / "out" / "metrics.json")["predicted_dice"]
    assert list(about) == ["cannot_say"] and "the test cases are 2" in about["cannot_say"]
    table = pd.read_csv(finished / "out" / "predicted_dice.csv")
    assert set(table["case"]) == set(TEST_CASES) and table["expected"].between(0, 1).all()
    assert table[["predicted", "low", "high"]].isna().all(axis=None)
    weights = files.sha256(folders["model"] / "model.safetensors")
    known = calibration.find([finished / "out"], weights, "mean")
    assert known == calibration.Known(None, about["cannot_say"])


def learned_from(
    folders: dict[str, Path],
    root: Path,
    learned: Sequence[str] = tuple(TEST_CASES),
    **scan: list[float],
) -> Path:
    """The model with ranges of the cases' own slices and labels, those of `scan` changed."""
    manifest, cases = read_manifest(folders["prepared"] / "manifest.parquet"), []
    for case in learned:
        row = manifest.case(case)
        tally = Tally(len(ORGANS), row.spacing_mm)
        images, labels = ShardReader(folders["prepared"] / "shards" / row.shard).read_volume()
        for image, label in zip(images, labels, strict=True):
            tally.add(image, label)
        cases.append((tally, row.slices))
    ranges = usual.ranges(ORGANS, cases)
    shutil.copytree(folders["model"], root / "model")
    record = files.read_json(root / "model" / "model.json")
    record["usual"] = ranges | {"scan": ranges["scan"] | scan}
    files.write_json(root / "model" / "model.json", record)
    return root / "model"


def test_test_cases_unlike_training_are_told_and_recorded(
    evaluated, finished, folders, tmp_path, capsys
):
    out = evaluated(model=learned_from(folders, tmp_path, gap_mm=[99.0, 99.0]))
    told = files.read_json(out / "metrics.json")["unlike_training"]
    assert list(told) == TEST_CASES
    assert all("apart, in training 99 mm." in sentences[0] for sentences in told.values())
    # an untrained model's labels are unlike any organ
    assert any(text.startswith("liver: ") for text in told[TEST_CASES[0]])
    printed = capsys.readouterr().err
    assert "evaluate: warning: 2 of 2 test cases, or their labels, are unlike training" in printed
    assert "apart, in training 99 mm." in printed
    # a record without ranges says nothing
    assert "unlike_training" not in files.read_json(finished / "out" / "metrics.json")


def test_predicted_dice_of_labels_unlike_training_begins_at_0(many, tmp_path):
    params, folders = many
    cases = [row.case for row in read_manifest(folders["prepared"] / "manifest.parquet")]
    folders = with_roles(folders, tmp_path / "split", 1)
    plain = evaluate_into(tmp_path / "plain", params, **folders)
    learned = folders | {"model": learned_from(folders, tmp_path, cases)}
    out = evaluate_into(tmp_path / "learned", params, **learned)
    told = files.read_json(out / "metrics.json")["unlike_training"]
    named = {(case, text.split(":")[0]) for case, texts in told.items() for text in texts}
    keys = ["case", "organ"]
    both = pd.read_csv(out / "predicted_dice.csv").merge(
        pd.read_csv(plain / "predicted_dice.csv"), on=keys, suffixes=("", "_plain")
    )
    strange = pd.Series([tuple(key) in named for key in both[keys].to_numpy()])
    assert strange.any() and (both["low"][strange] == 0).all()
    assert (both["low_plain"][strange] > 0).any()
    assert (both["low"] == both["low_plain"])[~strange].all()
    assert (both["high"] == both["high_plain"]).all()


def test_damaged_ranges_of_the_training_slices_are_refused(evaluated, folders, tmp_path):
    model = learned_from(folders, tmp_path)
    record = files.read_json(model / "model.json")
    files.write_json(model / "model.json", record | {"usual": {"organs": {}}})
    with pytest.raises(UserError, match=r"model\.json: usual: expected ranges of the training"):
        evaluated(model=model)
