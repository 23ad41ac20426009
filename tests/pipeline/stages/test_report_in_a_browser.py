"""The report as people use it, in headless Chromium."""

import pytest

from pipeline.reporting.inputs import ReportFolders
from pipeline.stages import report

# texts smaller than 11 px, as they are drawn
SMALL = """() => [...document.querySelectorAll("main *")].filter((element) => {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || !element.getClientRects().length) return false;
  const { a, b } = element.ownerSVGElement ? element.getScreenCTM() : { a: 1, b: 0 };
  return parseFloat(getComputedStyle(element).fontSize) * Math.hypot(a, b) < 11;
}).map((element) => element.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def address(run_params, run_results, tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("page")
    report.run(run_params, ReportFolders.find(run_results), root / "reports", root / "runs")
    return (root / "reports/report.html").as_uri()


@pytest.fixture
def page(chromium, address):
    """The opened report; what its scripts complain of fails the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda message: problems.append(message.text))
    opened.goto(address)
    shows(opened)
    yield opened
    context.close()
    assert problems == []


def shows(page, place: str | None = None) -> str:
    """Wait until the case browser has drawn, or shows "case/slice"; what it shows."""
    wanted = f"[data-shown='{place}']" if place else "[data-shown]"
    page.wait_for_selector(f"#viewer{wanted} [aria-busy=false]")
    return page.get_attribute("#viewer", "data-shown")


def part(page, name: str):
    return page.locator(f"#viewer [data-part={name}]")


def painted(page) -> int:
    """Pixels of the first pane that have a label's colour."""
    shows(page)
    return page.evaluate(
        """() => {
          const canvas = document.querySelector("#viewer canvas");
          const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          return data.filter((value, place) => place % 4 === 3 && value).length;
        }"""
    )


def panes(page) -> int:
    shows(page)
    return page.locator("#viewer .pane").count()


def test_slices_are_turned_with_slider_keys_and_wheel(page):
    case, index = shows(page).split("/")
    part(page, "slice").fill("3")
    assert shows(page, f"{case}/3") and "slice=3" in page.url
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
    before = painted(page)
    assert before > 0 and "truth=fill" in page.url
    part(page, "none").click()
    assert painted(page) == 0 and "off=" in page.url
    part(page, "all").click()
    assert painted(page) == before
    part(page, "apart").check()
    assert panes(page) == 2
    page.select_option("[data-layer=error]", "fill")
    assert panes(page) == 3


def test_rows_of_the_review_list_and_dots_lead_to_their_slice(page):
    link = page.locator("a[href*='&slice=']").first
    case, index = link.get_attribute("href").removeprefix("#case=").split("&slice=")
    link.click()
    shows(page, f"{case}/{index}")
    assert part(page, "stage").evaluate("stage => stage === document.activeElement")
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_nothing_sticks_out_is_too_small_or_breaks_rules_of_access(
    chromium, address, width, scheme
):
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    opened = context.new_page()
    opened.goto(address)
    shows(opened)
    opened.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.evaluate(SMALL) == []
    if width == 1280:
        axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
        found = axe.run(opened).response["violations"]
        assert [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in found] == []
    context.close()


def test_without_scripts_a_picture_stays(chromium, address):
    context = chromium.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(address)
    assert plain.locator(".still img").first.is_visible()
    assert not plain.locator("#viewer").is_visible()
    context.close()
