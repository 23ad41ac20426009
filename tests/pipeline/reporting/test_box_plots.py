"""Box plots: stars, their meaning, means."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pipeline.reporting.box_plots import box_plot
from pipeline.reporting.look import Look
from pipeline.scoring.comparison import comparison
from pipeline.scoring.runs import read_runs
from pipeline.scoring.scores import SCORES
from pipeline.scoring.tables import OVERALL
from tests.pipeline.runs import CASES, ORGANS, measured, write_run


def drawn(folder, shifts, cases=CASES, look=None):
    """The box plot of runs whose predictions are so many voxels away, and `comparison`'s rows."""
    folders = [write_run(folder / name, measured(n, cases)) for name, n in shifts.items()]
    runs = read_runs(folders)
    rows = comparison(runs, ["dice"])
    return box_plot(runs, SCORES["dice"], look or Look(), rows), rows


def stars(figure) -> list[str]:
    return [text.get_text().replace("\n", "") for text in figure.axes[0].texts]


def note(figure) -> str:
    return figure.get_supxlabel().replace("\n", " ")


def test_stars_are_those_of_the_corrected_p_and_explained(tmp_path):
    figure, rows = drawn(tmp_path, {"far": 3, "near": 1, "same": 3})
    p = {(row["run"], row["organ"]): row["p_holm"] for row in rows}
    # six cases of one sign: p is 0.03, twice that with two organs
    assert p["near", "liver"] > 0.05 > p["near", OVERALL] > 0.01
    assert stars(figure) == ["*"]
    (star,) = figure.axes[0].texts
    assert star.xy[0] == pytest.approx(len(ORGANS))  # the mean over organs, the middle run
    text = note(figure)
    assert "* p < 0.05 against far: Wilcoxon" in text and "**" not in text
    assert "So few cases can't show it for a single organ." in text


def test_surer_differences_have_more_stars(tmp_path):
    cases = [f"c{n}" for n in range(12)]
    figure, _ = drawn(tmp_path, {"far": 3, "near": 1}, cases)
    assert stars(figure) == ["***"] * 3
    assert "*** p < 0.001 against far" in note(figure) and "So few" not in note(figure)


def test_too_few_cases_for_any_star(tmp_path):
    figure, _ = drawn(tmp_path, {"far": 3, "near": 1}, CASES[:3])
    assert stars(figure) == []
    assert "So few cases can't show a difference at p < 0.05" in note(figure)


def test_a_run_alone_has_its_mean_and_nothing_of_significance(tmp_path):
    figure, _ = drawn(tmp_path, {"near": 1})
    (run,) = read_runs([tmp_path / "near"])
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [f"near, mean {run.metrics['mean_dice']:.3f}"]
    assert "p <" not in note(figure)
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == [*ORGANS, OVERALL]


def test_stars_lie_above_all_cases_and_within_the_axes(tmp_path):
    cases = [f"c{n}" for n in range(12)]
    figure, _ = drawn(tmp_path, {"far": 3, "near": 1}, cases, Look(width_mm=85, font_pt=10))
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    for star in axes.texts:
        box = star.get_window_extent()
        assert box.y1 <= axes.bbox.y1 + 1 and box.y0 >= axes.transData.transform(star.xy)[1]
    boxes = [text.get_window_extent() for text in figure.legends[0].get_texts()]
    boxes.append(figure._supxlabel.get_window_extent())
    assert all(box.x0 >= -1 and box.x1 <= figure.bbox.width + 1 for box in boxes)


@pytest.mark.parametrize("name", ["dice", "nsd_2mm", "hd95_mm"])
def test_no_tick_stands_where_there_can_be_no_score(tmp_path, name):
    folders = [write_run(tmp_path / str(shift), measured(shift)) for shift in (0, 1, 9)]
    axes = box_plot(read_runs(folders), SCORES[name], Look()).axes[0]
    low, high = axes.get_ylim()
    assert len([tick for tick in axes.get_yticks() if low <= tick <= high]) > 2
    if SCORES[name].kind == "overlap":
        assert -0.1 < low < high and high > 1 > min(axes.get_yticks()) > -1e-6
        assert max(axes.get_yticks()) == pytest.approx(1)
