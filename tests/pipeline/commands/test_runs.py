"""`hsam runs`: what there is, under its name; what goes, and what never does."""

import json
from pathlib import Path

import pytest

from pipeline.commands import runs as command
from pipeline.core import files, leftovers, locks, run_names, trainings
from pipeline.core.errors import UserError
from pipeline.core.run_folder import IMPORT, LOCK, RunFolder, open_run
from tests.pipeline.test_cli import hsam, refused

CONFIG = {"model": "hsam", "backbone": "vit_b", "image_size": 224}
SETTINGS = {"model": "hsam", "backbone": "vit_b"}
SPLIT = {"hash": "s", "roles": {"train": {"subjects": 2, "slices": 9}}}


class Place:
    """A folder with runs and results, made of the records that stages leave."""

    def __init__(self, folder: Path) -> None:
        self.runs, self.results, self.reports = (
            folder / name for name in ("runs", "results", "reports")
        )

    def work(self, stage: str, params: dict, inputs: dict, texts: dict[str, str], done=True):
        with open_run(self.runs, "phantom", stage, params, inputs, module="pipeline") as run:
            for name, text in texts.items():
                files.write_text(run.out / name, text)
            if done:
                run.finish()
            return run

    def training(self, seed: int = 1, name: str | None = None, done=True, **inputs) -> RunFolder:
        params = {"base": {"seed": seed}, "train": SETTINGS}
        inputs = {"manifest": "m", "split": "s", **inputs}
        texts = {"model.json": json.dumps({"config": CONFIG}), "model.safetensors": f"{seed}"}
        run = self.work("train", params, inputs, texts if done else {}, done)
        files.write_text(run.path / "checkpoint", "state")
        run_names.settle(run.path, "phantom-hsam", name)
        return run

    def evaluation(self, model: RunFolder, dice: float = 0.5, **params) -> RunFolder:
        names = ("model.json", "model.safetensors")
        inputs = {name: files.sha256(model.out / name) for name in names}
        texts = {"metrics.json": json.dumps({"mean_dice": dice}), "cases.parquet": ""}
        return self.work("evaluate", params, inputs, texts)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.runs.iterdir() if not path.name.startswith("."))


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(Path())


def test_trainings_are_numbered_and_keep_their_names(place):
    first, second = place.training(1), place.training(2)
    assert [run_names.of(run.path) for run in (first, second)] == [
        "phantom-hsam-1",
        "phantom-hsam-2",
    ]
    assert run_names.settle(first.path, "phantom-hsam") == "phantom-hsam-1"
    command.rename(Path("phantom-hsam-1"), "liver", place.runs)
    assert run_names.of(first.path) == "liver"
    assert run_names.of(place.training(3).path) == "phantom-hsam-1"  # free again


@pytest.mark.parametrize("data", ["Left atrium", "../../../etc", "", "x" * 300, "é", "-"])
def test_names_begin_with_any_words_for_the_data(data):
    run_names.check(run_names.stem(data, "hsam"))
    assert run_names.stem("Left atrium (MR)", "unet") == "Left-atrium-MR-unet"


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "two words", "x" * 101])
def test_what_is_no_name_is_refused(place, name):
    with pytest.raises(UserError, match="--name .*: expected up to 100 letters"):
        place.training(1, name)


def test_a_name_that_another_run_has_is_refused_and_nothing_is_left(place):
    place.training(1, "mine")
    with pytest.raises(UserError, match="--name mine: .*-train-.* has this name already"):
        place.training(2, "mine")
    second = place.training(3)
    with pytest.raises(UserError, match="has this name already"):
        command.rename(second.path, "mine", place.runs)
    assert run_names.of(second.path) == "phantom-hsam-1"


def test_the_table_has_a_row_a_run_and_the_json_what_it_says(place, capsys):
    model = place.training(1, "mine")
    place.evaluation(model, 0.4, stage="fine")
    place.evaluation(model, 0.75)
    place.training(2, done=False)
    place.work("split", {}, {}, {"split.json": json.dumps(SPLIT)})
    model.publish(place.results / "train")
    files.write_text(place.runs / "notes.txt", "of a person")
    command.show(place.runs, place.results, as_json=True)
    found = {run["name"]: run for run in json.loads(capsys.readouterr().out)}
    assert set(found) == {"mine", "phantom-hsam-1"}
    mine = found["mine"]
    about = ("state", "model", "encoder", "data", "split", "dice", "published")
    assert [mine[key] for key in about] == [
        *("finished", "hsam", "vit_b", "phantom", "9 slices of 2 subjects", 0.75),
        [str(place.results / "train")],
    ]
    assert mine["bytes"] == sum(p.stat().st_size for p in model.path.rglob("*") if p.is_file())
    other = found["phantom-hsam-1"]
    assert [other[key] for key in about[:4]] == ["unfinished", "hsam", "vit_b", "phantom"]
    assert other["dice"] is None and other["published"] == []
    command.show(place.runs, place.results, as_json=False)
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == list(command.COLUMNS)
    assert sorted(row.split()[0] for row in rows) == ["mine", "phantom-hsam-1"]
    assert any("0.7500" in row and str(model.path) in row for row in rows)


def test_an_imported_model_goes_by_its_folders_name(place):
    run = RunFolder(place.runs / "published", {"stage": IMPORT, "params": {}, "inputs": {}})
    files.write_json(run.out / "model.json", {"config": CONFIG, "data_set": "synapse"})
    files.write_text(run.out / "model.safetensors", "weights")
    run.finish()
    (found,) = command.gather(place.runs, place.results)
    about = ("name", "imported", "state", "data")
    assert [found[key] for key in about] == ["published", True, "finished", "synapse"]
    assert trainings.find_model(Path("published"), place.runs) == run.path
    with pytest.raises(UserError, match="goes by its folder's name"):
        command.rename(Path("published"), "other", place.runs)


def test_a_run_is_found_by_name_by_its_folders_and_by_its_evaluation(place):
    model = place.training(1, "mine")
    evaluation = place.evaluation(model)
    model.publish(place.results / "train")
    evaluation.publish(place.results / "evaluate")
    find = trainings.find_model
    assert find(Path("mine"), place.runs) == model.path
    for folder in (model.path, model.out, place.results, place.results / "train"):
        assert find(folder, place.runs) == folder
    assert find(place.results / "evaluate", place.runs) == place.results / "train"
    assert find(evaluation.path, place.runs) == model.path
    assert find(evaluation.out, place.runs) == model.path
    scores = trainings.find_scores
    assert scores(Path("mine"), place.runs) == evaluation.out
    assert scores(model.path, place.runs) == evaluation.out
    assert scores(place.results / "train", place.runs) == place.results / "evaluate"
    for folder in (evaluation.path, place.results, place.results / "evaluate"):
        assert scores(folder, place.runs) == folder


def test_a_run_that_cannot_be_found_is_one_sentence(place):
    model = place.training(1, "mine")
    evaluation = place.evaluation(model)
    unfinished, lone = place.training(2, "half", done=False), place.training(3, "lone")
    with pytest.raises(UserError, match="nine: no folder, and no run of that name .*did you mean"):
        trainings.find_model(Path("nine"), place.runs)
    with pytest.raises(UserError, match="runs/gone: there is no such folder; was it removed"):
        trainings.find_model(Path("runs/gone"), place.runs)
    with pytest.raises(UserError, match="half: is unfinished, so it has no scores"):
        trainings.find_scores(Path("half"), place.runs)
    with pytest.raises(UserError, match="lone: has no scores in .*`hsam evaluate --run lone`"):
        trainings.find_scores(Path("lone"), place.runs)
    command.remove([Path("lone")], place.runs, place.results, yes=True)
    files.write_text(unfinished.path / "name", "mine\n")  # as in folders that were copied together
    with pytest.raises(UserError, match="mine: .* and .* have this name; give a folder"):
        trainings.find_model(Path("mine"), place.runs)
    assert not lone.path.exists()
    model.path.rename(place.runs.parent / "elsewhere")
    with pytest.raises(UserError, match="is an evaluation, and its model is neither in"):
        trainings.find_model(evaluation.path, place.runs)


def test_what_is_removed_is_said_and_takes_its_evaluations_along(place, capsys):
    model, other = place.training(1, "mine"), place.training(2, "other")
    own, others = place.evaluation(model), place.evaluation(other)
    with pytest.raises(UserError, match="needs an answer; give --yes"):
        command.remove([Path("mine")], place.runs, place.results, yes=False)
    assert model.path.is_dir()
    capsys.readouterr()
    command.remove([Path("mine")], place.runs, place.results, yes=True)
    said = capsys.readouterr()
    assert [line.split()[2] for line in said.out.splitlines()] == ["mine", "evaluate"]
    assert said.err.startswith("runs: removed 2 folders, ")
    assert place.names() == sorted([other.path.name, others.path.name])
    assert not own.path.exists()
    assert [path for path in place.runs.iterdir() if "removed" in path.name] == []


def test_what_is_published_or_in_use_is_never_removed(place):
    model, other, free = (place.training(seed, name) for seed, name in enumerate("abc"))
    model.publish(place.results / "study" / "arm" / "train")
    release = locks.try_lock(other.path / LOCK)
    with pytest.raises(UserError) as error:
        names = [Path(name) for name in ("a", "b", "c", "nothing")]
        command.remove(names, place.runs, place.results, yes=True)
    release()
    nothing, published, busy = sorted(error.value.problems, key=lambda line: "runs" in line[:5])
    assert "no run of that name" in nothing
    assert f"is published in {place.results / 'study' / 'arm' / 'train'}" in published
    assert "a process is at work here" in busy
    assert all(run.path.is_dir() for run in (model, other, free))
    files.write_json(free.path / ".owner.json", {"host": "another"})
    with pytest.raises(UserError, match="a process is at work here"):
        command.remove([Path("c")], place.runs, place.results, yes=True)


def test_gc_removes_what_no_training_and_nothing_published_needs(place, capsys):
    best = {"best.yaml": "train: {lora_rank: 2}"}
    used = place.work("search", {"n": 1}, {"split": "s"}, best)
    place.work("search", {"n": 2}, {"split": "old"}, {"best.yaml": "{}"})
    begun = place.work("search", {"n": 3}, {"split": "s3", "manifest": "m"}, {}, done=False)
    model = place.training(1, search=files.sha256(used.out / "best.yaml"))
    kept = [used, begun, model, place.evaluation(model)]
    place.work("evaluate", {}, {"model.json": "of one", "model.safetensors": "removed"}, {})
    for name in ("s", "s3", "old"):
        run = place.work("split", {"n": name}, {}, {"split.json": json.dumps({"hash": name})})
        kept += [run] if name != "old" else []
    slices = {"manifest": "m", "split": "s3"}
    kept.append(place.work("embeddings", {}, slices, {}))  # a search that goes on reads them
    place.work("embeddings", {}, {"manifest": "m", "split": "s"}, {})
    pages = [place.work("report", {"n": n}, {}, {"report.html": f"<p>{n}"}) for n in (1, 2)]
    files.write_text(place.reports / "report.html", "<p>2")
    kept.append(pages[1])
    files.write_text(place.runs / "phantom-prepare-123" / "a.parquet", "shard")
    files.write_text(place.runs / "mine" / "notes.txt", "of a person")
    command.clean(place.runs, place.results, place.reports, yes=True)
    assert capsys.readouterr().err.startswith("runs: removed 5 folders, ")
    mine = ["mine", "phantom-prepare-123"]
    assert place.names() == sorted([*(run.path.name for run in kept), *mine])
    command.clean(place.runs, place.results, place.reports, yes=False)
    assert capsys.readouterr().err == "runs: nothing to remove\n"


def test_gc_leaves_what_is_published(place):
    search = place.work("search", {}, {"split": "x"}, {"best.yaml": "{}"})
    assert [work.path for work in leftovers.find(place.runs, place.results, place.reports)] == [
        search.path
    ]
    search.publish(place.results / "search")
    assert leftovers.find(place.runs, place.results, place.reports) == []


def test_broken_records_are_left_out(place):
    files.write_text(place.runs / "phantom-train-1" / "key.json", "{")
    files.write_text(place.runs / "phantom-train-2" / "key.json", "[]")
    assert command.gather(place.runs, place.results) == []
    assert command.gather(place.runs / "nowhere", place.results) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["runs", "remove", "x"], "runs: expected rm RUN, gc, name RUN NAME or nothing"),
        (["runs", "rm"], "runs: expected rm RUN, gc"),
        (["runs", "rm", "x", "--yes"], "x: no folder, and no run of that name in runs"),
        (["predict", "a.nii", "--run", "x", "--out", "p"], "x: no folder, and no run of that name"),
        (["compare", "x", "y"], "x: no folder, and no run of that name"),
        (["export", "--run", "runs/x", "--out", "p"], "there is no such folder; was it removed?"),
        (["train", "--name", "a/b"], "--name 'a/b': expected up to 100 letters"),
    ],
)
def test_mistakes_end_with_2_and_write_nothing(tmp_path, arguments, sentence):
    files.write_text(tmp_path / "params.yaml", "{}")
    assert sentence in refused(hsam(*arguments, cwd=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
