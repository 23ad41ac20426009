"""The page of a study as people use it, in headless Chromium."""

from pathlib import Path

import pytest

from pipeline.core import files, run_folder
from pipeline.core.params.blocks import stage_params
from pipeline.reporting import study_page
from pipeline.shards.manifest import read_manifest
from pipeline.stages import evaluate, prepare, split
from pipeline.studies import plan
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
from tests.pipeline.stages.test_evaluate import save_model
from tests.pipeline.studies.conftest import PRESET, RANKS, write
from tests.pipeline.studies.outputs import RESULTS

ARMS = {"one": {"train": {"model": "samed"}}, "two": {}}
FIGURES = ["models", "predictions", "stages"]
STUDY = RANKS | {"arms": ARMS, "reference": "one", "draws": [42], "figures": FIGURES}
HISTORY = "epoch,train_loss,learning_rate,lambda\n0,1.5,0.001,0.4\n1,0.5,0.0005,0.3\n"
COST = {"seconds": 9.0, "device": "CPU", "devices": 1}


@pytest.fixture(scope="module")
def pages(phantom_params, tmp_path_factory) -> Path:
    """The folder of two.html, the page of a study of untrained models with real evaluations, and of
    all.html, that of a collection of it, of one with one run finished, and of one without any.
    """
    root = tmp_path_factory.mktemp("study")
    dataset = phantom_params.dataset.model_dump(mode="json")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write(Path("workflow/presets/small.yaml"), PRESET | {"dataset": dataset})
        write(Path("workflow/studies/two.yaml"), STUDY)
        for name in ("begun", "planned"):
            write(Path(f"workflow/studies/{name}.yaml"), STUDY | {"title": name.capitalize()})
        studies = {"title": "All of it", "studies": ["two", "begun", "planned"]}
        write(Path("workflow/studies/all.yaml"), studies)
        plan.load.cache_clear()
        for run in (*plan.load("two")[0].runs, plan.load("begun")[0].runs[0]):
            finish(run)
        for name in ("two", "all"):
            html = study_page.render(study_page.read(name, (), RESULTS))
            (root / f"{name}.html").write_text(html, encoding="utf-8")
        plan.load.cache_clear()
    return root


@pytest.fixture(scope="module")
def address(pages) -> str:
    """Of the study's page."""
    return (pages / "two.html").as_uri()


@pytest.fixture(scope="module")
def collection(pages) -> str:
    """Of the collection's page."""
    return (pages / "all.html").as_uri()


def finish(run: plan.Run) -> None:
    """All outputs of a run, but for the training of its model."""
    places, runs = run.places(RESULTS), Path("runs")
    prepare.run(run.params, places["prepare"], runs)
    split.run(run.params, places["prepare"], places["split"], runs)
    manifest = read_manifest(places["prepare"] / "manifest.parquet")
    save_model(places["train"], manifest, run.params.train.model)
    record = {"params": stage_params(run.params, "train"), "inputs": {}}
    files.write_json(places["train"] / run_folder.PROVENANCE, record)
    files.write_json(places["train"] / "cost.json", COST)
    files.write_text(places["train"] / "history.csv", HISTORY)
    folders = (places[name] for name in ("prepare", "split", "train", "evaluate"))
    evaluate.run(run.params, *folders, runs, device="cpu")


@pytest.fixture
def page(chromium, address):
    """The opened page; what its scripts complain of fails the test."""
    yield from opened(chromium, address)


@pytest.fixture
def whole(chromium, collection):
    """The opened page of the collection."""
    yield from opened(chromium, collection)


def cases_table(page):
    return page.locator("table", has=page.locator("a[href^='#case=']"))


def test_slices_are_turned_with_mouse_and_keys(page):
    case, _ = shows(page).split("/")
    slider = part(page, "slice")
    slider.fill("3")
    shows(page, f"{case}/3")
    slider.press("ArrowRight")
    shows(page, f"{case}/4")
    box = slider.bounding_box()
    page.mouse.click(box["x"] + 1, box["y"] + box["height"] / 2)
    shows(page, f"{case}/0")
    part(page, "stage").click()
    page.keyboard.press("ArrowUp")
    shows(page, f"{case}/1")
    address_has(page, "slice=1")


def test_a_row_leads_to_its_case_and_worst_slice(page):
    links = cases_table(page).locator("tbody th a")
    link = links.last
    case = link.inner_text()
    assert not shows(page).startswith(f"{case}/")
    link.click()
    page.wait_for_selector(f"#viewer[data-shown^='{case}/'] [aria-busy=false]")
    assert part(page, "case").input_value() == case
    becomes(page, stage_has_focus, True)
    links.first.press("Enter")
    page.wait_for_selector(f"#viewer[data-shown^='{links.first.inner_text()}/']")


def test_a_number_leads_to_its_case_with_the_arm_alone(page):
    row = cases_table(page).locator("tbody tr").last
    case = row.locator("th").inner_text()
    row.locator("a").last.click()
    page.wait_for_selector(f"#viewer[data-shown^='{case}/'] [aria-busy=false]")
    becomes(page, titles, ["two"])


def test_the_head_leads_to_the_worst_case(page):
    worst = cases_table(page).locator("tbody th a").first.inner_text()
    part(page, "case").select_option(cases_table(page).locator("tbody th a").last.inner_text())
    page.get_by_role("link", name="look at the worst case").click()
    page.wait_for_selector(f"#viewer[data-shown^='{worst}/']")


def test_tables_are_sorted(page):
    table = cases_table(page)
    cells = table.locator("tbody td:nth-child(3)")
    before = [float(words) for words in cells.all_inner_texts()]
    button = table.get_by_role("button", name="two")
    button.click()
    assert [float(words) for words in cells.all_inner_texts()] == sorted(before)
    button.press("Enter")
    assert [float(words) for words in cells.all_inner_texts()] == sorted(before, reverse=True)
    assert table.locator("[aria-sort=descending]").inner_text().startswith("two")


def test_organs_are_switched(page):
    before = painted(page)
    page.get_by_label("liver", exact=True).uncheck()
    address_has(page, "off=liver")
    becomes(page, lambda page: painted(page) != before, True)
    part(page, "none").click()
    becomes(page, painted, [0, 0])
    part(page, "all").click()
    becomes(page, painted, before)


def test_two_arms_stand_side_by_side_and_the_address_keeps_it(page):
    assert titles(page) == ["one", "two"]
    part(page, "beside").select_option("none")
    becomes(page, panes, 1)
    part(page, "model").select_option("two")
    part(page, "beside").select_option("one")
    page.get_by_label("liver", exact=True).uncheck()
    part(page, "slice").fill("2")
    case = shows(page).split("/")[0]
    shows(page, f"{case}/2")
    becomes(page, titles, ["two", "one"])
    seen = painted(page)
    address_has(page, "beside=one")
    page.reload()
    assert shows(page, f"{case}/2") and titles(page) == ["two", "one"]
    assert not page.get_by_label("liver", exact=True).is_checked()
    assert painted(page) == seen


def test_dots_lead_to_their_case_and_arms(page):
    table = cases_table(page)
    case = table.locator("tbody th").last.inner_text()
    dots = page.locator("figure", has=page.get_by_role("heading", name="Dice of each test case"))
    dots.locator(f"svg a[*|href*='case={case}&model=two']").press("Enter")
    page.wait_for_selector(f"#viewer[data-shown^='{case}/']")
    becomes(page, titles, ["two"])
    address_has(page, "model=two&beside=none")
    title = "Each arm minus one, case by case"
    differences = page.locator("figure", has=page.get_by_role("heading", name=title))
    differences.locator(f"svg a[*|href*='case={case}']").press("Enter")
    becomes(page, titles, ["two", "one"])
    row = page.locator(".gallery a").first
    place = row.inner_text().replace(", slice ", "/")
    row.click()
    shows(page, place)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1920])
@pytest.mark.parametrize("kind", ["address", "collection"])
def test_nothing_sticks_out_is_too_small_or_breaks_rules_of_access(
    chromium, request, kind, width, scheme
):
    check_on_screen(chromium, request.getfixturevalue(kind), width, scheme)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["address", "collection"])
def test_on_paper_nothing_is_cut_off_and_no_control_is_left(chromium, request, kind, scheme):
    check_on_paper(chromium, request.getfixturevalue(kind), scheme)


@pytest.mark.parametrize("kind", ["page", "whole"])
def test_the_keyboard_alone_reaches_every_control(request, kind):
    check_by_keyboard(request.getfixturevalue(kind))


def test_a_collection_leads_to_its_studies(whole):
    assert whole.locator("#viewer").count() == 0
    heads = whole.locator("main section h2").all_inner_texts()
    assert whole.locator("header li a").all_inner_texts() == heads
    whole.locator("header li a").last.click()
    address_has(whole, "#planned")
    assert "None of its runs is finished yet." in whole.locator("#planned").inner_text()
    table = whole.locator("#two table").first
    table.get_by_role("button", name="mean Dice").click()
    assert table.locator("[aria-sort=ascending]").inner_text().startswith("mean Dice")


def test_without_scripts_plots_tables_and_a_picture_stay(chromium, address):
    context = chromium.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(address)
    assert not plain.locator("#viewer").is_visible()
    assert plain.locator(".still img").first.is_visible()
    assert plain.locator("main button:visible").count() == 0
    for svg in plain.locator("main figure svg").all():
        box = svg.bounding_box()
        assert svg.is_visible() and box["width"] > 200 and box["height"] > 80
    assert plain.locator(".plots svg").count() == 3 and plain.locator(".gallery").count() == 3
    assert cases_table(plain).locator("tbody tr").count() == 2
    context.close()
