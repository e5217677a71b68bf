"""The report in a real browser: whole, legible and within reach of the keyboard, in windows of every width."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import report
from tests.browser import Browser
from tests.comparisons import showpiece
from tests.documents import ROOT

pytestmark = pytest.mark.process

MEASURE = r"""(() => {
  document.querySelectorAll("details").forEach(each => each.open = true);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const box = each => each.getBoundingClientRect();
  const told = each => each.textContent.trim().slice(0, 60);
  const light = colour => {
    const [r, g, b] = colour.match(/[\d.]+/g).map(part => part / 255)
      .map(part => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = each => {
    const colour = getComputedStyle(each).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? ground(each.parentElement) : colour;
  };
  const contrast = each => {
    const style = getComputedStyle(each), own = each.closest("svg") ? style.fill : style.color;
    const [dark, bright] = [light(own), light(ground(each))].sort((one, other) => one - other);
    return (bright + .05) / (dark + .05);
  };
  const holds = each => [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  const texts = all("body *").filter(each => !each.closest("script, title, desc") && holds(each) && box(each).width);
  const scrolls = all(".scroll").filter(each => each.scrollWidth > each.clientWidth);
  // Beyond the edge of the page or of its picture, unless it lies in a box that scrolls there.
  const beyond = texts.filter(each => {
    if (each.closest(".scroll")) return false;
    const outer = box(each.closest("figure") || document.body);
    return box(each).right > outer.right + 1 || box(each).left < outer.left - 1;
  });
  const clash = all("figure > svg").flatMap(picture => {
    const parts = all(":scope > text", picture).map(each => [each, box(each)]);
    return parts.filter(([one, a]) => parts.some(([other, b]) => one !== other && a.top < b.bottom - 3
      && b.top < a.bottom - 3 && a.left < b.right && b.left < a.right)).map(([each]) => each);
  });
  return {
    width: innerWidth, page: document.documentElement.scrollWidth, scrolling: scrolls.length, texts: texts.length,
    ground: getComputedStyle(document.body).backgroundColor,
    faint: texts.filter(each => contrast(each) < 4.5).map(told),
    beyond: beyond.map(told), clash: clash.map(told),
  };
})()"""
"""Script that measures the page as it is shown now; each fault is a list of the texts that have it."""


@pytest.fixture
def browser(chromium: Browser, tmp_path: Path) -> Iterator[Browser]:
    """Open an empty page in a browser that can be typed at, and write the report for it."""
    (tmp_path / "report.html").write_text(report.html(showpiece(), []), encoding="utf-8")
    with chromium.page() as browser:
        yield browser


@pytest.mark.parametrize(
    ("scheme", "ground"),
    [("dark", "rgb(22, 24, 27)"), ("light", "rgb(252, 251, 249)")],
    ids=["dark", "light"],
)
@pytest.mark.parametrize("width", [360, 1024, 1440])
def test_is_whole_and_legible_in_every_window(
    browser: Browser, tmp_path: Path, width: int, scheme: str, ground: str
) -> None:
    """At 360, 1024 and 1440 pixels nothing is cut off, covered or too faint, and the browser logs nothing."""
    browser.show(tmp_path / "report.html", width, 800, scheme)
    measured = browser.evaluate(MEASURE)
    is_legible(measured, ground)
    assert measured["page"] <= measured["width"] == width, "the page scrolls sideways"
    if width == 360:
        assert measured["scrolling"] >= 3, (
            "totals, cost and runs are wider than a telephone and must scroll in their boxes"
        )
    assert browser.complaints == []


def test_the_first_screen_of_a_laptop_has_the_answer(browser: Browser, tmp_path: Path) -> None:
    """At 1,440 by 900 pixels the finding, the picture and the four answers are seen without scrolling."""
    for path in (tmp_path / "report.html", ROOT / "reports" / "sample" / "comparison.html"):
        browser.show(path, 1440, 900, "light")
        parts = [".finding", "#overview figure", *(f".card:nth-child({number})" for number in range(1, 5))]
        for part in parts:
            bottom = browser.evaluate(f"document.querySelector('{part}').getBoundingClientRect().bottom")
            assert 0 < bottom <= 900, f"{path.name}: {part}"


@pytest.mark.parametrize("paper", [(680, 1017), (703, 950)], ids=["A4", "letter"])
def test_is_whole_and_legible_on_paper(browser: Browser, tmp_path: Path, paper: tuple[int, int]) -> None:
    """The page fits paper within its margins, prints dark on white in each colour scheme, and needs no scrolling."""
    browser.show(tmp_path / "report.html", *paper, "dark", media="print")
    measured = browser.evaluate(MEASURE)
    is_legible(measured, "rgb(255, 255, 255)")
    assert measured["page"] <= measured["width"]
    assert measured["scrolling"] == 0, "what must be scrolled is cut off"


def is_legible(measured: dict[str, Any], ground: str) -> None:
    """Fail if a text cannot be read, and tell which."""
    assert measured["texts"] > 500
    assert measured["ground"] == ground
    assert measured["faint"] == [], "less than 4.5 to 1 (WCAG AA)"
    assert measured["beyond"] == [], "text is cut off"
    assert measured["clash"] == [], "text lies on text"


IN_REACH = "a, summary, .scroll, button, input"
WALK = f"""(() => {{
  const reach = [...document.querySelectorAll("{IN_REACH}")].filter(each => each.checkVisibility());
  return [reach.indexOf(document.activeElement), reach.length];
}})()"""
"""Script that returns the index of the focus and the number of elements that can have it; -1 for no focus."""


def walked(browser: Browser) -> list[int]:
    """Press Tab until the focus has left the page, and return where it was, in order; it shows everywhere."""
    places: list[int] = []
    _, number = browser.evaluate(WALK)
    for _ in range(number + 1):
        browser.press("Tab")
        place, _ = browser.evaluate(WALK)
        if place == -1:
            break
        places.append(place)
        assert shows_focus(browser), f"the focus does not show at {place}"
    return places


def shows_focus(browser: Browser) -> bool:
    """Compare what is seen with what would be seen without an outline."""
    seen = browser.picture()
    browser.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<style>* { outline: 0 !important }</style>')"
    )
    bare = browser.picture()
    browser.evaluate("document.body.lastChild.remove()")
    return seen != bare


@pytest.mark.sample(1)
@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1440, "light")])
def test_the_tab_key_walks_through_all_of_it(
    browser: Browser, tmp_path: Path, width: int, scheme: str
) -> None:
    """The focus visits each element once, in page order, and is visible; so it does in parts that Enter opens."""
    browser.show(tmp_path / "report.html", width, 800, scheme)
    assert not shows_focus(browser), "nothing has the focus yet"
    closed = walked(browser)
    assert closed == list(range(len(closed)))
    assert len(closed) > 15
    browser.press("Shift+Tab")
    browser.press("Enter")
    opened = walked(browser)
    assert opened == [*range(len(closed), len(closed) + len(opened))]
    columns = browser.evaluate("document.querySelectorAll('#runs th button').length")
    assert len(opened) == 2 + columns, "the filter, the table and its headings"


def test_the_keys_lead_to_every_section(browser: Browser, tmp_path: Path) -> None:
    """Enter on a link brings its section before one's eyes, and an arrow moves a table that is too wide."""
    browser.show(tmp_path / "report.html", 360, 800, "light")
    links = browser.evaluate("document.querySelectorAll('nav a').length")
    for number in range(links):
        browser.evaluate(f"document.querySelectorAll('nav a')[{number}].focus()")
        browser.press("Enter")
        top = browser.evaluate("document.querySelector(location.hash + ' h2').getBoundingClientRect().top")
        assert 0 <= top < 800, number
    browser.evaluate(
        """(box => { box.focus(); window.moved = new Promise(done => box.onscrollend = done) })(
        document.querySelector('.wide'))"""
    )
    browser.press("ArrowRight")
    assert browser.evaluate("moved.then(() => document.activeElement.scrollLeft)") > 0


FILTER = """(words => {
  document.querySelector("#runs details").open = true;
  const input = document.querySelector("#runs input");
  input.value = words;
  input.dispatchEvent(new Event("input"));
  const rows = [...document.querySelectorAll("#runs tbody tr")].filter(row => row.checkVisibility());
  return [document.querySelector("#runs output").textContent, rows.map(row => row.innerText.toLowerCase())];
})"""
"""Script that filters the runs and returns the count that is shown, and the text of the visible rows."""

SORT = """((name, index) => {
  const heads = [...document.querySelectorAll("#runs th[scope=col]")];
  const head = heads.find(each => each.textContent === name);
  head.querySelector("button").click();
  const cells = [...document.querySelectorAll("#runs tbody tr")].map(row => row.cells[heads.indexOf(head)]);
  return [head.getAttribute("aria-sort"), cells.map(cell => cell.textContent.trim())];
})"""
"""Script that clicks on a heading and returns the order and the cells of its column."""


def test_runs_can_be_filtered_and_sorted(browser: Browser, tmp_path: Path) -> None:
    """The filter shows the rows that have all its words; a heading sorts by value, in both directions."""
    browser.show(tmp_path / "report.html", 1024, 800, "light")
    total = len(showpiece().runs)
    shown, rows = browser.evaluate(f"{FILTER}('ORDERS kill:horse')")
    assert shown == f"{len(rows)} of {total} runs"
    assert len(rows) == 2
    assert all("orders" in row and "kill:horse" in row for row in rows)
    shown, rows = browser.evaluate(f"{FILTER}('')")
    assert (shown, len(rows)) == (f"{total} of {total} runs", total)
    for name in ("repeated", "elapsed"):
        up, rising = browser.evaluate(f"{SORT}('{name}')")
        down, falling = browser.evaluate(f"{SORT}('{name}')")
        assert (up, down) == ("ascending", "descending")
        numbers = [_value(cell) for cell in rising]
        assert numbers == sorted(numbers)
        assert [_value(cell) for cell in falling] == numbers[::-1]
        assert len(set(numbers)) > 5
    assert browser.complaints == []


def _value(cell: str) -> float:
    number, _, unit = cell.replace(",", "").partition(" ")
    return float(number) / (1000 if unit == "ms" else 1)


def test_every_picture_is_told_to_who_cannot_see_it(browser: Browser, tmp_path: Path) -> None:
    """A screen reader gets each picture, with its name and a description of all that it shows."""
    browser.show(tmp_path / "report.html", 800, 800, "light")
    browser.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    pictures = browser.evaluate("document.querySelectorAll('svg[role=img]').length")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    told = [
        (each["name"]["value"], each["description"]["value"])
        for each in nodes
        if not each["ignored"] and each["role"]["value"] == "image"
    ]
    assert len(told) == pictures > 30
    assert all(name and re.search(r"\d", words) for name, words in told)
    assert len(set(told)) == len({name for name, _ in told}), "one name, and two things that it tells"
