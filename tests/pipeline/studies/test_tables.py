"""Tables of hand-made outputs, whose every number is known."""

import pandas as pd
import pytest

from pipeline.scoring.tables import OVERALL
from pipeline.studies import plan, writers
from pipeline.studies.outcomes import outcomes
from pipeline.studies.sheets import sheets
from pipeline.studies.tables import Tables, tables
from tests.pipeline.studies.conftest import PRESET, RANKS, write
from tests.pipeline.studies.outputs import RESULTS, cases_table, finish, write_outputs

REAL = PRESET | {
    "dataset": {"name": "synapse", "root": "data/raw/synapse"},
    "evaluate": {"convention": "paper"},
}
STUDY = RANKS | {
    "seeds": [1, 2, 3],
    "arms": RANKS["arms"] | {"rank-8": {"train": {"lora_rank": 8}}},
    "published": {
        "rank-1": {"dice": 75.0},
        "rank-4": {"dice": 80.35, "hd95": 15.54, "organs": {"liver": 80.5}},
    },
    "quoted": [{"method": "Other", "dice": 56.74, "note": "5 scans", "source": "table 9"}],
}
DICE = {
    "rank-1": (0.70, 0.71, 0.72),
    "rank-4": (0.79, 0.80, 0.81),
    "rank-8": (0.80, 0.81, 0.82),
}


def dice(run, case: str, organ: str) -> float:
    """The same in every case and organ, so that intervals are over seeds alone."""
    return DICE[run.arm][run.seed - 1]


@pytest.fixture
def study(workflow) -> plan.Study:
    write(workflow / "presets" / "small.yaml", REAL)
    write(workflow / "studies" / "ranks.yaml", STUDY)
    plan.load.cache_clear()
    return plan.load("ranks")[0]


def made(study: plan.Study) -> Tables:
    return tables(study, outcomes((study,), RESULTS))


def row(rows: list[dict], **wanted) -> dict:
    (found,) = [r for r in rows if all(r[key] == value for key, value in wanted.items())]
    return found


def test_an_arm_stands_beside_what_was_published(study):
    finish(study, dice)
    found = made(study)
    four = row(found.arms, row="rank-4")
    assert four["dice_mean"] == 80
    assert four["dice_sd_seeds"] == pytest.approx(1)
    assert four["dice_sd_draws"] is None
    assert (four["dice_low"], four["dice_high"], four["over"]) == (79, 81, "cases, seeds")
    assert (four["dice_published"], four["dice_difference"]) == (80.35, -0.35)
    assert four["dice_verdict"] == "reproduced"
    assert (four["hd95_voxels_mean"], four["hd95_mm_mean"]) == (2, 4)
    assert four["hd95_voxels_verdict"] == "not reproduced"
    assert four["dice_strict"] == 80
    assert (four["convention"], four["lora_rank"], four["device"]) == ("paper", "4", "CPU")
    one = row(found.arms, row="rank-1")
    assert (one["dice_difference"], one["dice_verdict"]) == (-4, "not reproduced")
    assert row(found.arms, row="rank-8")["dice_verdict"] is None
    liver = {"arm": "rank-4", "organ": "liver", "score": "dice", "headline": True}
    assert row(found.scores, **liver)["verdict"] == "reproduced"


def test_quoted_rows_name_their_source(study):
    found = made(study).arms[-1]
    assert found["kind"] == "quoted"
    assert (found["row"], found["dice_published"]) == ("Other", 56.74)
    assert (found["note"], found["source"]) == ("5 scans", "table 9")


def test_comparisons_are_corrected_over_arms(study):
    finish(study, dice)
    found = made(study).comparisons
    overall = {"convention": "paper", "organ": OVERALL, "score": "dice"}
    assert {r["arm"] for r in found} == {"rank-1", "rank-8"}
    one, eight = (row(found, arm=arm, **overall) for arm in ("rank-1", "rank-8"))
    assert (one["difference"], one["low"], one["high"]) == (-9, -9, -9)
    assert eight["difference"] == 1
    assert one["pairs"] == 3
    # the least that six cases can show, for two arms, and for two organs of two arms
    assert (one["p"], one["p_holm"]) == (2 / 2**6, 4 / 2**6)
    assert row(found, arm="rank-1", **overall | {"organ": "liver"})["p_holm"] == 8 / 2**6


def test_synthetic_volumes_have_no_verdict(workflow):
    write(workflow / "studies" / "ranks.yaml", STUDY)
    plan.load.cache_clear()
    (study,) = plan.load("ranks")
    finish(study, dice)
    found = made(study)
    four = row(found.arms, row="rank-4")
    assert (four["dice_mean"], four["dice_published"]) == (80, 80.35)
    assert four["dice_verdict"] is None and four["dice_difference"] is None
    assert found.notes[0].startswith("Synthetic")


def test_two_seeds_allow_no_verdict(study):
    two = [run for run in study.runs if run.seed < 3]
    study = plan.Study(study.name, study.on, study.file, tuple(two))
    finish(study, dice)
    four = row(made(study).arms, row="rank-4")
    assert (four["dice_verdict"], four["dice_reason"]) == ("cannot say", "fewer than 3 seeds")


def test_unfinished_arms_go_as_far_as_they_do(study):
    (run, *_) = [run for run in study.runs if run.arm == "rank-4"]
    finish(plan.Study(study.name, study.on, study.file, (run,)), dice)
    found = made(study)
    four = row(found.arms, row="rank-4")
    assert (four["dice_mean"], four["runs"], four["planned"]) == (79, 1, 3)
    assert four["dice_verdict"] == "cannot say"
    assert row(found.arms, row="rank-1")["dice_mean"] is None
    assert row(found.runs, run="rank-1/draw-7-seed-1")["state"] == "not trained yet"
    assert any("rank-4: 2 of 3 runs are to do (not trained yet)." in note for note in found.notes)
    assert any("cannot say: 2 of 3 runs are to do" in sheet for sheet in sheets(found)[0].notes)


def test_nothing_done_is_a_table_without_numbers(study):
    found = made(study)
    assert found.scores == found.comparisons == []
    assert [sheet.name for sheet in sheets(found)] == ["arms", "runs"]
    writers.write(found, RESULTS / "ranks" / "tables")


def test_files_hold_the_same_numbers(study):
    finish(study, dice)
    folder = writers.folder_of(study, RESULTS)
    writers.write(made(study), folder)
    names = {path.name for path in folder.iterdir()}
    for name in ("arms", "organs", "comparisons", "runs"):
        assert {f"{name}.{kind}" for kind in ("csv", "parquet", "md", "tex")} <= names
        read = pd.read_parquet(folder / f"{name}.parquet").map(lambda v: v if v == v else None)
        stored = pd.read_csv(folder / f"{name}.csv").astype(object)
        assert list(read) == list(stored) and len(read) == len(stored) > 0
    arms = pd.read_parquet(folder / "arms.parquet").set_index("row")
    assert arms.loc["rank-4", "dice_mean"] == 80
    lines = (folder / "arms.md").read_text().splitlines()
    assert lines[2].startswith("| arm | Dice, % |")
    assert any(line.startswith("| rank-4 | 80.00 | 1.00 | 79.00 to 81.00 |") for line in lines)
    tex = (folder / "arms.tex").read_text()
    assert r"\toprule" in tex and r"Dice, \% & " in tex and r"Other (5 scans) & " in tex
    assert "% Other: quoted from table 9." in tex
    assert r"80.00 $\pm$ 1.00" in (folder / "organs.tex").read_text()
    assert "rank-4, published" in (folder / "organs.md").read_text()


def test_sheets_of_organs_show_dice_and_hd95_and_what_strict_counting_gives(study):
    finish(study, dice)
    for run in study.runs:
        if run.arm == "rank-8":
            rows = cases_table(run, lambda *_: 0.8)
            missed = {"dice": 0.0, "hd95_voxels": 0.0, "hd95_mm": 0.0, "predicted_voxels": 0}
            write_outputs(run, [rows[0] | missed, *rows[1:]])  # case a, liver
    found = {sheet.name: sheet for sheet in sheets(made(study))}
    assert found["organs"].header == ("arm", "liver", "spleen", "mean")
    assert found["organs"].rows == (
        ("rank-1", "71.00 ± 1.00", "71.00 ± 1.00", "71.00 ± 1.00"),
        ("rank-4", "80.00 ± 1.00", "80.00 ± 1.00", "80.00 ± 1.00"),
        ("rank-4, published", "80.50", "–", "80.35"),
        ("rank-8", "66.67 ± 0.00", "80.00 ± 0.00", "73.33 ± 0.00"),
    )
    # a missed liver is at distance 0 for the paper, at the volume's diagonal when counted strictly
    assert found["organs_hd95"].rows == (
        ("rank-1", "2.90 ± 0.10", "2.90 ± 0.10", "2.90 ± 0.10"),
        ("rank-4", "2.00 ± 0.10", "2.00 ± 0.10", "2.00 ± 0.10"),
        ("rank-8", "1.67 ± 0.00", "2.00 ± 0.00", "1.83 ± 0.00"),
        ("rank-8, strict", "8.53 ± 0.00", "2.00 ± 0.00", "5.27 ± 0.00"),
    )
    assert found["organs"].sections == {1, 3} and found["organs_hd95"].sections == {1, 2}
    assert found["organs"].notes == ("Mean ± sd over seeds.",)


def test_a_single_seed_has_no_spread_to_speak_of(workflow):
    write(workflow / "presets" / "small.yaml", REAL)
    write(workflow / "studies" / "ranks.yaml", STUDY | {"seeds": [1]})
    plan.load.cache_clear()
    study = plan.load("ranks")[0]
    finish(study, dice)
    organs = next(sheet for sheet in sheets(made(study)) if sheet.name == "organs")
    assert organs.rows[0] == ("rank-1", "70.00", "70.00", "70.00") and organs.notes == ()


def test_the_same_outputs_give_the_same_bytes_in_any_order(study, tmp_path):
    finish(study, dice)
    found = outcomes((study,), RESULTS)
    for name, order in (("one", found), ("two", found[::-1])):
        writers.write(tables(study, order), tmp_path / name)
    writers.write(tables(study, found), tmp_path / "two")  # takes the place of what was there
    ones = sorted((tmp_path / "one").iterdir())
    assert [path.name for path in ones] == sorted(p.name for p in (tmp_path / "two").iterdir())
    for path in ones:
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
