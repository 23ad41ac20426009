"""Arms of predictions that another tool made: planned, scored as models are, in every table."""

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pipeline.commands import export_nnunet, score, score_predictions
from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.reporting.study_table import main_table
from pipeline.scoring.scores import SCORES
from pipeline.stages import split
from pipeline.studies import plan
from pipeline.studies.fanout import Fanout
from pipeline.studies.outcomes import outcomes
from pipeline.studies.plan import Run, Study
from pipeline.studies.sheets import sheets
from pipeline.studies.tables import tables
from tests.pipeline.conftest import save_nifti
from tests.pipeline.studies.conftest import RANKS, write
from tests.pipeline.test_cli import hsam, refused

RESULTS, FOLDER = Path("results"), "tool/{study}/draw-{draw}"
SPLIT = {"test": 0.4, "validation": 0.0, "slices": 0.5}


def plan_of(workflow: Path, arm: dict, **changes) -> Study:
    """The study of the ranks with one more arm."""
    content = RANKS | {"arms": {**RANKS["arms"], "tool": arm}, "draws": [7, 8]} | changes
    write(workflow / "studies" / "rivals.yaml", content)
    plan.load.cache_clear()
    return plan.load("rivals")[0]


def of_tool(study: Study) -> list[Run]:
    return [run for run in study.runs if run.arm == "tool"]


@pytest.mark.parametrize(
    ("folder", "runs"),
    [
        ("tool", ["draw-7-seed-1"]),
        ("tool/{seed}", ["draw-7-seed-1", "draw-7-seed-2"]),
        ("tool/{draw}", ["draw-7-seed-1", "draw-8-seed-1"]),
    ],
)
def test_predictions_have_the_runs_that_their_folder_tells_apart(workflow, folder, runs):
    found = of_tool(plan_of(workflow, {"predictions": folder}))
    assert [run.name for run in found] == [f"tool/{run}" for run in runs]
    assert [str(run.predictions) for run in found] == [
        folder.format(draw=run.draw, seed=run.seed) for run in found
    ]
    assert len({run.work for run in found}) == len(runs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictions": "x", "train": {"epochs": 3}}, "predictions alone, which are scored, or"),
        ({"predictions": "x/{case}"}, r"\{case\} is unknown; there are \{study\} \{draw\}"),
        ({"predictions": "x/{"}, "what a name may hold in braces is"),
        ({"predictions": 7}, "7: expected the path of a folder"),
    ],
    ids=str,
)
def test_what_names_no_predictions_is_refused(workflow, change, message):
    with pytest.raises(UserError, match=rf"rivals\.yaml: arms\.tool.*{message}"):
        plan_of(workflow, change)


def test_the_twin_has_predictions_of_its_own_or_none(workflow):
    twin = {"phantoms": {"arms": {"tool": {"predictions": "small"}}}}
    plan_of(workflow, {"predictions": "large"}, **twin)
    (small,) = of_tool(plan.load("rivals", ("phantoms",))[0])
    assert str(small.predictions) == "small"
    with pytest.raises(UserError, match=r"phantoms\.arms\.tool"):
        plan_of(workflow, {"train": {"epochs": 2}}, **twin)


@pytest.fixture
def scored(workflow, phantom_params, prepared_phantoms) -> tuple[Run, Path]:
    """A run of predictions that equal the truth, exported and not yet scored; its raw data set."""
    dataset = phantom_params.dataset.model_dump(mode="json")
    (run,) = of_tool(
        plan_of(
            workflow,
            {"predictions": FOLDER},
            draws=[7],
            params={"dataset": dataset, "split": SPLIT, "train": {"validate_every": 0}},
        )
    )
    places = run.places(RESULTS)
    shutil.copytree(prepared_phantoms, places["prepare"])
    split.run(run.params, places["prepare"], places["split"], Path("runs"))
    export_nnunet.run(run.params, places["prepare"], places["split"], Path("nn"))
    raw = Path("nn/nnUNet_raw/Dataset501_phantom")
    shutil.copytree(raw / "labelsTs", run.predictions)
    shutil.copyfile(raw / "dataset.json", run.predictions / "dataset.json")
    return run, raw


def score_run(run: Run) -> None:
    places = run.places(RESULTS)
    inputs = places["prepare"], places["split"], run.predictions, places["evaluate"]
    score_predictions.run(run.params, *inputs)


def shift(folder: Path) -> None:
    """Predictions that are a voxel off along each axis, the gallbladder missed."""
    for path in folder.glob("*.nii.gz"):
        image = nib.load(path)
        moved = np.roll(np.asarray(image.dataobj), (1, 1, 1), (0, 1, 2))
        save_nifti(path, np.where(moved == 4, 0, moved), image.affine)


def test_the_truth_scores_100_and_is_a_row_of_the_study(workflow, scored):
    run, _ = scored
    study = plan.load("rivals")[0]
    assert "waits for" not in hsam("study", "rivals", cwd=workflow.parent).stdout
    done = hsam("evaluate", "--study", f"rivals/{run.name}", cwd=workflow.parent)
    assert (done.returncode, done.stderr.count("warning")) == (0, 0)
    found = tables(study, outcomes((study,), RESULTS))
    row = next(row for row in found.arms if row["row"] == "tool")
    assert (row["dice_mean"], row["hd95_mm_mean"], row["runs"]) == (100.0, 0.0, 1)
    assert (row["model"], row["backbone"], row["test_cases"]) == ("another tool", None, "2")
    cells = {sheet.name: sheet for sheet in sheets(found)}["arms"].rows
    assert [cell[-1] for cell in cells] == ["0/2", "0/2", "1/1"]
    shown = {row["cells"][0]["text"]: row["cells"][1]["text"] for row in main_table(found)["rows"]}
    assert shown == {"rank-1": "1", "rank-4": "4", "tool": "–"}  # the arms' LoRA rank
    text = hsam("study", "rivals", cwd=workflow.parent).stdout
    assert [line.split() for line in text.splitlines() if line.strip().startswith("tool")] == [
        ["tool", "1", "1", "1", "–", "1"]
    ]


def test_scores_are_those_of_hsam_score(workflow, scored):
    run, raw = scored
    shift(run.predictions)
    score_run(run)
    score.run(raw / "labelsTs", run.predictions, Path(run.predictions / "dataset.json"), Path("s"))
    mine = pd.read_csv(run.places(RESULTS)["evaluate"] / "cases.csv")
    other = pd.read_csv("s/cases.csv")
    assert 0 < mine["dice"].mean() < 0.9
    columns = ["case", "organ", *SCORES]
    pd.testing.assert_frame_equal(mine[columns], other[columns])


def test_labels_may_be_other_numbers_where_dataset_json_says_so(workflow, scored):
    run, _ = scored
    for path in run.predictions.glob("*.nii.gz"):
        image = nib.load(path)
        labels = np.asarray(image.dataobj)
        save_nifti(path, np.where(labels > 0, 10 - labels, 0).astype(np.uint8), image.affine)
    described = run.predictions / "dataset.json"
    about = files.read_json(described)
    organs = {name: label for name, label in about["labels"].items() if name != "ignore"}
    turned = {name: 10 - label if label else 0 for name, label in organs.items()}
    files.write_json(described, about | {"labels": turned})
    score_run(run)
    assert files.read_json(run.places(RESULTS)["evaluate"] / "metrics.json")["mean_dice"] == 1.0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: next(folder.glob("*.nii.gz")).unlink(), "no prediction for 1 of 2 cases"),
        (lambda folder: shutil.rmtree(folder), "there is no such folder of label volumes"),
        (
            lambda folder: [save_nifti(p, np.zeros((4, 4, 4), "u1")) for p in folder.glob("*.gz")],
            "expected the grid of the case's image",
        ),
        (
            lambda folder: files.write_json(
                folder / "dataset.json", {"labels": {"liver": 1}, "hsam": {}}
            ),
            "expected the organs spleen, right kidney",
        ),
        (
            lambda folder: files.write_json(
                folder / "dataset.json",
                files.read_json(folder / "dataset.json") | {"hsam": {"split": "f" * 64}},
            ),
            "learned from the split ffffffffffff, the run's is",
        ),
    ],
    ids=["case", "folder", "grid", "organs", "split"],
)
def test_what_cannot_be_scored_is_refused_and_nothing_is_written(workflow, scored, spoil, message):
    run, _ = scored
    spoil(run.predictions)
    with pytest.raises(UserError, match=message):
        score_run(run)
    assert not run.places(RESULTS)["evaluate"].exists()


def test_a_run_of_predictions_is_to_do_while_others_are_there(workflow, scored):
    run, _ = scored

    def missing() -> str | None:
        study = replace(plan.load("rivals")[0], runs=(run,))
        return outcomes((study,), RESULTS)[0].missing

    assert missing() == "not scored yet"
    score_run(run)
    assert missing() is None
    shift(run.predictions)
    assert missing() == "its predictions are others than those that were scored"
    shutil.rmtree(run.predictions)
    assert missing() == f"there is no folder {run.predictions}"
    text = hsam("study", "rivals", cwd=workflow.parent).stdout
    assert f"{run.name}: waits for predictions in {run.predictions} (docs/rivals.md)" in text


def test_predictions_without_a_split_say_so(workflow, scored, capsys):
    run, _ = scored
    (run.predictions / "dataset.json").unlink()
    score_run(run)
    words = "doesn't say which split it was learned from"
    assert words in " ".join(capsys.readouterr().err.split())
    study = replace(plan.load("rivals")[0], runs=(run,))
    (outcome,) = outcomes((study,), RESULTS)
    assert outcome.facts is not None and words in outcome.facts.caution


def test_an_export_prints_where_the_study_looks_for_predictions(workflow, scored):
    run, raw = scored
    done = hsam("export-nnunet", "nn", "--study", f"rivals/{run.name}", cwd=workflow.parent)
    predict, evaluate = done.stdout.splitlines()[-2:]
    assert predict.split()[-4:] == ["-i", f"{raw}/imagesTs", "-o", str(run.predictions)]
    assert evaluate.split() == ["hsam", "evaluate", "--study", f"rivals/{run.name}"]


def test_what_snakemake_asks_of_it(workflow, scored):
    run, _ = scored
    fanout = Fanout(())
    places, page = run.places(RESULTS), fanout.report_inputs("rivals")
    assert fanout.inputs("evaluate", run) == [
        f"{places['prepare']}/manifest.parquet",
        f"{places['split']}/split.parquet",
        *(str(path) for path in sorted(run.predictions.iterdir())),
    ]
    assert (
        fanout.command("evaluate", run, jobs=1, gpus=0)
        == f"hsam evaluate --study rivals/{run.name}"
    )
    assert fanout.gpus("evaluate", run) == 0
    own = [path for path in page if "/tool/" in path]
    assert own == [f"{places['evaluate']}/metrics.json"]
    shutil.rmtree(run.predictions)
    assert fanout.report_inputs("rivals") == [path for path in page if path not in own]
    with pytest.raises(UserError, match=rf"{run.name}: .*no predictions there; docs/rivals\.md"):
        fanout.inputs("evaluate", run)


@pytest.mark.parametrize("command", ["train", "search"])
def test_it_is_never_trained(workflow, command):
    plan_of(workflow, {"predictions": "tool"})
    message = refused(hsam(command, "--study", "rivals/tool/draw-7-seed-1", cwd=workflow.parent))
    assert "is scored from tool and never trained" in message
