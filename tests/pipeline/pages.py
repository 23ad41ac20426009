"""What the tests of pages in headless Chromium share."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# texts smaller than 11 px, as they are drawn
SMALL = """() => [...document.querySelectorAll("main *")].filter((element) => {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || !element.getClientRects().length) return false;
  const { a, b } = element.ownerSVGElement ? element.getScreenCTM() : { a: 1, b: 0 };
  return parseFloat(getComputedStyle(element).fontSize) * Math.hypot(a, b) < 11;
}).map((element) => element.outerHTML.slice(0, 200))"""
# options, paths and names that go on in the next line
BROKEN = """() => [...document.querySelectorAll("main .unbroken")].filter((word) => {
  const { fontSize } = getComputedStyle(word);
  return word.getBoundingClientRect().height > 2 * parseFloat(fontSize);
}).map((word) => word.textContent)"""
OPEN = "document.querySelectorAll('details').forEach((part) => { part.open = true; })"
PAINTED = """() => [...document.querySelectorAll("#viewer canvas")].map((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((value, place) => place % 4 === 3 && value).length;
})"""
# what a page's width on A4 paper with margins of 14 mm cuts off, as the beginning of its HTML
CUT = """() => [...document.querySelectorAll("main *")].filter((element) => {
  const box = element.getBoundingClientRect();
  const hidden = element.closest(".pane, .levels"); // a zoomed slice is larger than its pane
  return box.width && !hidden && box.right > innerWidth + 0.5;
}).map((element) => element.outerHTML.slice(0, 200))"""
PAPER = {"width": 688, "height": 1017}  # px of 96 an inch
# what has the focus, and whether that can be seen
FOCUSED = """() => {
  const part = document.activeElement;
  const { outlineStyle, outlineWidth } = getComputedStyle(part);
  return [outlineStyle !== "none" && parseFloat(outlineWidth) >= 2, part === document.body];
}"""


def opened(chromium: Any, address: str) -> Iterator[Any]:
    """The page, its case browser drawn; what its scripts complain of fails the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    found = context.new_page()
    problems: list[str] = []
    found.on("pageerror", lambda error: problems.append(str(error)))
    found.on("console", lambda message: problems.append(message.text))
    found.goto(address)
    _settle(found)
    yield found
    context.close()
    assert problems == []


def shows(page: Any, place: str | None = None) -> str:
    """Wait until the case browser has drawn, or shows "case/slice"; what it shows."""
    wanted = f"[data-shown='{place}']" if place else "[data-shown]"
    page.wait_for_selector(f"#viewer{wanted} [aria-busy=false]")
    return page.get_attribute("#viewer", "data-shown")


def _settle(page: Any) -> bool:
    """Wait until the case browser has drawn; whether there is one."""
    browses = page.locator("#viewer").count() > 0
    if browses:
        shows(page)
    return browses


def part(page: Any, name: str) -> Any:
    """A part of the case browser."""
    return page.locator(f"#viewer [data-part={name}]")


def stage_has_focus(page: Any) -> bool:
    """Whether keys go to the case browser's pictures."""
    return part(page, "stage").evaluate("stage => stage === document.activeElement")


def painted(page: Any) -> list[int]:
    """Pixels of each pane that have a label's colour."""
    shows(page)
    return page.evaluate(PAINTED)


def panes(page: Any) -> int:
    """How many panes the case browser shows."""
    shows(page)
    return page.locator("#viewer .pane").count()


def titles(page: Any) -> list[str]:
    """What is written over the panes."""
    shows(page)
    return page.locator("#viewer .pane .title").all_inner_texts()


def becomes(page: Any, read: Callable[[Any], Any], wanted: Any) -> None:
    """Wait until what is read of the page is as wanted: a page answers after the click on it."""
    for _ in range(200):
        if (found := read(page)) == wanted:
            return
        page.wait_for_timeout(50)
    assert found == wanted


def address_has(page: Any, words: str) -> None:
    """Wait until the page's address has these words."""
    page.wait_for_url(re.compile(re.escape(words)))


def check_on_screen(chromium: Any, address: str, width: int, scheme: str) -> None:
    """Nothing is wider than the page, smaller than 11 px, or breaks a rule of axe; commands break
    between words alone."""
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    page.goto(address)
    _settle(page)
    page.evaluate(OPEN)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(SMALL) == []
    assert page.locator("code .unbroken").count() > 0 and page.evaluate(BROKEN) == []
    if width < 1920:
        axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
        found = axe.run(page).response["violations"]
        assert [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in found] == []
    context.close()


def check_on_paper(chromium: Any, address: str, scheme: str) -> None:
    """As printed: white, nothing cut off, no controls, everything folded open."""
    context = chromium.new_context(viewport=PAPER, color_scheme=scheme, offline=True)
    page = context.new_page()
    page.goto(address)
    browses = _settle(page)
    page.emulate_media(media="print")
    assert page.evaluate(CUT) == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert (background, ink) == ("rgb(255, 255, 255)", "rgb(0, 0, 0)")
    for control in ("select", "input", "button:not(.sort)", ".tools", ".values", ".screen"):
        assert page.locator(f"main {control}:visible").count() == 0, control
    # Chromium repeats no table's head on the next page that has boxes of buttons in it
    heads = "[...document.querySelectorAll('thead button')].some((b) => b.getClientRects().length)"
    assert not page.evaluate(heads)
    if browses:
        assert page.locator("#viewer .pane:visible").count() > 0
        assert page.locator(".paper").count() > 0
    assert page.locator("main .still:visible").count() == 0
    for text in page.locator(".paper").all():
        assert text.is_visible() and text.inner_text().strip()
    context.close()


def check_by_keyboard(page: Any) -> None:
    """The Tab key alone reaches every control, in the page's order, and the focus is seen."""
    page.evaluate(OPEN)
    wanted = page.evaluate(
        """() => {
          const all = [...document.querySelectorAll(
            "a[href], svg a, button, select, input, summary, [tabindex='0']"
          )].filter((part) => part.getClientRects().length);
          all.forEach((part, place) => { part.dataset.place = place; });
          document.activeElement.blur();
          return all.length;
        }"""
    )
    for place in range(wanted):
        page.keyboard.press("Tab")
        found = page.evaluate("document.activeElement.dataset.place")
        assert found == str(place)
        seen, is_body = page.evaluate(FOCUSED)
        assert seen and not is_body, page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
