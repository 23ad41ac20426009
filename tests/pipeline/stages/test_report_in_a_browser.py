"""The report as people use it, in headless Chromium."""

from pathlib import Path

import nibabel as nib
import pandas as pd
import pytest

from pipeline.reporting.inputs import ReportFolders
from pipeline.stages import evaluate, report
from tests.pipeline.pages import (
    address_has,
    becomes,
    check_by_keyboard,
    check_on_paper,
    check_on_screen,
    opened,
    painted,
    panes,
    part,
    shows,
    stage_has_focus,
    titles,
)


@pytest.fixture(scope="module")
def address(run_params, run_results, tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("page")
    report.run(run_params, ReportFolders.find(run_results), root / "reports", root / "runs")
    return (root / "reports/report.html").as_uri()


@pytest.fixture(scope="module")
def other(run_params, run_results, tmp_path_factory) -> Path:
    """An evaluation of the coarse stage alone: another run on the same cases."""
    root = tmp_path_factory.mktemp("other")
    stage = run_params.evaluate.model_copy(update={"stage": "coarse"})
    folders = [run_results / name for name in ("prepare", "split", "train")]
    changed = run_params.model_copy(update={"evaluate": stage})
    evaluate.run(changed, *folders, root / "coarse" / "evaluate", root / "runs", device="cpu")
    return root / "coarse" / "evaluate"


@pytest.fixture(scope="module")
def beside_address(run_params, run_results, other, tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("beside")
    block = run_params.report.model_copy(update={"beside": str(other)})
    params = run_params.model_copy(update={"report": block})
    report.run(params, ReportFolders.find(run_results), root / "reports", root / "runs")
    return (root / "reports/report.html").as_uri()


@pytest.fixture
def page(chromium, address):
    """The opened report; what its scripts complain of fails the test."""
    yield from opened(chromium, address)


@pytest.fixture
def beside(chromium, beside_address):
    """The opened report with another run beside."""
    yield from opened(chromium, beside_address)


def chosen_model(page) -> str:
    return part(page, "model").locator("option:checked").inner_text()


def test_slices_are_turned_with_slider_keys_and_wheel(page):
    case, index = shows(page).split("/")
    part(page, "slice").fill("3")
    shows(page, f"{case}/3")
    address_has(page, "slice=3")
    part(page, "stage").click()
    page.keyboard.press("ArrowUp")
    shows(page, f"{case}/4")
    page.mouse.wheel(0, 120)
    shows(page, f"{case}/3")
    page.keyboard.press("Home")
    shows(page, f"{case}/0")
    assert f"{case}, slice 0 of " in part(page, "said").inner_text()


def test_layers_and_organs_are_switched(page):
    page.select_option("[data-layer=truth]", "fill")
    address_has(page, "truth=fill")
    (before,) = painted(page)
    assert before > 0
    part(page, "none").click()
    becomes(page, painted, [0])
    address_has(page, "off=")
    part(page, "all").click()
    becomes(page, painted, [before])
    part(page, "apart").check()
    becomes(page, panes, 2)
    page.select_option("[data-layer=error]", "fill")
    becomes(page, panes, 3)


def test_rows_of_the_review_list_and_dots_lead_to_their_slice(page):
    link = page.locator("a[href*='&slice=']").first
    case, index = link.get_attribute("href").removeprefix("#case=").split("&slice=")
    link.click()
    shows(page, f"{case}/{index}")
    becomes(page, stage_has_focus, True)
    dot = page.locator("svg a").last
    dot.focus()
    page.keyboard.press("Enter")
    case = dot.get_attribute("xlink:href").removeprefix("#case=").split("&")[0]
    page.wait_for_selector(f"#viewer[data-shown^='{case}/']")


def test_an_address_opens_the_same_view(page, address):
    case = part(page, "case").locator("option").last.get_attribute("value")
    page.goto("about:blank")
    page.goto(f"{address}#case={case}&slice=5&error=contour&off=liver&apart=1")
    shows(page, f"{case}/5")
    assert not page.get_by_label("liver", exact=True).is_checked()
    assert panes(page) == 3


def test_tables_are_sorted_filtered_and_copied(page):
    table = page.locator("#cases > .scroll table")
    means = [float(words) for words in table.locator("tbody td:nth-child(2)").all_inner_texts()]
    button = table.get_by_role("button", name="mean Dice")
    button.click()
    button.click()
    found = [float(words) for words in table.locator("tbody td:nth-child(2)").all_inner_texts()]
    assert found == sorted(means, reverse=True) != means
    assert table.locator("[aria-sort=descending]").inner_text().startswith("mean Dice")
    organs = page.locator("section", has=page.get_by_role("heading", name="Organs")).first
    organs.get_by_role("button", name="Dice").first.click()
    assert "total" in organs.locator("table").first.locator("tbody tr").last.get_attribute("class")
    page.evaluate("navigator.clipboard.writeText = async (words) => { window.copied = words; }")
    tools = page.locator("#cases > .tools")
    tools.get_by_role("button", name="copy as CSV").click()
    tools.get_by_text("CSV is on the clipboard").wait_for()
    lines = page.evaluate("window.copied").splitlines()
    assert lines[0].startswith("case,mean Dice,") and len(lines) == 1 + len(means)
    tools.get_by_role("button", name="copy as LaTeX").click()
    tools.get_by_text("LaTeX is on the clipboard").wait_for()
    assert page.evaluate("window.copied").startswith("\\begin{tabular}{lr")
    page.get_by_text("Every case and organ").click()
    details = page.locator("details[open]")
    details.get_by_role("searchbox").fill("liver")
    rows = details.locator("tbody tr:visible")
    assert rows.count() == len(means) and "liver" in rows.first.inner_text()


def test_two_models_show_one_slice_at_one_zoom(beside, other):
    assert titles(beside) == ["this model", "coarse"]
    case, index = shows(beside).split("/")
    part(beside, "stage").click()
    beside.keyboard.press("+")
    beside.keyboard.press("Shift+ArrowRight")
    same = """() => [...document.querySelectorAll("#viewer .zoomed")].map((part) => {
      const { a, e } = new DOMMatrix(getComputedStyle(part).transform);
      return [a, e];
    })"""
    address_has(beside, "zoom=2")
    assert "beside=coarse" in beside.url
    becomes(beside, lambda page: page.evaluate(same)[0][1] < 0, True)
    first, second = beside.evaluate(same)
    assert first == pytest.approx(second, abs=0.1) and first[0] == 2
    box = beside.locator("#viewer .pane").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    beside.mouse.move(x, y)
    beside.mouse.down()
    beside.mouse.move(x + 40, y)
    beside.mouse.up()
    moved = pytest.approx(first[1] + 40, abs=1.5)
    becomes(beside, lambda page: page.evaluate(same)[0][1], moved)
    beside.keyboard.press("ArrowUp")
    shows(beside, f"{case}/{int(index) + 1}")
    assert beside.evaluate(same)[0][0] == 2 and panes(beside) == 2
    view = beside.url
    part(beside, "beside").select_option("none")
    becomes(beside, panes, 1)
    beside.goto("about:blank")
    beside.goto(view)
    shows(beside, f"{case}/{int(index) + 1}")
    assert panes(beside) == 2 and beside.evaluate(same)[1][0] == 2


def test_scores_of_both_models_stand_beside_each_other(beside, run_results, other):
    tables = [pd.read_parquet(run / "cases.parquet") for run in (run_results / "evaluate", other)]
    dice = [table.set_index(["case", "organ"])["dice"] for table in tables]
    case = shows(beside).split("/")[0]
    row = part(beside, "dice").locator("tbody tr", has_text="liver")
    found = [row.locator("td").nth(column).inner_text() for column in (0, 2)]
    assert found == [f"{values[case, 'liver']:.3f}" for values in dice]
    for place, level, name in (("#beside", "organ", "liver"), ("#cases > .scroll", "case", case)):
        first, second = (values.groupby(level=level).mean()[name] for values in dice)
        words = beside.locator(f"{place} tr", has_text=name).inner_text().removeprefix(name).split()
        assert words[:3] == [f"{first:.3f}", f"{second:.3f}", f"{second - first:+.3f}"]


def test_a_row_of_the_cases_leads_to_the_models_that_it_is_of(beside):
    row = beside.locator("#cases > .scroll tbody tr").last
    case = row.locator("th").inner_text()
    for column, shown in enumerate((["this model"], ["coarse"], ["this model", "coarse"])):
        row.locator("td").nth(column).locator("a").click()
        beside.wait_for_selector(f"#viewer[data-shown^='{case}/']")
        becomes(beside, panes, len(shown))
        if len(shown) > 1:
            becomes(beside, titles, shown)
        else:
            becomes(beside, chosen_model, shown[0])


def test_panes_are_painted_with_their_own_models_labels(beside, other, run_results):
    case, index = shows(beside).split("/")
    part(beside, "stage").click()
    beside.select_option("[data-layer=truth]", "off")
    shows(beside)
    counts = beside.evaluate(
        """() => [...document.querySelectorAll("#viewer canvas")].map((canvas) => {
          const { width, height } = canvas;
          const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
          return data.filter((value, place) => place % 4 === 3 && value).length / (width * height);
        })"""
    )
    for share, run in zip(counts, (run_results / "evaluate", other), strict=True):
        labels = nib.load(run / "predictions" / f"{case}.nii.gz").get_fdata()
        assert share == pytest.approx((labels[..., int(index)] > 0).mean())


def test_plots_say_values_and_switch_lines(page):
    figure = page.locator(".plots figure", has=page.get_by_role("heading", name="Loss", exact=True))
    figure.locator("svg").focus()
    page.keyboard.press("ArrowLeft")
    said = figure.locator(".values")
    becomes(page, lambda _: said.inner_text().startswith("epoch 1: total "), True)
    assert "coarse" in said.inner_text()
    key = figure.get_by_role("button", name="coarse")
    key.focus()
    page.keyboard.press("Enter")
    assert key.get_attribute("aria-pressed") == "false"
    figure.locator("svg").hover(position={"x": 60, "y": 60})
    becomes(page, lambda _: said.inner_text().startswith("epoch 0: total"), True)
    assert "coarse" not in said.inner_text()
    hidden = figure.locator("svg [id$='series-1-0']")
    assert hidden.evaluate("part => part.style.visibility") == "hidden"
    key.click()
    becomes(page, lambda _: hidden.evaluate("part => part.style.visibility"), "")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1920])
@pytest.mark.parametrize("kind", ["address", "beside_address"])
def test_nothing_sticks_out_is_too_small_or_breaks_rules_of_access(
    chromium, request, kind, width, scheme
):
    check_on_screen(chromium, request.getfixturevalue(kind), width, scheme)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["address", "beside_address"])
def test_on_paper_nothing_is_cut_off_and_no_control_is_left(chromium, request, kind, scheme):
    check_on_paper(chromium, request.getfixturevalue(kind), scheme)


def test_the_keyboard_alone_reaches_every_control(beside):
    check_by_keyboard(beside)


def test_without_scripts_a_picture_stays(chromium, address):
    context = chromium.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(address)
    assert plain.locator(".still img").first.is_visible()
    assert not plain.locator("#viewer").is_visible()
    context.close()
