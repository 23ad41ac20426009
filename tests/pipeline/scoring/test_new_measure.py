"""The drill: one more row in the table of scores, and all that follows from it."""

import math
import subprocess
import sys

import pandas as pd
import pytest

from pipeline.commands import compare
from pipeline.core import files
from pipeline.reporting.box_plots import box_plot
from pipeline.reporting.look import Look
from pipeline.scoring import tables
from pipeline.scoring.conventions import CONVENTIONS, apply_convention
from pipeline.scoring.measures import measure
from pipeline.scoring.runs import read_runs
from pipeline.scoring.scores import SCORES, Score, in_view
from tests.pipeline.masks import BOX, EMPTY, SHIFTED, SPACING
from tests.pipeline.runs import measured, write_run

NEW = Score(
    name="volume_difference_percent",
    title="relative volume difference",
    unit="%",
    digits=1,
    kind="size",
    definition="predicted minus true volume, over the true volume",
    compute=lambda pair: 100 * (pair.predicted_voxels - pair.truth_voxels) / pair.truth_voxels,
    views=("summary", "comparison", "cases", "boxes"),
)


@pytest.fixture(autouse=True)
def one_more_row(monkeypatch):
    monkeypatch.setitem(SCORES, NEW.name, NEW)


@pytest.fixture
def folders(tmp_path):
    """Two scored runs whose predictions are 3 voxels and 1 voxel away."""
    return [write_run(tmp_path / name, measured(shift)) for name, shift in (("a", 3), ("b", 1))]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_it_is_measured_and_counted_by_its_kind(convention):
    def counted(truth, prediction):
        return apply_convention(measure(truth, prediction, SPACING), convention)[NEW.name]

    assert counted(BOX, SHIFTED) == 0
    assert counted(BOX, BOX | SHIFTED) == pytest.approx(50)
    assert counted(BOX, EMPTY) == -100
    # undefined: a division by zero
    assert math.isnan(counted(EMPTY, BOX)) and math.isnan(counted(EMPTY, EMPTY))


def test_it_is_in_every_file_of_scores(folders):
    for name in ("cases.csv", "cases.parquet"):
        read = pd.read_csv if name.endswith("csv") else pd.read_parquet
        assert NEW.name in read(folders[0] / name).columns
    organs = pd.read_csv(folders[0] / "organs.csv")
    assert set(organs.loc[organs["score"] == NEW.name, "convention"]) == set(CONVENTIONS)
    metrics = files.read_json(folders[0] / "metrics.json")
    assert list(metrics[NEW.name]) == ["liver", "spleen"]
    means = [metrics, *metrics["conventions"].values()]
    assert all(f"mean_{NEW.name}" in each for each in means)


def test_it_is_in_the_table_on_the_terminal(folders, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    metrics = files.read_json(folders[0] / "metrics.json")
    tables.print_scores(metrics, "scores")
    printed = capsys.readouterr().out
    assert NEW.label in printed and f"{metrics[f'mean_{NEW.name}']:.1f} " in printed


def test_it_is_compared_and_plotted(folders, tmp_path, capsys):
    compare.run(folders, tmp_path / "out", score=NEW.name)
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert list(table["score"].unique()) == list(SCORES)
    svg = (tmp_path / "out" / f"comparison-{NEW.name}.svg").read_text()
    assert f"{NEW.label}: difference to a" in svg
    assert f"{NEW.label}: b minus a" in capsys.readouterr().out


def test_the_command_line_offers_it():
    code = f"""
from dataclasses import replace
from pipeline.scoring.scores import SCORES
SCORES["{NEW.name}"] = replace(SCORES["iou"], name="{NEW.name}")
from pipeline.cli.app import app
app(["compare", "--help"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert NEW.name in done.stdout


def test_it_has_a_box_plot(folders):
    assert NEW in in_view("boxes")
    label = box_plot(read_runs(folders), NEW, Look()).axes[0].get_ylabel()
    assert label.replace("\n", " ") == NEW.label
