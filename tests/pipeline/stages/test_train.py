import csv
import json
import shutil
from pathlib import Path

import pytest

import hsam
from pipeline.core import installed, trainings
from pipeline.core.errors import UserError
from pipeline.core.params.load import overlay, validate
from pipeline.core.run_folder import read_provenance
from pipeline.shards.roles import SplitFile, read_split, write_split
from pipeline.stages import evaluate, train
from pipeline.training import session
from tests.pipeline.conftest import make_params, split_and_search

TINY = {"image_size": 32, "epochs": 2, "batch_size": 8, "validate_every": 2}


@pytest.fixture(scope="module")
def work(prepared_phantoms, phantom_params, tmp_path_factory):
    """The parameters, prepared data, and a folder with a split and an empty search; read only."""
    folder = tmp_path_factory.mktemp("train")
    dataset = phantom_params.dataset.model_dump()
    params = make_params(dataset=dataset, train=TINY, search={"trials": 0})
    split_and_search(params, prepared_phantoms, folder)
    return params, prepared_phantoms, folder


def run(work, out, **changes) -> None:
    """Publish to `out / "train"`, with the run folders in `out / "runs"`."""
    params, prepared, folder = work
    params = params.model_copy(update=changes)
    stages = [prepared, folder / "split", folder / "search"]
    train.run(params, *stages, out / "train", out / "runs", device="cpu")


@pytest.fixture(scope="module")
def trained(work, tmp_path_factory):
    """The folder of a finished training and its run folder; read only."""
    out = tmp_path_factory.mktemp("trained")
    run(work, out)
    return out


def test_a_model_is_published_that_can_be_rebuilt(trained):
    out = trained / "train"
    record = hsam.read_record(out)
    assert record["class_names"][0] == "spleen"
    assert record["intensity"]["kind"] == "window"
    assert hsam.load(out).image_size == 32
    rows = list(csv.DictReader((out / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert rows[0]["validation_dice"] == ""
    assert 0 <= float(rows[1]["validation_dice"]) <= 1


def test_a_training_has_a_name_which_another_asking_changes(work, trained, capsys):
    assert [run.name for run in trainings.models(trained / "runs")] == ["phantom-hsam-1"]
    params, prepared, folder = work
    stages = [prepared, folder / "split", folder / "search"]
    before = (trained / "train" / "provenance.json").read_bytes()
    train.run(params, *stages, trained / "train", trained / "runs", device="cpu", name="mine")
    said = capsys.readouterr().err
    assert "train: already done" in said and "train: mine, hsam of 2 epochs" in said
    assert [run.name for run in trainings.models(trained / "runs")] == ["mine"]
    assert (trained / "train" / "provenance.json").read_bytes() == before


@pytest.mark.parametrize("model", ["samed", "sam_adapter", "autosam", "unet"])
def test_a_rival_goes_the_same_way_to_its_scores(work, tmp_path, model):
    params, prepared, folder = work
    wanted = params.train.model_copy(update={"model": model, "epochs": 1})
    params = params.model_copy(update={"train": wanted})
    stages = [prepared, folder / "split"]
    out, runs = tmp_path / "train", tmp_path / "runs"
    train.run(params, *stages, folder / "search", out, runs, device="cpu")
    assert hsam.read_record(out)["config"]["model"] == model
    evaluate.run(params, *stages, out, tmp_path / "evaluate", runs, device="cpu")
    metrics = json.loads((tmp_path / "evaluate" / "metrics.json").read_text())
    assert 0 <= metrics["mean_dice"] <= 1


def test_two_devices_have_the_losses_of_one(work, tmp_path):
    params, prepared, folder = work
    losses = {}
    for devices in (1, 2):
        changes = {"model": "samed", "devices": devices, "learning_rate": 1e-4}
        wanted = params.model_copy(update={"train": params.train.model_copy(update=changes)})
        stages = [prepared, folder / "split", folder / "search"]
        out = tmp_path / f"on {devices}"
        train.run(wanted, *stages, out, tmp_path / "runs", device="cpu")
        rows = csv.DictReader((out / "history.csv").open())
        losses[devices] = [float(row["train_loss"]) for row in rows]
    assert len(losses[2]) == 2
    assert losses[2] == pytest.approx(losses[1], rel=2e-3)


def test_validations_are_published_organ_by_organ(trained):
    rows = list(csv.DictReader((trained / "train" / "validation.csv").open()))
    assert {row["epoch"] for row in rows} == {"1"}
    assert "spleen" in {row["organ"] for row in rows}
    curve = trained / "train" / "dvclive" / "plots" / "metrics" / "validation" / "spleen.tsv"
    assert curve.read_text().splitlines()[0] == "step\tspleen"


def test_tensorboard_is_told_the_same_and_changes_nothing(work, trained, tmp_path, capsys):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    watched = work[0].train.model_copy(update={"tensorboard": True})
    run(work, tmp_path, train=watched)
    (folder,) = (tmp_path / "runs").glob("*-train-*")
    assert (trained / "runs" / folder.name).is_dir()  # the same parameters, as far as results go
    assert f"tensorboard --logdir {folder}" in capsys.readouterr().err
    for name in ("model.safetensors", "model.json", "history.csv", "provenance.json"):
        assert (tmp_path / "train" / name).read_bytes() == (trained / "train" / name).read_bytes()
    assert not list((tmp_path / "train").glob("**/*tfevents*"))
    found = events.EventAccumulator(str(folder / "tensorboard")).Reload()
    history = list(csv.DictReader((tmp_path / "train" / "history.csv").open()))
    for column in ("train_loss", "learning_rate", "validation_dice"):
        told = [(event.step, event.value) for event in found.Scalars(column)]
        rows = [row for row in history if row[column]]
        assert [step for step, _ in told] == [int(row["epoch"]) for row in rows]
        assert [value for _, value in told] == pytest.approx([float(row[column]) for row in rows])
    assert "validation/right kidney" in found.Tags()["scalars"]


def test_without_tensorboard_a_training_that_wants_it_is_refused(work, tmp_path, monkeypatch):
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    watched = work[0].train.model_copy(update={"tensorboard": True})
    with pytest.raises(
        UserError, match=r"train.tensorboard: needs .*'hsam\[tensorboard\]'` brings"
    ):
        run(work, tmp_path, train=watched)
    assert not (tmp_path / "train").exists()


def test_best_and_last_stay_in_the_run_folder_and_checkpoints_do_not(trained):
    (folder,) = (trained / "runs").glob("*-train-*")
    for name in ("best", "last"):
        assert hsam.load(folder / name).image_size == 32
    last = (folder / "last" / "model.safetensors").read_bytes()
    assert (trained / "train" / "model.safetensors").read_bytes() == last
    assert not list(folder.glob("checkpoint*"))


def test_a_second_run_trains_nothing(work, trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(session, "fit", lambda *a, **k: pytest.fail("trained again"))
    run(work, tmp_path)


def test_a_training_starts_from_an_earlier_run(work, trained, tmp_path, capsys):
    params, prepared, folder = work
    stages = [prepared, folder / "split", folder / "search"]
    trained = shutil.copytree(trained, tmp_path / "trained")

    def begin(start: str, out: Path) -> float:
        settings = params.train.model_copy(update={"start": start, "epochs": 1})
        wanted = params.model_copy(update={"train": settings})
        train.run(wanted, *stages, out, trained / "runs", device="cpu")
        return float(next(csv.DictReader((out / "history.csv").open()))["train_loss"])

    first = float(next(csv.DictReader((trained / "train" / "history.csv").open()))["train_loss"])
    assert begin(str(trained / "train"), tmp_path / "train") < first
    said = capsys.readouterr().err
    assert "start" in said and "trained tensors" in said
    assert "start" in read_provenance(tmp_path / "train")["inputs"]
    with pytest.raises(UserError, match="where this training's own model goes"):
        begin(str(trained / "train"), trained / "train")
    with pytest.raises(UserError, match="train.start: nobody: no folder, and no run of that name"):
        begin("nobody", tmp_path / "train")


def test_another_training_says_that_it_replaces_the_first(work, trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    run(work, tmp_path)
    assert "holds another run" not in capsys.readouterr().err
    params = work[0]
    run(work, tmp_path, train=params.train.model_copy(update={"epochs": 1}))
    said = capsys.readouterr().err
    assert f"train: {tmp_path / 'train'} holds another run, with other train.epochs; " in said
    assert len(list((tmp_path / "runs").glob("*-train-*"))) == 2


def test_the_overlay_of_the_search_is_laid_over_the_parameters(work, tmp_path):
    path = tmp_path / "best.yaml"
    path.write_text('{"train": {"lora_rank": 8}}')
    assert train.with_overlay(work[0], path).train.lora_rank == 8
    path.write_text('{"train": {"lora_rank": -8}}')
    with pytest.raises(UserError, match="best.yaml: train.lora_rank"):
        train.with_overlay(work[0], path)


def test_a_missing_search_is_no_search(work, trained, tmp_path, capsys):
    params, prepared, folder = work
    shutil.copytree(trained / "runs", tmp_path / "runs")
    stages = [prepared, folder / "split", tmp_path / "none", tmp_path / "train", tmp_path / "runs"]
    train.run(params, *stages, device="cpu")
    said = capsys.readouterr().err
    assert "train: already done" in said and "next: hsam evaluate" in said
    wanted = params.model_copy(update={"search": params.search.model_copy(update={"trials": 2})})
    shutil.rmtree(tmp_path / "runs")
    train.run(wanted, *stages, device="cpu")
    assert "train: no search in" in capsys.readouterr().err


def other_split(work, tmp_path, change) -> Path:
    """The folder of a split whose roles are changed."""
    found = read_split(work[2] / "split" / "split.parquet")
    roles = {key: change(key, role) for key, role in found.roles.items()}
    write_split(tmp_path / "split" / "split.parquet", SplitFile(found.name, roles))
    return tmp_path / "split"


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_split_without_validation_slices_is_refused(work, tmp_path, keep):
    params, prepared, folder = work
    split = other_split(work, tmp_path, lambda _, role: "unused" if role == "validation" else role)
    stages = [prepared, split, folder / "search", tmp_path / "train", tmp_path / "runs"]
    wanted = params.train.model_copy(update={"keep": keep})
    with pytest.raises(UserError, match="train.validate_every: .* has no validation slices"):
        train.run(params.model_copy(update={"train": wanted}), *stages, device="cpu")
    assert not (tmp_path / "train").exists()


def test_an_organ_that_no_training_slice_shows_stands_in_the_table(work, tmp_path, capsys):
    params, prepared, folder = work
    split = other_split(
        work,
        tmp_path,
        lambda key, role: role if role != "train" or key[1] < 3 else "unused",
    )
    stages = [prepared, split, folder / "search", tmp_path / "train", tmp_path / "runs"]
    wanted = params.train.model_copy(update={"epochs": 1, "validate_every": 0})
    train.run(params.model_copy(update={"train": wanted}), *stages, device="cpu")
    assert "train: warning: no training slice shows " in capsys.readouterr().err


def test_seeds_of_a_training_on_one_split(work, tmp_path):
    params, prepared, folder = work
    weights = []
    for block, seed in (("train", 1), ("train", 2), ("base", 1)):
        changes = {"train": {"epochs": 1, "validate_every": 0}}
        changes = overlay(changes, {block: {"seed": seed}})
        wanted = validate(overlay(params.model_dump(mode="json"), changes), "")
        stages = [prepared, folder / "split", folder / "search", tmp_path / "train"]
        train.run(wanted, *stages, tmp_path / "runs", device="cpu")
        weights.append((tmp_path / "train" / "model.safetensors").read_bytes())
    assert weights[0] == weights[2] != weights[1]


def test_a_missing_sam_file_is_described(work, tmp_path):
    wanted = work[0].train.model_copy(
        update={"backbone": "vit_b", "sam_checkpoint": "none.pth", "train_encoder": False}
    )
    with pytest.raises(UserError, match=r"375,042,383 bytes, SHA-256 ec2df627"):
        run(work, tmp_path, train=wanted)


def test_inputs_that_are_not_there_are_named(work, tmp_path):
    params, prepared, folder = work
    with pytest.raises(UserError, match="run the prepare stage first"):
        run((params, tmp_path, folder), tmp_path)
    assert not (tmp_path / "train").exists()


def test_models_kept_on_the_way_are_audited(work, tmp_path, monkeypatch, capsys):
    """Scored at every share of the epochs; the last one as the published model is."""
    params, prepared, folder = work
    wanted = params.train.model_copy(update={"epochs": 3, "snapshots": 2, "validate_every": 1})
    run(work, tmp_path, train=wanted)
    kept = sorted(path.name for path in (tmp_path / "train" / "snapshots").iterdir())
    assert kept == ["epoch-00002", "epoch-00003"]
    block = params.evaluate.model_copy(update={"audit": True})
    stages = [prepared, folder / "split", tmp_path / "train"]
    places = [*stages, tmp_path / "evaluate", tmp_path / "runs"]
    evaluate.run(params.model_copy(update={"evaluate": block}), *places, device="cpu")
    metrics = json.loads((tmp_path / "evaluate" / "metrics.json").read_text())
    rows = list(csv.DictReader((tmp_path / "evaluate" / "audit.csv").open()))
    assert [row["epoch"] for row in rows] == ["2", "3"]
    history = list(csv.DictReader((tmp_path / "train" / "history.csv").open()))
    assert rows[0]["validation_dice"] == history[1]["validation_dice"]
    assert float(rows[1]["test_dice"]) == pytest.approx(metrics["mean_dice"], abs=1e-9)
    assert metrics["audit"]["last"] == pytest.approx(metrics["mean_dice"], abs=1e-9)
    assert "chosen on the test cases, which is no result" in capsys.readouterr().err
