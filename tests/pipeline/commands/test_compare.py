import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.commands import compare
from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.scoring.comparison import comparison
from pipeline.scoring.runs import read_runs
from pipeline.scoring.tables import OVERALL
from tests.pipeline.runs import CASES, ORGANS, measured, write_run
from tests.pipeline.test_cli import hsam, refused


@pytest.fixture
def folders(tmp_path):
    """Runs whose predictions are 3, 1 and 3 voxels away."""
    shifts = {"far": 3, "near": 1, "same": 3}
    return [write_run(tmp_path / name, measured(shift)) for name, shift in shifts.items()]


def by_organ(folders, run: str, score: str) -> dict[str, dict]:
    rows = comparison(read_runs(folders))
    return {r["organ"]: r for r in rows if (r["run"], r["score"]) == (run, score)}


def test_differences_are_paired_by_case(folders, tmp_path):
    found = by_organ(folders, "near", "dice")
    assert list(found) == [*ORGANS, OVERALL]
    tables = [pd.read_csv(folder / "cases.csv") for folder in folders[:2]]
    # the order of rows must not matter
    shuffled = tables[1].sample(frac=1, random_state=0)
    shuffled.to_parquet(folders[1] / "cases.parquet")
    for organ in ORGANS:
        first, other = (
            table[table["organ"] == organ].set_index("case").loc[CASES, "dice"] for table in tables
        )
        row = by_organ(folders, "near", "dice")[organ]
        assert row["difference"] == pytest.approx((other - first).mean())
        assert row["low"] < row["difference"] < row["high"] and row["low"] > 0
        assert row["p"] == pytest.approx(2 / 2**6)  # exact: all six have one sign
        assert row["cases"] == 6
    assert found[OVERALL]["difference"] == pytest.approx(
        np.mean([found[organ]["difference"] for organ in ORGANS])
    )
    assert found["liver"]["p_holm"] == pytest.approx(4 / 2**6)
    assert found[OVERALL]["p_holm"] == found[OVERALL]["p"]


def test_a_run_does_not_differ_from_its_like(folders):
    for row in by_organ(folders, "same", "hd95_mm").values():
        assert (row["difference"], row["low"], row["high"], row["p"]) == (0, 0, 0, 1)


def test_what_is_written_and_printed(folders, tmp_path, capsys):
    compare.run(folders, tmp_path / "out", score="assd_mm")
    names = [f"comparison-assd_mm.{form}" for form in ("pdf", "png", "svg")] + ["comparison.csv"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert len(table) == 2 * 11 * 3
    assert Image.open(tmp_path / "out" / names[1]).width > 600
    assert ">liver</text>" in (tmp_path / "out" / names[2]).read_text()
    printed = capsys.readouterr().out
    row = table.query("run == 'near' and score == 'dice' and organ == 'liver'").iloc[0]
    assert f"{row['difference']:+.3f}" in printed and "Dice: near minus far" in printed


def test_tolerances_below_the_voxel_size_are_marked(folders, tmp_path, capsys):
    compare.run(folders, tmp_path / "out", score="nsd_2mm")
    printed = " ".join(capsys.readouterr().out.split())
    sentence = "warning: NSD at 1 mm (in 6 of 6 cases), NSD at 2 mm (in 6 of 6 cases): the"
    assert printed.count(sentence) == 1  # of runs on one grid
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert set(table.loc[table["below_voxel"], "score"]) == {"nsd_1mm", "nsd_2mm"}
    svg = (tmp_path / "out" / "comparison-nsd_2mm.svg").read_text()
    assert "NSD at 2 mm (below voxel size): difference to far" in svg


def test_runs_whose_encoder_may_have_seen_test_images_are_named(folders, tmp_path, capsys):
    path = folders[1] / "metrics.json"
    before = {"trained_on": "scans", "may_include_test": True}
    files.write_json(path, files.read_json(path) | {"pretraining": before})
    compare.run(folders, tmp_path / "out")
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("may be among these") == 1
    assert "warning: near: the encoder's weights were trained on scans; test images" in printed


def test_few_cases_are_shown_one_by_one_with_what_they_can_show(tmp_path, capsys):
    folders = [write_run(tmp_path / str(n), measured(n, CASES[:3])) for n in (3, 1)]
    compare.run(folders, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    row = table.query("score == 'dice' and organ == 'liver'").iloc[0]
    assert math.isnan(row["low"]) and math.isnan(row["high"])
    first, other = (
        pd.read_csv(folder / "cases.csv").query("organ == 'liver'")["dice"] for folder in folders
    )
    assert row["values"] == ", ".join(f"{value:+.3f}" for value in sorted(other - first))
    assert row["p"] == row["p_smallest"] == 0.25
    printed = " ".join(capsys.readouterr().out.split())
    assert "With 3 cases p can't be below 0.25" in printed
    assert "so few can't show a difference at p <= 0.05" in printed


def test_the_same_scores_give_the_same_files(folders, tmp_path):
    for name in ("one", "two"):
        compare.run(folders, tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_other_test_cases_are_refused_and_named(folders, tmp_path):
    cases = [*CASES[1:], "x", "y"]
    other = write_run(tmp_path / "other", measured(1, cases))
    with pytest.raises(UserError) as error:
        read_runs([folders[0], other])
    (problem,) = error.value.problems
    assert "only far has a; only other has x, y" in problem


def test_other_conventions_and_truths_are_refused(folders, tmp_path):
    paper = write_run(tmp_path / "paper", measured(1), "paper")
    with pytest.raises(UserError, match="convention strict .* found paper"):
        read_runs([folders[0], paper])
    table = pd.read_parquet(folders[1] / "cases.parquet")
    table.loc[table["case"] == "b", "truth_voxels"] += 1
    table.to_parquet(folders[1] / "cases.parquet")
    with pytest.raises(UserError, match="other sizes in b;"):
        read_runs(folders)


def test_folders_without_scores_are_all_named(folders, tmp_path):
    with pytest.raises(UserError) as error:
        read_runs([tmp_path / "x", folders[0], tmp_path / "y"])
    assert len(error.value.problems) == 2


def test_scores_of_another_version_are_refused_by_what_they_lack(folders, tmp_path):
    metrics = files.read_json(folders[1] / "metrics.json")
    del metrics["convention"]
    files.write_json(folders[1] / "metrics.json", metrics)
    (folders[2] / "metrics.json").write_text("[")
    with pytest.raises(UserError) as error:
        read_runs(folders)
    lacking, damaged = error.value.problems
    assert "near/metrics.json: no convention; evaluate the run again" in lacking
    assert "same/metrics.json: damaged (" in damaged


@pytest.mark.parametrize("place", ["evaluate", "out", "results/evaluate"])
def test_scores_are_found_where_a_run_keeps_them(tmp_path, place):
    write_run(tmp_path / "run" / place, measured(1))
    (run,) = read_runs([tmp_path / "run"])
    assert (run.name, run.case_ids, run.organs) == ("run", CASES, ORGANS)


def test_names(folders, tmp_path):
    assert [run.name for run in read_runs(folders, ["A", "B", "C"])] == ["A", "B", "C"]
    with pytest.raises(UserError, match="one for each of 3 runs"):
        read_runs(folders, ["A"])
    twins = [write_run(tmp_path / name / "same", measured(1)) for name in ("one", "two")]
    assert [run.name for run in read_runs(twins)] == [str(folder) for folder in twins]


def test_the_command(folders, tmp_path):
    done = hsam("compare", *map(str, folders[:2]), "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "comparison-dice.svg").is_file()
    assert "two runs or more" in refused(hsam("compare", str(folders[0]), cwd=tmp_path))
    message = refused(hsam("compare", *map(str, folders), "--score", "dize", cwd=tmp_path))
    assert "'dize' is not one of 'dice', 'iou'" in message
