"""The page of a data set's fingerprint."""

import re

import pytest

from pipeline.planning.choices import Machine, choose
from pipeline.planning.survey import survey
from pipeline.reporting import fingerprint
from tests.pipeline.pages import SMALL
from tests.pipeline.planning.folders import block, write_nnunet


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> str:
    """Of six cases, one without an organ, one with a large one."""
    sizes = {"c2": (0, 0, 0), "c5": (6, 7, 8)}
    folder = write_nnunet(tmp_path_factory.mktemp("raw"), cases=6, sizes=sizes, channel="CT")
    found = survey(block(folder), jobs=1)
    plan = choose(found, Machine(2, 0, ()), None, None)
    page = fingerprint.render(found, plan, "my.yaml")
    assert page == fingerprint.render(found, plan, "my.yaml")
    return page


def test_every_case_has_its_picture_and_what_stands_out_beside_it(html):
    figures = re.findall(r"<figure>\s*<img.*?</figure>", html, re.DOTALL)
    assert [re.search("<b>(.*?)</b>", figure)[1] for figure in figures] == [
        f"c{number}" for number in range(6)
    ]
    assert "the label volume shows no organ of the map." in figures[2]
    assert "liver 0.336 ml, where the median is 0.024 ml." in figures[5]
    assert all(
        "remark" not in figure for place, figure in enumerate(figures) if place not in (2, 5)
    )


def test_it_says_what_was_chosen_and_draws_the_window(html):
    assert "<code>prepare.intensity</code>" in html
    assert "{kind: window, low: 100.0, high: 105.0}" in html
    assert "what the model sees: 100 to 105." in html
    assert html.count("<svg") == 4


def test_it_fetches_nothing(html):
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", html)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "scripts"), [(390, False), (1280, True)])
def test_nothing_sticks_out_and_no_script_is_needed(
    chromium, html, tmp_path, width, scheme, scripts
):
    path = tmp_path / "my.html"
    path.write_text(html, encoding="utf-8")
    context = chromium.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        offline=True,
        java_script_enabled=scripts,
    )
    opened = context.new_page()
    opened.goto(path.as_uri())
    assert opened.locator(".thumbnails img").count() == 6
    assert opened.locator(".thumbnails img").first.is_visible()
    assert opened.locator("main").bounding_box()["width"] <= width
    if scripts:
        assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert opened.evaluate(SMALL) == []
        axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
        found = axe.run(opened).response["violations"]
        assert [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in found] == []
    context.close()
