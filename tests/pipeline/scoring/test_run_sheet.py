"""The runs' table for papers."""

import numpy as np
import pandas as pd
import pytest

from pipeline.core import files
from pipeline.scoring.comparison import comparison
from pipeline.scoring.run_sheet import means, run_sheet
from pipeline.scoring.runs import read_runs
from pipeline.scoring.scores import SCORES
from pipeline.scoring.tables import OVERALL
from tests.pipeline.runs import ORGANS, measured, write_run


@pytest.fixture
def folders(tmp_path):
    """Runs whose predictions are 3 voxels and 1 voxel away."""
    return [
        write_run(tmp_path / name, measured(shift)) for name, shift in (("far", 3), ("near", 1))
    ]


@pytest.mark.parametrize(("name", "best"), [("dice", 2), ("hd95_mm", 2)])
def test_cells_are_the_tables_means_and_deviations_and_the_best_is_bold(folders, name, best):
    sheet = run_sheet(read_runs(folders), SCORES[name])
    assert sheet.header == ("organ", "far", "near")
    assert [row[0] for row in sheet.rows] == [*ORGANS, OVERALL]
    for column, folder in enumerate(folders, 1):
        table = pd.read_csv(folder / "organs.csv")
        table = table[(table["score"] == name) & (table["convention"] == "strict")]
        table = table.set_index("organ")
        digits = SCORES[name].digits
        for organ, *cells in sheet.rows:
            expected = table.loc[organ]
            assert (
                cells[column - 1] == f"{expected['mean']:.{digits}f} ± {expected['sd']:.{digits}f}"
            )
    assert sheet.bold == {(row, best) for row in range(len(sheet.rows))}


def test_stars_are_those_of_the_comparison_and_explained(tmp_path):
    cases = [f"c{n}" for n in range(12)]
    folders = [
        write_run(tmp_path / name, measured(shift, cases))
        for name, shift in (("far", 3), ("near", 1))
    ]
    runs = read_runs(folders)
    plain = run_sheet(runs, SCORES["dice"])
    sheet = run_sheet(runs, SCORES["dice"], comparison(runs, ["dice"]))
    assert [row[1] for row in sheet.rows] == [row[1] for row in plain.rows]
    assert [row[2] for row in sheet.rows] == [f"{row[2]}***" for row in plain.rows]
    assert sheet.notes[:-1] == plain.notes
    assert sheet.notes[-1].startswith("*** p < 0.001 against far: Wilcoxon's")


def test_the_last_mean_is_the_headline(folders):
    for run in read_runs(folders):
        headline = files.read_json(run.folder / "metrics.json")["mean_dice"]
        assert means(run, SCORES["dice"])[-1] == pytest.approx(headline)


def test_equal_runs_have_no_best_and_one_case_no_spread(tmp_path):
    folders = [write_run(tmp_path / name, measured(1, ["a"])) for name in ("x", "y")]
    sheet = run_sheet(read_runs(folders), SCORES["dice"])
    assert not sheet.bold and "±" not in "".join(sheet.rows[0])
    assert sheet.notes == ("Mean ± sd over 1 test case, convention strict.",)


def test_an_organ_that_counts_nowhere_has_a_dash(folders):
    for folder in folders:
        table = pd.read_parquet(folder / "cases.parquet")
        table.loc[table["organ"] == "liver", "dice"] = np.nan
        table.to_parquet(folder / "cases.parquet")
    sheet = run_sheet(read_runs(folders), SCORES["dice"])
    assert sheet.rows[0] == ("liver", "–", "–") and sheet.rows[2][1] == sheet.rows[1][1]
